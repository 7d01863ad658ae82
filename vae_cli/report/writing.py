"""All of the report into a folder, and the few lines that `vae-train -m` says on the way."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from vae_cli.errors import UserError
from vae_cli.files import write_text
from vae_cli.report import text
from vae_cli.report.commands import tensorboard_command
from vae_cli.report.data import csv_text, json_text
from vae_cli.report.page import html_page
from vae_cli.report.reading import Unreadable
from vae_cli.report.runs import RunRecord, read_run
from vae_cli.report.sweep import Sweep, read_sweep
from vae_cli.report.table import markdown, metric_names, terminal

FIGURES = "figures"
JOB_METRICS = ("test/elbo", "test/reconstruction", "test/kl")


def write_files(sweep: Sweep, out: Path, figures: bool = True) -> tuple[list[Path], list[str]]:
    """sweep.csv, sweep.json, report.md, report.html and figures/ into a folder.

    The numbers come first: pictures take longer and can fail. Returns the files and what failed.
    Raises UserError where the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "sweep.csv", csv_text(sweep))
        write_text(out / "sweep.json", json_text(sweep))
        drawn, failed = _draw(sweep, out / FIGURES) if figures else ([], [])
        links = [(title, f"{FIGURES}/{path.name}") for title, path in drawn]
        write_text(out / "report.md", markdown(sweep, links))
        images = [(title, path.read_bytes()) for title, path in drawn]
        write_text(out / "report.html", html_page(sweep, images))
    except OSError as error:
        where = text.printable(out)
        raise UserError(f"--out {where}: cannot be written: {error.strerror}") from error
    names = ("sweep.csv", "sweep.json", "report.md", "report.html")
    return [*(out / name for name in names), *([out / FIGURES] if drawn else [])], failed


def write_report(folder: Path, jobs: int = 0, figures: bool = True) -> str:
    """The report of a sweep that has just ended, into its folder. Returns what to print.

    jobs: that the sweep was to have; those without a folder are counted.

    Never fails: a report that cannot be made is said in a line, for the runs are what counts.
    """
    lines: list[str] = []
    try:
        sweep = read_sweep([folder])
        lines += ["", terminal(sweep, terminal_width())]
        if len(sweep.runs) < jobs:
            lines.append(f"{jobs - len(sweep.runs)} of {jobs} jobs have not begun")
        _, failed = write_files(sweep, folder, figures)
        lines += [f"warning: {line}" for line in failed]
        places = [text.printable(folder / "report.html"), tensorboard_command(sweep)]
        lines += ["", *(f"  {place}" for place in places)]
    except (Exception, KeyboardInterrupt) as error:
        reason = f"{type(error).__name__}: {text.printable(error)[:200]}".rstrip(": ")
        lines.append(f"warning: the sweep's report is not whole ({reason}); try vae-report DIR")
    return "\n".join(lines)


def job_line(number: int, jobs: int, settings: str, folder: Path) -> str:
    """A finished job in a line. number: from 1, of `jobs` (0: not known); settings: its swept
    ones, 'beta=2,seed=0'."""
    start = f"job {number}{f'/{jobs}' if jobs else ''} {settings}".rstrip()
    try:
        run = read_run(folder)
    except (Unreadable, OSError):
        return f"{start}: left nothing that can be read; see {text.printable(folder)}"
    return f"{start}: {_outcome(run)}"


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def _outcome(run: RunRecord) -> str:
    if not run.completed:
        return f"{run.how_far}: {run.error}" if run.error else run.how_far
    there = [name for name in JOB_METRICS if name in run.metrics]
    shown = metric_names(there)
    numbers = [f"{shown[name]} {run.metrics[name]:.3f}" for name in there]
    if there:
        numbers[0] = f"test {numbers[0]}"
    return ", ".join([*numbers, text.seconds(run.seconds)])


def _draw(sweep: Sweep, folder: Path) -> tuple[Sequence[tuple[str, Path]], list[str]]:
    from vae_cli.report import pictures  # imports torch and matplotlib

    try:
        return pictures.draw(sweep, folder)
    except Exception as error:  # whatever it is: the numbers are worth having
        return [], [f"no picture could be drawn: {text.printable(error)[:200]}"]
