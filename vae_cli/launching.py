"""Several jobs through Hydra's launchers: in this process, in several, or in a queue's.

What became of a job is its exit code; where a launcher lost the process, what its folder says.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from vae_cli import console, continuing
from vae_cli.errors import UserError, one_line
from vae_cli.files import write_json
from vae_cli.jobs import FAILED, INTERRUPTED, TERMINATED, Job, Workers
from vae_cli.locking import is_locked
from vae_cli.planning import config_dir
from vae_cli.resuming import quoted

STOP = ".stop"  # in the sweep's folder, while it is being stopped
ATTEMPTS = 2  # a job whose process dies twice has failed

# by a launcher's class: are its jobs children of this process; do they share this machine?
_CHILDREN = ("JoblibLauncher",)
_HERE = (*_CHILDREN, "LocalLauncher")


@dataclass(frozen=True)
class Launched:
    """A job as a launcher takes it."""

    overrides: list[str]
    folder: Path
    watch: Any = None  # what a search watches it with


class Launcher:
    """Hydra's launcher for the jobs of a sweep's folder, made by `launcher`."""

    def __init__(self, cfg: DictConfig, hydra: Hydra, folder: Path) -> None:
        self.cfg = cfg
        self.folder = folder
        self.context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(cfg))
        self.kind = str(cfg.hydra.launcher._target_).rpartition(".")[2]
        self.elsewhere = self.kind != "BasicLauncher"
        self.stopped: int | None = None  # the exit code, once the sweep was asked to stop

    @property
    def how_to_go_on(self) -> str:
        """Said when a sweep ends before its time."""
        place = f"hydra.sweep.dir={console.quoted(self.folder)}"
        return f"go on with the same command and {place}, or resume=auto"

    def __call__(self, jobs: Sequence[Launched], job: Job) -> list[int | None]:
        """Run jobs. Returns their exit codes; None for one that did not begin, or is not heard of.

        A job whose process died, which may have been another's fault, is tried once more.
        """
        codes: list[int | None] = [None] * len(jobs)
        here = self._at_once(len(jobs))
        batched = here if self.kind == "LocalLauncher" else len(jobs)
        size = self.cfg.hydra.sweeper.get("max_batch_size") or batched
        for start in range(0, len(jobs), size):
            left = list(range(start, min(start + size, len(jobs))))
            for _ in range(ATTEMPTS):
                batch = [jobs[index] for index in left]
                found = self._launch(batch, self._placed(job, batch))
                for index, code in zip(left, found, strict=True):
                    codes[index] = code
                left = [index for index in left if codes[index] is None]
                if not left or self.stopped or self.kind not in _HERE:
                    break
            if self.stopped:
                break
            for index in left if self.kind in _HERE else ():
                codes[index] = _died(jobs[index].folder)
        return codes

    def _placed(self, job: Job, batch: Sequence[Launched]) -> Job:
        """The job with its watchers and, in a process of its own, its share of the machine."""
        job = replace(job, watched={i: j.watch for i, j in enumerate(batch) if j.watch})
        if not self.elsewhere:
            return job
        here = self.kind in _HERE
        own = os.environ.get("OMP_NUM_THREADS", "")
        share = int(own) if own.isdecimal() else max(1, cores() // self._at_once(len(batch)))
        parent = os.getpid() if self.kind in _CHILDREN else None
        workers = Workers(parent, self.folder / STOP, share if here else None, deal_gpus=here)
        return replace(job, workers=workers)

    def _at_once(self, jobs: int) -> int:
        """How many jobs run at the same time on this machine."""
        most = cores()
        if self.kind in _CHILDREN:
            wanted = int(self.cfg.hydra.launcher.n_jobs)
            most = wanted if wanted > 0 else cores() + 1 + wanted
        return max(1, min(jobs, most))

    def _launch(self, jobs: Sequence[Launched], job: Job) -> list[int | None]:
        """One call of Hydra's launcher."""
        texts = [
            [*j.overrides, f"hydra.sweep.subdir={quoted(os.path.relpath(j.folder, self.folder))}"]
            for j in jobs
        ]
        plugin = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=job, config=self.cfg
        )
        returns: Sequence[JobReturn] = []
        try:
            with self._signals():
                returns = plugin.launch(texts, initial_job_idx=0)
        except SystemExit as stop:  # a job in this process was stopped
            self.stopped = stop.code if isinstance(stop.code, int) else INTERRUPTED
        except Exception as error:
            if not any((j.folder / "config.yaml").exists() for j in jobs):
                raise UserError(f"hydra/launcher: {one_line(error)[:300]}") from error
            print(f"vae-train: the launcher lost a job: {one_line(error)[:200]}", file=sys.stderr)
            while self.kind in _HERE and any(is_locked(j.folder) for j in jobs):
                time.sleep(0.2)  # the others go on
        if returns:
            return [_code(returned) for returned in returns]
        return [_told(j.folder) for j in jobs]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM, where jobs run elsewhere: they stop with a checkpoint, none begins.

        A second one does not wait for them.
        """
        if not self.elsewhere:
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.stopped is not None:
                raise SystemExit(self.stopped)
            self.stopped = INTERRUPTED if number == signal.SIGINT else TERMINATED
            (self.folder / STOP).touch()
            print("vae-train: stopping; running jobs write their checkpoints", file=sys.stderr)

        former = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def launcher(config_name: str, arguments: list[str], folder: Path) -> Iterator[Launcher]:
    """The launcher that these overrides choose, for the sweep in a folder."""
    version.setbase("1.3")
    search_path = create_config_search_path(str(config_dir()))
    hydra = Hydra.create_main_hydra2("train", search_path)
    try:
        cfg = hydra.compose_config(
            config_name,
            [*arguments, f"hydra.sweep.dir={quoted(folder)}"],
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=True,
        )
        (folder / STOP).unlink(missing_ok=True)
        yield Launcher(cfg, hydra, folder)
    finally:
        (folder / STOP).unlink(missing_ok=True)
        GlobalHydra.instance().clear()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _code(returned: JobReturn) -> int:
    """What a job returned; 1 for one that a launcher's process could not even begin."""
    if returned.status is JobStatus.COMPLETED and isinstance(returned._return_value, int):
        return returned._return_value
    print(f"vae-train: a job failed: {one_line(returned._return_value)[:200]}", file=sys.stderr)
    return FAILED


def _told(folder: Path) -> int | None:
    """The exit code that a run folder speaks of; None if its run has not ended."""
    status = continuing.read_json(folder / "summary.json").get("status")
    codes = {"completed": 0, "failed": FAILED, "interrupted": TERMINATED}
    return codes.get(str(status))


def _died(folder: Path) -> int:
    """Note in a run folder that its process ended without a word."""
    path = folder / "summary.json"
    reason = "its process died, more than once; was it killed, or out of memory?"
    if summary := continuing.read_json(path):
        write_json(path, summary | {"status": "failed", "error": reason})
    print(f"vae-train: {folder}: {reason}", file=sys.stderr)
    return FAILED
