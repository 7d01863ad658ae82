"""Training runs in their folders, through Hydra: one, or all jobs of a sweep. No torch before.

Nothing stays changed in this process: logging, Hydra and sys.argv are afterwards as they were.
"""

import logging
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TextIO, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vae_cli.config.compose import own_hydra, quoted
from vae_cli.config.plugins import load_plugins
from vae_cli.config.registry import config_dir
from vae_cli.config.settings import Config
from vae_cli.console import Forgiving, RunFailed, UserError, count, one_line, say
from vae_cli.runs import resume
from vae_cli.runs.files import LOCK, locked
from vae_cli.runs.interrupt import Interrupted
from vae_cli.runs.saved import read_summary
from vae_cli.sweeps.multirun import run_jobs
from vae_cli.sweeps.plan import Job, Sweep

if TYPE_CHECKING:
    from vae_cli.training.loop import Observer

FAILED, USAGE_ERROR, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # exit codes
STOPPED = (INTERRUPTED, TERMINATED)
LINES = "lines.txt"  # in the folder of a sweep, while it goes on: what its workers have to say
LOG, CONSOLE = "train.log", "console.log"  # in a run folder; the second of a sweep's job only
log = logging.getLogger(__name__)


def answer(command: str, work: Callable[[], int | None]) -> int:
    """Do the work and return its exit code, or say in one line why it ended."""
    try:
        return work() or 0
    except (UserError, RunFailed, KeyboardInterrupt) as error:
        text, code = str(error) or "interrupted before any work began", exit_code(error)
    # what was typed may hold anything, also what would move the cursor
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    print(f"{command}: {line}", file=sys.stderr)
    return code


