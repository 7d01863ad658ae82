"""One job, in whatever process a launcher starts it: settle there, train, say how it ended.

A launcher pickles the job and unpickles it in a worker, so it is a plain dataclass of plain
things, and its exit code travels back as a return value. Imports torch only when a job runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vae_cli import continuing
from vae_cli.checking import typed
from vae_cli.config import Config
from vae_cli.errors import UserError
from vae_cli.hparams import settings
from vae_cli.locking import locked
from vae_cli.report.text import setting, short_names
from vae_cli.report.writing import job_line

# settings, folder, whether to leave the folder of a run that could not begin, the settings that
# vary in its sweep -> exit code
Train = Callable[[Config, Path, bool, Sequence[str]], int]
USAGE_ERROR, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
POLL = 0.5  # seconds between two looks at whether the sweep is still wanted


@dataclass(frozen=True)
class Workers:
    """Where a sweep's jobs run, if in processes of their own."""

    parent: int | None  # whose death ends the jobs; None: a queue that outlives it
    stop: Path  # a file: once it is there, jobs stop and none begins
    threads: int | None  # for torch in each
    deal_gpus: bool


@dataclass(frozen=True)
class Job:
    """What a launcher calls with a job's configuration. Returns the job's exit code."""

    train: Train
    swept: tuple[str, ...] = ()  # settings that differ among the jobs
    jobs: int = 0  # how many there are; 0: not known
    workers: Workers | None = None
    watched: dict[int, Any] = field(default_factory=dict)  # a search's watcher, by job number

    def __call__(self, cfg: DictConfig) -> int:
        """Train in the job's folder, from the start or from what the folder holds."""
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        config = typed(cfg)
        watch = self.watched.get(int(hydra.job.num))
        if self.workers is None:
            code = self._train(config, folder, watch)
            self._say(config, folder, int(hydra.job.num))
            if code in (INTERRUPTED, TERMINATED):
                sys.exit(code)  # ends the sweep as well
            return code
        if self.workers.stop.exists():
            return TERMINATED
        settle(self.workers, int(hydra.job.num), config)
        with (folder / "console.log").open("a") as file, _sent_to(file), _wanted(self.workers):
            with _requeued() as requeue:
                code = self._train(config, folder, watch)
            if code == TERMINATED and requeue.is_set():
                requeue_now()
        self._say(config, folder, int(hydra.job.num))
        return code

    def _train(self, config: Config, folder: Path, watch: Any) -> int:
        if watch is None:
            return train_in(folder, config, self.train, self.swept, keep=True)
        from vae_cli import run  # imports torch

        with run.observed(watch):
            code = train_in(folder, config, self.train, self.swept, keep=True)
        return int(watch.settled(folder, code))

    def _say(self, config: Config, folder: Path, number: int) -> None:
        """The job's line in the answer that the sweep is becoming."""
        if config.dry_run:
            return
        mine = settings(config)
        names = short_names(list(self.swept)).items()
        shown = ",".join(f"{name}={setting(mine.get(key))}" for key, name in names)
        print(job_line(number + 1, self.jobs, shown, folder), flush=True)


def train_in(
    folder: Path,
    config: Config,
    train: Train,
    swept: Sequence[str] = (),
    goes_on: bool = True,
    keep: bool = False,
) -> int:
    """Train in a folder that no other process uses; goes_on: with what the folder holds.

    keep: leave the folder of a run that could not begin. Returns the exit code.
    """
    if config.dry_run:
        return train(config, folder, False, swept)
    try:
        with locked(folder):
            if goes_on:
                config = continuing.ready(config, folder)
            return train(config, folder, keep or config.resume is not None, swept)
    except UserError as error:
        print(f"vae-train: {error}", file=sys.stderr)
        return USAGE_ERROR


# ----------------------------------------------------------------- in a process of the launcher's

_settled = False


def settle(workers: Workers, number: int, config: Config) -> None:
    """Once a process: its share of threads and its GPU, before torch is set up."""
    global _settled
    if _settled:
        return
    _settled = True
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches every process of a terminal: the sweep's own decides (`stop`)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if workers.threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(workers.threads)
    import torch

    if workers.threads is not None:
        torch.set_num_threads(workers.threads)
    if workers.deal_gpus and config.device in ("auto", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count() if visible is None else 0
        if (gpu := dealt(number, visible, count)) is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def dealt(number: int, visible: str | None, count: int) -> str | None:
    """The GPU of a process whose first job is `number`; None: leave it as it is.

    visible: CUDA_VISIBLE_DEVICES; count: the GPUs there are, where it is not set.
    """
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[number % len(names)] if len(names) > 1 else None


@contextlib.contextmanager
def _sent_to(file: Any) -> Iterator[None]:
    """What a job prints goes to its folder: several at once would mix on a terminal."""
    with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


@contextlib.contextmanager
def _wanted(workers: Workers) -> Iterator[None]:
    """Ask this process to stop, with a checkpoint, when the sweep is stopped or has died."""
    done = threading.Event()
    main = os.getpid()

    def watch() -> None:
        while not done.wait(POLL):
            orphaned = workers.parent is not None and os.getppid() != workers.parent
            if orphaned or workers.stop.exists():
                os.kill(main, signal.SIGTERM)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        if workers.parent is not None and os.getppid() != workers.parent:
            os._exit(1)  # nobody is left to take the result


# ------------------------------------------------------------------------------ a queue's requeue


def _preemption() -> int | None:
    """The signal by which submitit says that a job will be requeued; None elsewhere."""
    if not os.environ.get("SUBMITIT_EXECUTOR"):
        return None
    name = "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    return int(getattr(signal, name))


_queue_handler: Any = None


@contextlib.contextmanager
def _requeued() -> Iterator[threading.Event]:
    """Turn submitit's signal into a request to stop; the event says that it came.

    submitit's own handler would end the process at whatever line it is; the job writes its
    checkpoint first, then `requeue_now` calls that handler.
    """
    global _queue_handler
    came = threading.Event()
    number = _preemption()
    if number is None:
        yield came
        return
    idle = signal.getsignal(signal.SIGTERM)
    _queue_handler = signal.getsignal(number)

    def ask(received: int, frame: FrameType | None) -> None:
        came.set()
        if signal.getsignal(signal.SIGTERM) is idle:  # training has not begun: nothing to keep
            _queue_handler(received, frame)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(number, ask)
    try:
        yield came
    finally:
        signal.signal(number, _queue_handler)


def requeue_now() -> None:
    """Let submitit put the job back into its queue. Ends the process."""
    _queue_handler(_preemption(), None)
