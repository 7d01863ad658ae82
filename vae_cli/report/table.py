"""The answer as aligned text for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from vae_cli.hparams import comparable
from vae_cli.report import text
from vae_cli.report.commands import sweep_command, tensorboard_command
from vae_cli.report.runs import RunRecord
from vae_cli.report.sweep import REPLICATE, TEST_METRICS, Group, Stat, Sweep

NARROWEST = 60  # columns of a terminal that a table can be made for
# what is left out first where a table is too wide
LEAST_WANTED = ("seconds", "test/active_units", "test/kl", "test/reconstruction")
SETTING_LEAST = 5  # columns of a setting; numbers are never cut
ROUNDED = ("seconds", "test/active_units")
FRONT = "on the Pareto front of KL and reconstruction"
PLUS_MINUS = "mean ± sample standard deviation over seeds"
GROUPS_SHOWN, RUNS_SHOWN, SKIPPED_SHOWN = 42, 20, 5  # lines; files have them all


def terminal(sweep: Sweep, width: int) -> str:
    """The table of groups, best first; runs that are not completed; what was skipped."""
    width = max(width, NARROWEST)
    metrics = shown_metrics(sweep)
    rows = table_rows(sweep, metrics)
    for name in LEAST_WANTED:
        if (
            _least_width(rows, len(sweep.swept)) > width
            and name in metrics
            and name != sweep.metric
        ):
            metrics.remove(name)
            rows = table_rows(sweep, metrics)
    lines = textwrap.wrap(answer(sweep), width)
    if metrics:
        lines += ["", *_few(_aligned(rows, width, len(sweep.swept)), GROUPS_SHOWN)]
    if notes := legend(sweep):
        lines += ["", *notes]
    if sweep.unfinished:
        told = [_told(_unfinished(run, sweep), width) for run in sweep.unfinished]
        lines += ["", f"{len(told)} not completed:", *_few(told, RUNS_SHOWN)]
    if sweep.skipped:
        told = [_told(f"{item.name}: {item.reason}", width) for item in sweep.skipped]
        lines += ["", f"{len(told)} skipped:", *_few(told, SKIPPED_SHOWN)]
    return "\n".join(lines)


def answer(sweep: Sweep) -> str:
    """One line: how many runs, and the best."""
    done = len(sweep.runs) - len(sweep.unfinished)
    counted = f"{done} of {len(sweep.runs)} runs completed"
    best = sweep.best
    if best is None:
        return counted
    stat = best.stats[sweep.metric]
    how = f" ± {stat.std:.2g}" if stat.std else ""
    which = label(best, sweep)
    return f"{counted}; best {sweep.metric} {stat.mean:.6g}{how} with {which}"


def label(group: Group, sweep: Sweep) -> str:
    """A group in words: 'beta=0.5, latent_dim=8'; 'all settings alike' where nothing varied."""
    names = text.short_names(sweep.swept)
    parts = [f"{names[key]}={text.setting(item)}" for key, item in group.settings.items()]
    return ", ".join(parts) or "all settings alike"


def legend(sweep: Sweep) -> list[str]:
    """What the signs in the table mean, and what a reader must know."""
    several = any(len(group.completed) > 1 for group in sweep.groups)
    front = any(group.on_front for group in sweep.groups)
    notes = [PLUS_MINUS] if several else []
    return [*notes, *([f"* {FRONT}"] if front else []), *sweep.notes]


def shown_metrics(sweep: Sweep) -> list[str]:
    """The columns: test metrics (or of unfinished runs alone none), the deciding one first."""
    there = {name for group in sweep.groups for name in group.stats}
    chosen = [sweep.metric, *TEST_METRICS, "seconds"]
    return [name for name in dict.fromkeys(chosen) if name in there]


def metric_names(metrics: Sequence[str]) -> dict[str, str]:
    """test/elbo -> elbo, test/active_units -> active units, val/elbo as it is."""
    return {name: name.removeprefix("test/").replace("_", " ") for name in metrics}


def cells(stats: Sequence[Stat | None], rounded: bool = False) -> list[str]:
    """A column: mean ± standard deviation with decimals that fit all (rounded: one); nothing for
    None."""
    there = [stat for stat in stats if stat is not None]
    spread = [] if rounded else [s.std for s in there if s.std is not None]
    digits = 1 if rounded else text.decimals([s.mean for s in there], spread)
    return ["" if stat is None else _cell(stat, digits) for stat in stats]


def counted(group: Group) -> str:
    """How many runs the means are over: '3', or '2 of 3'."""
    done, all_runs = len(group.completed), len(group.runs)
    return str(done) if done == all_runs else f"{done} of {all_runs}"


def _cell(stat: Stat, digits: int) -> str:
    mean = text.number(stat.mean, digits)
    return mean if stat.std is None else f"{mean} ± {text.number(stat.std, digits)}"


def table_rows(sweep: Sweep, metrics: Sequence[str]) -> list[list[str]]:
    """A header and a row a group, as text."""
    names, shown = text.short_names(sweep.swept), metric_names(metrics)
    header = [*(names[key] for key in sweep.swept), "runs", *(shown[m] for m in metrics), ""]
    columns = [cells([g.stats.get(m) for g in sweep.groups], m in ROUNDED) for m in metrics]
    rows = []
    for i, group in enumerate(sweep.groups):
        settings = [
            text.setting(group.settings[key]) if key in group.settings else ""
            for key in sweep.swept
        ]
        numbers = [column[i] for column in columns]
        if numbers and not group.completed:
            numbers[0] = ", ".join(dict.fromkeys(run.status for run in group.runs))
        rows.append([*settings, counted(group), *numbers, "*" if group.on_front else ""])
    return [header, *rows]


def _least_width(rows: Sequence[Sequence[str]], settings: int) -> int:
    """Columns of a terminal that the table needs when its settings are cut as far as can be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[:settings] = [min(width, SETTING_LEAST) for width in widths[:settings]]
    return sum(widths) + 2 * len(widths)