def exit_code(error: BaseException) -> int:
    """The exit code for a reason that ends a command."""
    if isinstance(error, KeyboardInterrupt):
        return TERMINATED if isinstance(error, Interrupted) and error.by_signal else INTERRUPTED
    return USAGE_ERROR if isinstance(error, UserError) else FAILED


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write warnings, and the error that ends the block, to train.log in a folder."""
    handler, root = logging.FileHandler(folder / LOG), logging.getLogger()
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    before = logging.raiseExceptions, warnings.showwarning
    logging.raiseExceptions = False  # a full disk costs lines of train.log, not a traceback each
    logging.captureWarnings(True)
    root.addHandler(handler)
    try:
        yield
    except (UserError, RunFailed, KeyboardInterrupt) as error:
        log.error("%s", error)
        raise
    except Exception:
        log.exception("the run failed")
        raise
    finally:
        root.removeHandler(handler)
        if warnings.showwarning is not before[1]:  # nobody had captured them before
            logging.captureWarnings(False)
        with suppress(OSError):  # of a full disk
            handler.close()
        logging.raiseExceptions = before[0]


def train_job(
    config: Config, folder: Path, observers: "Sequence[Observer]" = (), swept: Sequence[str] = ()
) -> None:
    """Train in a locked folder, from its newest checkpoint if any. Raises what ends the run."""
    with logged(folder), locked(folder):
        try:
            resume.prepare_folder(folder, config)
            if not config.quiet:  # torch takes seconds
                what = f"{config.model.name} on {config.dataset.name}"
                place = Path(os.path.relpath(folder))
                place = folder if ".." in place.parts else place
                say(f"{what}, {count(config.epochs, 'epoch')} -> {place}")
            from vae_cli.training.loop import train  # imports torch

            pictures: list[Observer] = []
            if config.figures == "all" or (config.figures == "auto" and not swept):
                from vae_cli.analysis.pictures import Pictures  # imports matplotlib

                pictures = [Pictures()]
            train(config, folder, [*pictures, *observers], swept)
        except (UserError, KeyboardInterrupt):
            if {item.name for item in folder.iterdir()} <= {".hydra", LOG, LOCK}:
                shutil.rmtree(folder)  # no run began in it
            raise


def run_job(
    config: Config, folder: Path, observers: "Sequence[Observer]" = (), swept: Sequence[str] = ()
) -> int:
    """Train in a folder and return the exit code, after a line that says why training ended."""
    try:
        return answer("vae-train", lambda: train_job(config, folder, observers, swept))
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        print(f"vae-train: the run failed: {reason}; see {folder}/{LOG}", file=sys.stderr)
        return FAILED


def through_hydra(arguments: Sequence[str], job: Callable[[DictConfig], object]) -> int:
    """Let Hydra set up the folder and .hydra/, and call the job there. Returns an exit code.

    Raises what the job raises.
    """
    argv, sys.argv = sys.argv, [sys.argv[0], *arguments]
    errors: list[Exception] = []

    def work(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except Exception as error:  # of whatever kind: Hydra would print it
            errors.append(error)

    try:
        with own_hydra():
            hydra.main(str(config_dir()), "config", version_base="1.3")(work)()
    except SystemExit as stop:  # Hydra has said why
        return stop.code if isinstance(stop.code, int) else FAILED
    finally:
        sys.argv = argv
    if errors:
        raise errors[0]
    return 0


def quietly(work: Callable[[], int], folder: Path, shown: bool) -> int:
    """Let a job print into console.log in its folder, or, if `shown`, on the terminal."""
    if shown:
        return work()
    with (folder / CONSOLE).open("a") as file:
        stream = cast(TextIO, Forgiving(file))
        with redirect_stdout(stream), redirect_stderr(stream):
            return work()


def outcome(job: Job, refused: bool) -> str:
    """Say how a job ended: its test metrics, or its error. refused: no run began."""
    summary, console = read_summary(job.folder), job.folder / CONSOLE
    numbers, seconds = summary.get("metrics") or {}, f"{summary.get('seconds', 0):.1f} s"
    if refused or not summary:
        lines = console.read_text().splitlines() if console.is_file() else []
        return f"failed: {lines[-1].removeprefix('vae-train: ') if lines else 'see above'}"
    if summary["status"] == "completed":
        shown = ("elbo", "reconstruction", "kl")
        metrics = ", ".join(f"{name} {numbers[f'test/{name}']:.3f}" for name in shown)
        return f"test {metrics}, {seconds}"
    epochs = f"{summary.get('epochs', 0)}/{job.settings['epochs']}"
    error = one_line(summary.get("error") or "")
    return f"{summary['status']}, {epochs}, {seconds}: {error}".rstrip(": ")


@contextmanager
def followed(path: Path) -> Iterator[None]:
    """Print what workers append to a file, wherever they run, until the block ends."""
    path.write_text("")
    ended = Event()

    def follow() -> None:
        with path.open() as file:
            while not ended.wait(0.3):
                print(file.read(), end="", flush=True)
            print(file.read(), end="", flush=True)

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def launched(sweep: Sweep, process: int, cfg: DictConfig) -> int:
    """Train the job that Hydra names, if it is unfinished. process: the sweep's own number.

    Prints a line before and a line after the job, and nothing between them unless asked.
    """
    job, is_worker = sweep.jobs[HydraConfig.get().job.num], os.getpid() != process
    if is_worker:
        load_plugins(job.settings["plugins"])
    if job.is_finished:
        return 0
    title = sweep.title(job)

    def tell(line: str) -> None:
        lines = (sweep.folder / LINES).open("a") if is_worker else nullcontext(sys.stdout)
        with lines as file:
            print(line, file=file, flush=True)

    if is_worker and str(HydraConfig.get().launcher._target_).endswith(".LocalLauncher"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # all jobs run at once: see `be_polite`
    tell(title)
    work = partial(run_job, job.config, job.folder, swept=sweep.swept)
    # the output of several jobs at once would mix on a terminal
    code = quietly(work, job.folder, sweep.shows_jobs and not is_worker)
    tell(f"{title}: {outcome(job, code == USAGE_ERROR)}")
    if code in STOPPED and not is_worker:
        raise Interrupted("", by_signal=code == TERMINATED)  # ends the sweep
    return code


def run_sweep(sweep: Sweep) -> int:
    """Do what is left of a sweep and print its report. Returns an exit code."""

    def train_trial(
        config: Config, overrides: list[str], folder: Path, observers: "Sequence[Observer]"
    ) -> int:
        words, codes = [*sweep.switches, *overrides, f"hydra.run.dir={quoted(folder)}"], [0]
        task = partial(run_job, config, folder, observers, sweep.swept)
        work = partial(quietly, task, folder, sweep.shows_jobs)
        return through_hydra(words, lambda cfg: codes.append(work())) or codes[-1]

    with sweep.begun():
        try:
            if sweep.search is None:
                with followed(sweep.folder / LINES):
                    done = run_jobs(sweep, partial(launched, sweep, os.getpid()))
                code = FAILED * (not (done and all(job.is_finished for job in sweep.jobs)))
            else:
                from vae_cli.sweeps.search import run_search  # imports Optuna and torch

                code = run_search(sweep.search, sweep.folder, train_trial)
        except KeyboardInterrupt as stop:
            code = exit_code(stop)
        from vae_cli.sweeps.report import sweep_report  # imports pandas

        print("", sweep_report(sweep.folder, figures=code not in STOPPED), sep="\n", flush=True)
    if code in STOPPED:
        place = f"hydra.sweep.dir={shlex.quote(str(sweep.folder))}"
        print(f"vae-train: stopped; the same command with {place} goes on", file=sys.stderr)
    return code
