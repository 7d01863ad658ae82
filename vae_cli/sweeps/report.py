"""A comparison of runs on a terminal, as CSV, JSON, Markdown, and one HTML page. No torch."""

import base64
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from os.path import commonpath
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from jinja2 import Environment, FileSystemLoader
from pandas import DataFrame

from vae_cli.console import UserError, one_line
from vae_cli.runs.files import as_json, write_text
from vae_cli.runs.saved import SavedRun, read_metrics, read_summary
from vae_cli.sweeps.plan import JOBS
from vae_cli.sweeps.table import ACTIVE, TEST_METRICS, Comparison, compare, rows_of
from vae_cli.sweeps.varied import SEED, text


def answer(sweep: Comparison) -> str:
    """How many runs have completed, and the best group, in one line."""
    line = f"{sweep.groups['completed'].sum()} of {len(sweep.runs)} runs completed"
    mean, std = sweep.means[sweep.metric][0], sweep.stds[sweep.metric][0]
    spread = f" ± {std:.2g}" if std > 0 else ""
    label = sweep.label(rows_of(sweep.groups)[0], sweep.swept)
    best = f"; best {sweep.metric} {mean:.6g}{spread}{f' with {label}' if label else ''}"
    return (f"{sweep.title}: " if sweep.title else "") + line + best * sweep.has_best


def group_table(sweep: Comparison) -> DataFrame:
    """The groups as texts, best first: what varied, runs, mean ± standard deviation, front."""
    groups = rows_of(sweep.groups)
    swept = {name: [text(g[k]) for g in groups] for k, name in sweep.swept.items()}
    table = DataFrame({name: aligned(texts) for name, texts in swept.items()})
    runs = [(g["completed"], g["runs"]) for g in groups]
    table["runs"] = [f"{done}" if done == every else f"{done} of {every}" for done, every in runs]
    for metric in dict.fromkeys([sweep.metric, *TEST_METRICS, "seconds"]):
        if sweep.means[metric].notna().any():
            stds = [number(x, metric) for x in sweep.stds[metric]]
            width = max(map(len, stds))
            errors = [f" ± {x:>{width}}" if x else " " * (width + 3) * bool(width) for x in stds]
            means = [number(x, metric) for x in sweep.means[metric]]
            table[heading(metric)] = [*map(str.__add__, means, errors)]
    return table.assign(**{"": ["*" if g["front"] else "" for g in groups]})


def heading(metric: str) -> str:
    """The title of a metric's column, which no setting has: 'test active units'."""
    return metric.replace("/", " ").replace("_", " ")


def number(x: float, metric: str) -> str:
    """Write a number with fixed digits; nothing for NaN. What diverged would widen the table."""
    digits = 1 if metric in ("seconds", ACTIVE) else 3
    return "" if x != x else f"{x:.3g}" if abs(x) > 1e7 else f"{x:.{digits}f}"


def aligned(texts: Sequence[str]) -> list[str]:
    """Pad numbers on the right so that their decimal points stand below each other."""
    if not all(re.fullmatch(r"[-\d.]*", text) for text in texts):
        return [*texts]
    tails = [len(text) - (text + ".").index(".") for text in texts]
    return [text + " " * (max(tails) - tail) for text, tail in zip(texts, tails, strict=True)]


def unfinished(sweep: Comparison) -> list[str]:
    """A line for each run that has not completed: which, how far it came, and its error."""
    rows = zip(rows_of(sweep.runs), sweep.saved, strict=True)
    lines = [
        f"{sweep.label(row, [*sweep.swept, SEED])}  {row['status']}, "
        f"{len(read_metrics(run.folder))}/{run.settings['epochs']}: {row['error']}"
        for row, run in rows
        if row["status"] != "completed"
    ]
    return [line.rstrip(": ") for line in lines]


def commands(sweep: Comparison) -> dict[str, str]:
    """Command lines, by what they are for: the sweep again, the best again, TensorBoard."""
    lines: dict[str, Sequence[str]] = {}
    if len(sweep.folders) == 1 and (typed := read_summary(sweep.folders[0], JOBS).get("command")):
        lines["the sweep again"] = typed
    for part in sweep.parts:
        if part.has_best:
            best = next(i for i, run in enumerate(part.saved) if run.status == "completed")
            lines["the best again" + f" ({part.title})" * bool(part.title)] = again(part)[best]
    # a run of a version without this setting has logged there too
    if any("tensorboard" in run.settings.get("logger", "tensorboard") for run in sweep.saved):
        folder = commonpath([folder.resolve() for folder in sweep.folders])
        lines["all runs in TensorBoard"] = ["tensorboard", "--logdir", folder]
    completed = [run for run in sweep.saved if run.status == "completed"]
    if completed and all(run.settings["figures"] == "auto" for run in sweep.saved):
        run = [*_plugins(completed[0]), f"run={completed[0].folder.resolve()}"]
        lines["pictures of a run"] = ["vae-eval", *run, "task=figures"]
    return {what: shlex.join(words) for what, words in lines.items()}


def again(sweep: Comparison) -> list[list[str]]:
    """The command line of each run, with the switches of its sweep, and its plug-ins."""
    lines = []
    for run, texts, _ in sweep.found:
        switches = map(str, read_summary(run.folder.parent, JOBS).get("switches", ()))
        lines.append(["vae-train", *switches, *_plugins(run), *texts])
    return lines


def _plugins(run: SavedRun) -> list[str]:
    names = ",".join(map(str, run.settings.get("plugins") or ()))
    return [f"plugins=[{names}]"] * bool(names)