def _aligned(rows: Sequence[Sequence[str]], width: int, settings: int) -> list[str]:
    """Two spaces between columns, a rule under the header; the widest settings give way."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    while sum(widths) + 2 * len(widths) > width and max(widths[:settings], default=0) > (
        SETTING_LEAST
    ):
        widths[widths.index(max(widths[:settings]))] -= 1
    numeric = [_is_number(next(filter(None, column[1:]), "")) for column in columns]
    lines = []
    for row in rows:
        parts = [text.shortened(cell, w) for cell, w in zip(row, widths, strict=True)]
        placed = [
            part.rjust(w) if right else part.ljust(w)
            for part, w, right in zip(parts, widths, numeric, strict=True)
        ]
        lines.append("  " + "  ".join(placed))
    rule = "  " + "  ".join("-" * w for w in widths)
    return [line.rstrip()[:width] for line in (lines[0], rule, *lines[1:])]


def _is_number(cell: str) -> bool:
    return cell.removeprefix("-")[:1].isdigit()


def _few(lines: list[str], most: int) -> list[str]:
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], f"  and {more} more, see sweep.csv"]


def _told(line: str, width: int) -> str:
    """A line on at most three of the terminal, indented."""
    lines = textwrap.wrap(line, width - 2, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2] + " …"])


def _unfinished(run: RunRecord, sweep: Sweep) -> str:
    error = f": {run.error}" if run.error else ""
    return f"{run_label(run, sweep)}  {run.how_far}{error}"


def run_label(run: RunRecord, sweep: Sweep) -> str:
    """A run in words: 'beta=0.5, seed=1', or its folder where nothing varied."""
    names = text.short_names(sweep.swept)
    settings = sweep.settings_of(run)
    parts = [f"{names[key]}={text.setting(item)}" for key, item in settings.items()]
    if len({comparable(other.settings.get(REPLICATE)) for other in sweep.runs}) > 1:
        parts.append(f"seed={text.setting(run.settings.get(REPLICATE))}")
    return ", ".join(parts) or run.name


# ---------------------------------------------------------------------------------------- Markdown


def markdown(sweep: Sweep, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The same for a README or an issue. pictures: (title, relative path)."""
    lines = ["# Sweep", "", escaped(answer(sweep))]
    if metrics := shown_metrics(sweep):
        lines += ["", *_table(table_rows(sweep, metrics))]
    if notes := legend(sweep):
        lines += ["", *(f"- {escaped(note)}" for note in notes)]
    if sweep.unfinished:
        rows = [["run", "status", "error", "folder"]]
        rows += [[run_label(r, sweep), r.how_far, r.error, r.name] for r in sweep.unfinished]
        lines += ["", "## Not completed", "", *_table(rows)]
    if sweep.skipped:
        rows = [["folder", "skipped because"], *([s.name, s.reason] for s in sweep.skipped)]
        lines += ["", "## Skipped", "", *_table(rows)]
    if pictures:
        lines += ["", "## Pictures"]
        for title, path in pictures:
            lines += ["", f"![{escaped(title)}]({path})"]
    command = sweep_command(sweep)
    lines += ["", "## Commands", "", "```sh", *([command] if command else [])]
    return "\n".join([*lines, tensorboard_command(sweep), "```", ""])


def escaped(cell: str) -> str:
    """A text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~&!" else c for c in cell)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    return [lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]]
