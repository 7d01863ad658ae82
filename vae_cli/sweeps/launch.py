"""Training runs in their folders, through Hydra: one, or all jobs of a sweep. No torch before."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vae_cli.config.compose import quoted
from vae_cli.config.registry import config_dir
from vae_cli.config.settings import Config
from vae_cli.console import RunFailed, UserError, one_line
from vae_cli.runs import resume, saved
from vae_cli.runs.files import LOCK, locked
from vae_cli.runs.interrupt import Interrupted
from vae_cli.sweeps.plan import Sweep

if TYPE_CHECKING:
    from vae_cli.training.loop import Observer

FAILED, USAGE_ERROR, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # exit codes
STOPPED = (INTERRUPTED, TERMINATED)
log = logging.getLogger(__name__)


class Forgiving:
    """A standard stream that drops text whose reader has gone: `| head`, a closed terminal."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text at once, or drop it and all that follows."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)


def answer(command: str, work: Callable[[], int]) -> int:
    """Do the work and return its exit code, or say in one line why it ended."""
    try:
        return work()
    except (UserError, RunFailed, KeyboardInterrupt) as error:
        text, code = str(error) or "interrupted before any work began", exit_code(error)
    if log.hasHandlers():  # there is a train.log
        log.error("%s", text)
    # what was typed may hold anything, also what would move the cursor
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    print(f"{command}: {line}", file=sys.stderr)
    return code


def exit_code(error: BaseException) -> int:
    """The exit code for a reason that ends a command."""
    if isinstance(error, KeyboardInterrupt):
        return TERMINATED if isinstance(error, Interrupted) and error.by_signal else INTERRUPTED
    return USAGE_ERROR if isinstance(error, UserError) else FAILED


def run_job(
    config: Config, folder: Path, observers: "Sequence[Observer]" = (), swept: Sequence[str] = ()
) -> int:
    """Train in a locked folder, from its newest checkpoint if any, and return the exit code."""

    def work() -> int:
        with locked(folder):
            try:
                resume.prepare_folder(folder, config)
                from vae_cli.training.loop import train  # imports torch

                pictures: list[Observer] = []
                if config.figures == "auto":
                    from vae_cli.analysis.pictures import Pictures  # imports matplotlib

                    pictures = [Pictures()]
                train(config, folder, [*pictures, *observers], swept)
            except (UserError, KeyboardInterrupt):
                if {item.name for item in folder.iterdir()} <= {".hydra", "train.log", LOCK}:
                    shutil.rmtree(folder)  # no run began in it
                raise
        return 0

    logging.captureWarnings(True)
    try:
        return answer("vae-train", work)
    except Exception as error:
        log.exception("the run failed")
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        print(f"vae-train: the run failed: {reason}; see {folder}/train.log", file=sys.stderr)
        return FAILED


def through_hydra(arguments: Sequence[str], job: Callable[[DictConfig], object]) -> int:
    """Let Hydra set up folder, log and .hydra/, and call the job there. Returns an exit code."""
    root, argv = logging.getLogger(), sys.argv
    handlers, sys.argv = root.handlers[:], [argv[0], *arguments]
    logging.raiseExceptions = False  # a full disk costs lines of train.log, not a traceback each
    try:
        hydra.main(str(config_dir()), "config", version_base="1.3")(job)()
    except SystemExit as stop:  # Hydra has said why
        return stop.code if isinstance(stop.code, int) else FAILED
    finally:
        sys.argv = argv
        for handler in set(root.handlers) - set(handlers):  # that of train.log
            root.removeHandler(handler)
            with suppress(OSError):  # of a full disk
                handler.close()
    return 0


def launched(sweep: Sweep, process: int, cfg: DictConfig) -> int:
    """Train the job that Hydra names, if it is unfinished. process: the sweep's own number."""
    job = sweep.jobs[HydraConfig.get().job.num]
    if job.is_finished:
        return 0
    if os.getpid() == process:
        code = run_job(job.config, job.folder, swept=sweep.swept)
        if code in STOPPED:
            raise Interrupted("", by_signal=code == TERMINATED)  # ends the sweep
    else:  # the output of several jobs at once would mix on a terminal
        if str(HydraConfig.get().launcher._target_).endswith(".LocalLauncher"):
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # all jobs run at once: see `be_polite`
        path = job.folder / "console.log"
        with path.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            code = run_job(job.config, job.folder, swept=sweep.swept)
    if summary := saved.read_summary(job.folder):
        print(f"job {job.number + 1}/{len(sweep.jobs)} {job.outcome(summary)}", flush=True)
    return code


def run_sweep(sweep: Sweep, switches: Sequence[str] = ()) -> int:
    """Do what is left of a sweep and print its report. switches: --config-dir DIR and the like."""

    def train_trial(
        config: Config, overrides: list[str], folder: Path, observers: "Sequence[Observer]"
    ) -> int:
        codes: list[int] = []
        task = partial(run_job, config, folder, observers, sweep.swept)
        words = [*switches, *overrides, f"hydra.run.dir={quoted(folder)}"]
        code = through_hydra(words, lambda cfg: codes.append(task()))
        return max([code, *codes])

    with sweep.begun():
        try:
            if sweep.search is None:
                task = partial(launched, sweep, os.getpid())
                code = through_hydra([*switches, *sweep.arguments], task)
                code = code or FAILED * (not all(job.is_finished for job in sweep.jobs))
            else:
                from vae_cli.sweeps.search import run_search  # imports Optuna and torch

                code = run_search(sweep.search, sweep.folder, train_trial)
        except KeyboardInterrupt as stop:
            code = exit_code(stop)
        from vae_cli.sweeps.report import sweep_report  # imports pandas

        print(sweep_report(sweep.folder, figures=code not in STOPPED), flush=True)
    if code in STOPPED:
        place = f"hydra.sweep.dir={shlex.quote(str(sweep.folder))}"
        print(f"vae-train: stopped; the same command with {place} goes on", file=sys.stderr)
    return code
