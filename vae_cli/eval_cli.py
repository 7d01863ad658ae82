"""The command `vae-eval`: what to do with a trained run. One task a call, see `tasks/`.

Settings are composed and checked by Hydra's compose interface, so no run folder is made. This
module imports no torch before the settings are right.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

from vae_cli import console, streams
from vae_cli.cli import complain, versions
from vae_cli.errors import RunFailed, UserError
from vae_cli.eval_help import help_text
from vae_cli.eval_planning import Plan, plan, settings
from vae_cli.jobs import FAILED, INTERRUPTED
from vae_cli.planning import config_dir, refuse_line_breaks

COMMAND = "vae-eval"


def main() -> NoReturn:
    """Entry point of `vae-eval`."""
    streams.guard()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    try:
        refuse_line_breaks(argv)
        args = _parser().parse_args(argv)
        if args.help:
            print(help_text(config_dir()))
            return 0
        if args.version:
            print(versions(COMMAND))
            return 0
        if args.cfg:
            print(OmegaConf.to_yaml(_as_typed(args.overrides)), end="")
            return 0
        planned = plan(args.overrides)
        return _do(planned)
    except UserError as error:
        return complain(error, COMMAND)
    except RunFailed as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{COMMAND}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _do(planned: Plan) -> int:
    """Load the run, do the task, say what came of it."""
    logging.captureWarnings(True)
    from vae_cli.trained import load_run  # imports torch

    task = planned.task
    trained = load_run(planned.folder, task.device)
    if task.data_dir is not None:
        trained.config = dataclasses.replace(trained.config, data_dir=task.data_dir)
    console.say(f"task={task.task} of {trained!r} on {trained.device}")
    module, _, name = task.does.partition(":")
    function = getattr(importlib.import_module(module), name)
    _make(planned.out)
    try:
        report: Any = function(task, trained, planned.out)
    finally:
        _remove_if_empty(planned.out)
    if report.rows:
        print(console.table(report.rows), end="\n\n")
    for note in report.notes:
        print(f"  note: {note}")
    for path in report.files:
        print(f"  {path}")
    return 0


def _make(out: Path) -> None:
    """Make the folder of the results now: not after an hour of work is it found unwritable."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror}") from error


def _remove_if_empty(out: Path) -> None:
    if not any(out.iterdir()):
        out.rmdir()


def _as_typed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that a command line gives, by the names they are typed with."""
    plain = OmegaConf.to_container(OmegaConf.structured(settings(overrides)), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key).rstrip("_"): item for key, item in plain.items()}


def _parser() -> argparse.ArgumentParser:
    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; vae-eval --help shows how it is used")

    parser = argparse.ArgumentParser(COMMAND, add_help=False, allow_abbrev=False)
    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("overrides", nargs="*")
    return parser


if __name__ == "__main__":
    main()