def _tabulated(table: DataFrame, form: str) -> str:
    how: Any = {"stralign": "right", "disable_numparse": True, "preserve_whitespace": True}
    return str(table.to_markdown(index=False, tablefmt=form, **how))


def alike(sweep: Comparison) -> str:
    """What all runs have in common: 'all runs: dataset=digits, epochs=3'."""
    return "all runs: " + ", ".join(f"{name}={value}" for name, value in sweep.fixed.items())


def terminal(sweep: Comparison) -> str:
    """The table of groups, best first; runs that have not completed; folders that were skipped."""
    # a narrow terminal leaves out the last columns; a pipe has room for all
    room = get_terminal_size().columns if sys.stdout.isatty() else math.inf
    parts, hidden = [alike(sweep)], list[str]()
    for part in sweep.parts:
        table = group_table(part).rename(columns=lambda name: name.replace(" ", "\n"))
        shown = _tabulated(table, "simple")
        while len(table.columns) > 4 and max(map(len, shown.splitlines())) > room:
            table = table.drop(columns=table.columns[-2])
            shown = _tabulated(table, "simple")
            hidden = ["a wider terminal shows more columns; sweep.csv has all"]
        parts += [answer(part), shown]
    parts.append("\n".join([*sweep.notes(), *hidden]))
    for title, lines in {"not completed": unfinished(sweep), "skipped": sweep.skipped}.items():
        parts += ["\n  ".join([f"{len(lines)} {title}:", *lines])] * bool(lines)
    return "\n\n".join(filter(None, parts))


def csv_text(sweep: Comparison) -> str:
    """A row a run, with all digits; what a run does not have is empty."""
    return sweep.runs.drop(columns="group").to_csv(index=False, lineterminator="\n")


def json_text(sweep: Comparison) -> str:
    """Groups and runs, best first, the latter with all settings. Strict JSON: NaN is null."""
    groups = []
    for i, row in enumerate(rows_of(sweep.groups)):
        metrics = {k: {"mean": sweep.means[k][i], "std": sweep.stds[k][i]} for k in sweep.means}
        settings = {"settings": {key: row[key] for key in sweep.swept}, "metrics": metrics}
        about = {"kind": row["kind"], "n": row["completed"], "pareto_front": row["front"]}
        groups.append(settings | about)
    runs = zip(rows_of(sweep.runs), sweep.found, strict=True)
    content = {
        "command": commands(sweep).get("the sweep again"),
        "metric": sweep.metric,
        "fixed": sweep.fixed,
        "swept": list(sweep.swept),
        "groups": groups,  # of a run `group` is the place in this list
        "runs": [row | {"overrides": x, "settings": s.settings} for row, (s, x, _) in runs],
        "notes": [*sweep.notes(), *sweep.skipped],
    }
    plain = json.dumps(content, default=lambda x: x.item() if hasattr(x, "item") else str(x))
    return as_json(json.loads(plain), indent=2)


def page(sweep: Comparison, name: str, pictures: Sequence[tuple[str, Path]] = ()) -> str:
    """report.md or report.html, by its template. pictures: a title and a PNG in figures/ each."""
    is_html = name.endswith("html")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=is_html)
    tables = [group_table(part) for part in sweep.parts]
    escaped = [t.map(lambda cell: re.sub(r"([*|_\[\]])", r"\\\1", cell)) for t in tables]
    texts = [_tabulated(table, "pipe") for table in escaped]
    return environment.get_template(f"{name}.j2").render(
        sweep=sweep,
        alike=alike(sweep),
        parts=list(zip(sweep.parts, map(answer, sweep.parts), tables, texts, strict=True)),
        unfinished=unfinished(sweep),
        pictures=pictures,
        base64=lambda path: base64.b64encode(path.read_bytes()).decode(),
        runs=list(zip(rows_of(sweep.runs), again(sweep), strict=True)),
        text=text,
        number=number,
        heading=heading,
        join=shlex.join,
        commands=commands(sweep),
    )


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "table": lambda sweep: terminal(sweep) + "\n",
    "csv": csv_text,
    "json": json_text,
    "markdown": lambda sweep: page(sweep, "report.md") + "\n",
}


def write_report(
    sweep: Comparison, out: Path, figures: bool = True
) -> tuple[list[Path], list[str]]:
    """Write the report's files, and return them and lines about failed pictures, or UserError."""
    pictures: list[tuple[str, Path]] = []
    failed: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "sweep.csv", csv_text(sweep))  # numbers first: pictures take longer
        write_text(out / "sweep.json", json_text(sweep))
        if figures:
            from vae_cli.sweeps.figures import draw_all  # imports torch and matplotlib

            pictures, failed = draw_all(sweep, out / "figures")
        for name in ("report.md", "report.html"):
            write_text(out / name, page(sweep, name, pictures) + "\n")
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror}") from error
    names = ["sweep.csv", "sweep.json", "report.md", "report.html", *["figures"] * bool(pictures)]
    return [out / name for name in names], failed


def sweep_report(folder: Path, figures: bool = True) -> str:
    """Write the report of a sweep into its folder, and return what to print, also if it fails."""
    try:
        sweep = compare([folder])
        failed = [f"warning: {line}" for line in write_report(sweep, folder, figures)[1]]
    except Exception as error:  # of whatever kind: the runs are what counts
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return f"warning: no report of the sweep: {kind}{one_line(error)[:300]}"
    lines = [f"{k}: {line}" for k, line in commands(sweep).items() if "again" not in k]
    last = [f"  {line}" for line in (folder / "report.html", *lines)]
    return "\n\n".join([terminal(sweep), *failed, "\n".join(last)])
