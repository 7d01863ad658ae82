"""The command `vae-report`: any folders of runs to one answer. See `report/`.

Imports neither torch nor Hydra, and matplotlib only when pictures are drawn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from vae_cli.errors import UserError
from vae_cli.help import section
from vae_cli.report.data import csv_text, json_text
from vae_cli.report.runs import looks_like_a_run
from vae_cli.report.sweep import Sweep, read_sweep
from vae_cli.report.table import markdown, terminal
from vae_cli.report.text import printable
from vae_cli.report.writing import terminal_width, write_files
from vae_cli.version import __version__

COMMAND = "vae-report"
USAGE_ERROR, INTERRUPTED = 2, 130

FORMATS: dict[str, Callable[[Sweep], str]] = {
    "table": lambda sweep: terminal(sweep, terminal_width()) + "\n",
    "csv": csv_text,
    "json": json_text,
    "markdown": markdown,
}

OPTIONS = (
    ("DIR …", "folders that hold runs, at any depth: a sweep's folder, outputs, single runs"),
    ("--out DIR", "where the files go; without it, into the first DIR"),
    ("--format FORMAT", f"{' | '.join(FORMATS)}: print this and write nothing"),
    ("--metric NAME", "what decides the best, such as elbo, kl or val/loss; the runs' `monitor`"),
    ("--no-figures", "no pictures: faster, and no model is loaded"),
    ("--version", "the version of vae-report"),
)
FILES = (
    ("sweep.csv", "a row a run: what varied, the seed, metrics, seconds, status, error, folder"),
    ("sweep.json", "runs and groups over seeds, best first, for other programs"),
    ("report.md", "the tables and pictures as Markdown"),
    ("report.html", "all of it in one page that needs no other file"),
    ("figures/", "rate-distortion, metrics and active units over what varied, samples"),
)
EXAMPLES = (
    ("vae-report outputs/sweeps/DATE/TIME", "a sweep, also one that still runs or was stopped"),
    ("vae-report outputs --out /tmp/all", "everything that was ever trained here"),
    ("vae-report A B --metric kl", "two folders as one, the lowest KL first"),
    ("vae-report DIR --format csv > all.csv", "only the numbers"),
)


def main() -> NoReturn:
    """Entry point of `vae-report`."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    try:
        args = _parser().parse_args(argv)
        if args.help:
            print(help_text())
            return 0
        if args.version:
            print(f"{COMMAND} {__version__}")
            return 0
        return _report(args)
    except UserError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{COMMAND}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _report(args: argparse.Namespace) -> int:
    if not args.folders:
        raise UserError(f"give the folder of a sweep or of runs; {COMMAND} --help shows how")
    if args.format is not None and (args.out is not None or args.no_figures):
        raise UserError(
            f"--format {args.format} prints and writes nothing: leave out --out and --no-figures"
        )
    folders = [Path(folder).expanduser() for folder in args.folders]
    sweep = read_sweep(folders, args.metric)
    if args.format is not None:
        sys.stdout.write(FORMATS[args.format](sweep))
        return 0
    out = Path(args.out).expanduser() if args.out is not None else _beside(folders[0])
    print(terminal(sweep, terminal_width()), flush=True)
    files, failed = write_files(sweep, out, figures=not args.no_figures)
    for line in failed:
        print(f"{COMMAND}: warning: {line}", file=sys.stderr)
    print("\n" + "\n".join(f"  {printable(path)}" for path in files))
    return 0


def _beside(folder: Path) -> Path:
    """Where the files of a report on this folder go: a run's own files are not mixed with them."""
    return folder / "report" if looks_like_a_run(folder) else folder


def help_text() -> str:
    """What `vae-report --help` says."""
    parts = [
        f"vae-report {__version__}: one answer from a sweep, or from any folders of runs.",
        f"usage: {COMMAND} DIR … [--out DIR] [--metric NAME] [--no-figures]\n"
        f"       {COMMAND} DIR … --format {'|'.join(FORMATS)}",
        section("Arguments", list(OPTIONS)),
        section("Files", list(FILES)),
        section("Examples", list(EXAMPLES)),
        "Runs that differ in the seed alone are one line: mean ± sample standard deviation. Runs\n"
        "that failed, were interrupted or still run stand below the table.",
    ]
    return "\n\n".join(parts)


def _parser() -> argparse.ArgumentParser:
    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; {COMMAND} --help shows how it is used")

    parser = argparse.ArgumentParser(COMMAND, add_help=False, allow_abbrev=False)
    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--format", choices=list(FORMATS))
    parser.add_argument("--metric")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("folders", nargs="*", metavar="DIR")
    return parser


if __name__ == "__main__":
    main()
