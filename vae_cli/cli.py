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

from vae_cli import console, cpu, streams
from vae_cli.checking import typed
from vae_cli.config import Config
from vae_cli.errors import RunFailed, UserError
from vae_cli.help import help_text
from vae_cli.hparams import given_keys, settings, varied
from vae_cli.planning import Plan, config_dir, one_line, plan, refuse_line_breaks, register
from vae_cli.report.text import setting, short_names
from vae_cli.report.writing import job_line, write_report
from vae_cli.stopping import Interrupted
from vae_cli.version import __version__

log = logging.getLogger(__name__)

USAGE_ERROR, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143


def main() -> NoReturn:
    """Entry point of `vae-train` and `python -m vae_cli`."""
    streams.guard()
    cpu.before_torch()
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before any work began
        code = _say_interrupted()
    sys.stdout.flush()
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    register()
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
        planned = plan(args)
    except UserError as error:
        return complain(error)
    if args.cfg:
        if args.multirun:
            return complain(UserError("--cfg shows one job's settings: leave out --multirun"))
        return _hydra([*planned.arguments, *argv], lambda cfg: None)
    return _start(planned, list(argv))


# ------------------------------------------------------------------------------------ run the jobs


def _start(planned: Plan, argv: list[str]) -> int:
    """Run the planned jobs through Hydra. A sweep goes on after a failed job."""
    codes: list[int] = []
    report = planned.multirun and not planned.configs[0].dry_run
    sweep_folders: list[Path] = []
    swept = varied([settings(c) for c in planned.configs], given_keys(argv)) if report else []

    names = short_names(swept)

    def job(cfg: DictConfig) -> None:
        config = planned.configs[0] if planned.resumed else typed(cfg)
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        # a job of a sweep that could not begin keeps its folder: it stands in the table
        keep = report or planned.resumed is not None
        codes.append(_job(config, folder, keep, swept))
        if report:
            sweep_folders[:] = [Path(hydra_config.sweep.dir)]
            mine = settings(config)
            shown = ",".join(f"{name}={setting(mine[key])}" for key, name in names.items())
            total = len(planned.configs)
            print(job_line(hydra_config.job.num + 1, total, shown, folder), flush=True)
        if codes[-1] in (INTERRUPTED, TERMINATED):
            sys.exit(codes[-1])  # ends a sweep as well

    if planned.configs[0].dry_run:
        with tempfile.TemporaryDirectory() as folder:
            places = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
            code = _hydra([*planned.arguments, *argv, *places], job)
    else:
        code = _hydra([*planned.arguments, *argv], job)
    for sweep_folder in sweep_folders:
        stopped = code in (INTERRUPTED, TERMINATED)  # someone waits: numbers, no pictures
        print(write_report(sweep_folder, len(planned.configs), not stopped), flush=True)
    if code:
        return code
    return (FAILED if any(codes) else 0) if planned.multirun else max(codes, default=0)


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
    except Interrupted as stop:
        print(f"vae-train: {stop}", file=sys.stderr)
        return TERMINATED if stop.by_signal else INTERRUPTED
    except KeyboardInterrupt:  # while the data was loaded
        if not keep:
            _remove_unused(folder)
        return _say_interrupted()
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


def _say_interrupted() -> int:
    print("vae-train: interrupted before training began", file=sys.stderr)
    return INTERRUPTED


def _remove_unused(folder: Path) -> None:
    """Remove a run folder in which no run began."""
    logging.shutdown()
    if {item.name for item in folder.iterdir()} <= {".hydra", "train.log"}:
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
