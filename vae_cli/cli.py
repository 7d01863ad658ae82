"""The command `vae-train`: compose the configuration, check all of it, then hand it to training.

Nothing is started before every job's configuration has been composed and checked, so a mistake
anywhere (also in the last job of a sweep) costs one line, exit code 2 and no folder. This module
imports no torch: help, completion and mistakes are answered at once.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vae_cli import console, cpu, locking, sharing, streams, sweep_planning, sweeping
from vae_cli.checking import typed
from vae_cli.config import Config
from vae_cli.errors import RunFailed, UserError, one_line
from vae_cli.help import help_text
from vae_cli.jobs import FAILED, INTERRUPTED, TERMINATED, USAGE_ERROR, Train, train_in
from vae_cli.planning import Plan, config_dir, plan, refuse_line_breaks, register
from vae_cli.stopping import Interrupted, signals_interrupt
from vae_cli.version import __version__

log = logging.getLogger(__name__)


def main() -> NoReturn:
    """Entry point of `vae-train` and `python -m vae_cli`."""
    streams.guard()
    cpu.before_torch()
    signals_interrupt()
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt as stop:  # before any work began
        code = _say_interrupted(stop)
    sys.stdout.flush()
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    register()
    log_handlers = list(logging.getLogger().handlers)
    try:
        return sharing.run(argv, _answer, _job) if sharing.several() else _answer(argv, _job)
    except UserError as error:
        return complain(error)
    finally:  # Hydra leaves that of train.log behind
        for handler in set(logging.getLogger().handlers) - set(log_handlers):
            logging.getLogger().removeHandler(handler)
            handler.close()


def _answer(argv: Sequence[str], train: Train, processes: int = 1) -> int:
    """The same. train: does a run; processes: how many share it."""
    if "--version" in argv:  # Hydra's parser would answer with its own
        print(versions())
        return 0
    try:
        refuse_line_breaks(argv)
        args = _parser().parse_args(list(argv))
        if args.help:
            print(help_text(config_dir()))
            return 0
        if args.hydra_help or args.shell_completion or args.info:
            return _hydra(list(argv), lambda cfg: None)
        if args.multirun and processes > 1:
            raise UserError(
                f"-m: a sweep's runs are not shared, and here are {processes} processes to share"
                " one: leave out -m, or torchrun"
            )
        if args.multirun and not args.cfg:
            return sweeping.run(sweep_planning.plan(args), _job)
        if args.multirun:
            raise UserError("--cfg shows one job's settings: leave out --multirun")
        planned = plan(args)
        sharing.refuse(planned.config, processes)
    except UserError as error:
        return complain(error)
    arguments = [*planned.arguments, *(text for text in argv if text != "resume=auto")]
    if args.cfg:
        return _hydra(arguments, lambda cfg: None)
    return _start(planned, arguments, train)


# -------------------------------------------------------------------------------------- run a job


def _start(planned: Plan, arguments: list[str], train: Train) -> int:
    """Run the planned job through Hydra, which makes its folder."""
    codes: list[int] = []

    def job(cfg: DictConfig) -> None:
        config = planned.config if planned.resumed else typed(cfg)
        folder = Path(HydraConfig.get().runtime.output_dir)
        codes.append(train_in(folder, config, train, goes_on=planned.auto))

    if planned.note:
        print(f"vae-train: {planned.note}", file=sys.stderr)
    if planned.config.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            return _hydra([*arguments, f"hydra.run.dir={folder}"], job) or max(codes, default=0)
    return _hydra(arguments, job) or max(codes, default=0)


def _job(config: Config, folder: Path, keep: bool, swept: Sequence[str] = ()) -> int:
    """One training run. Returns its exit code; says in one line what went wrong.

    keep: leave the folder of a run that could not begin.
    """
    logging.captureWarnings(True)
    _say_once_where_the_log_fails()
    from vae_cli import dryrun, training  # imports torch

    try:
        if config.dry_run:
            dryrun.dry_run(config)
        else:
            training.train(config, folder, swept)
        return 0
    except UserError as error:
        log.error("%s", error)
        if not keep:
            _remove_unused(folder)
        return complain(error)
    except KeyboardInterrupt as stop:
        if not keep:
            _remove_unused(folder)
        return _say_interrupted(stop)
    except RunFailed as error:
        log.error("%s", error)
        print(f"vae-train: {error}\n           the run's folder is {folder}", file=sys.stderr)
        return FAILED
    except Exception as error:
        log.exception("the run failed")
        print(
            f"vae-train: the run failed: {type(error).__name__}: {one_line(error)[:300]}\n"
            f"           what was finished and the full traceback (train.log) are in {folder}",
            file=sys.stderr,
        )
        return FAILED


def _say_once_where_the_log_fails() -> None:
    """A full disk costs lines of train.log; logging would print a traceback for each."""
    said = False

    def failed(record: logging.LogRecord) -> None:
        nonlocal said
        if not said:
            reason = one_line(sys.exc_info()[1])
            console.say(f"warning: train.log cannot be written: {reason}; training goes on")
        said = True

    for handler in logging.getLogger().handlers:
        handler.handleError = failed  # type: ignore[method-assign]


def _say_interrupted(stop: KeyboardInterrupt) -> int:
    print(f"vae-train: {str(stop) or 'interrupted before training began'}", file=sys.stderr)
    return TERMINATED if isinstance(stop, Interrupted) and stop.by_signal else INTERRUPTED


def _remove_unused(folder: Path) -> None:
    """Remove a run folder in which no run began."""
    logging.shutdown()
    if {item.name for item in folder.iterdir()} <= {".hydra", "train.log", locking.NAME}:
        shutil.rmtree(folder)
        for parent in list(folder.parents)[:2]:  # the date's folder, if this run made it
            if parent.name == "outputs" or any(parent.iterdir()):
                break
            parent.rmdir()


def _hydra(argv: list[str], job: Callable[[DictConfig], None]) -> int:
    """Let Hydra run the job(s) with these arguments."""
    wrapped = hydra.main(str(config_dir()), "config", version_base="1.3")(job)
    before, sys.argv = sys.argv, [sys.argv[0], *argv]
    # otherwise Hydra answers an error of its own with a traceback
    full_error, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"
    try:
        wrapped()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    except OSError as error:
        return complain(UserError(_no_folder(error)))
    except (HydraException, OmegaConfBaseException, LookupError, ValueError) as error:
        if isinstance(error.__cause__, OSError):  # logging's, for train.log
            return complain(UserError(_no_folder(error.__cause__)))
        return complain(UserError(one_line(error)))
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return 0


def _no_folder(error: OSError) -> str:
    return (
        f"the run's folder cannot be written: {error.strerror}: {error.filename};"
        " choose another with hydra.run.dir=DIR (a sweep's with hydra.sweep.dir=DIR)"
    )


# ------------------------------------------------------------------------------------- small parts


def _parser() -> ArgumentParser:
    def complain(message: str) -> NoReturn:
        raise UserError(f"{message}; vae-train --help shows how it is used")

    parser: ArgumentParser = get_args_parser()
    parser.error = complain  # type: ignore[method-assign]
    return parser


def complain(error: UserError, command: str = "vae-train") -> int:
    """Say what is wrong in one line and return the exit code."""
    # what was typed may hold anything, also what would move the cursor
    text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(error))
    print(f"{command}: {text}", file=sys.stderr)
    return USAGE_ERROR


def versions(command: str = "vae-train") -> str:
    """Ours and, from the installed packages' metadata, those of what the numbers depend on."""
    parts = [f"{command} {__version__}"]
    for package in ("torch", "hydra-core"):
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{package} not installed")
    return ", ".join(parts)
