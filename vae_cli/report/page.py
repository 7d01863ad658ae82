"""The answer as one HTML page: pictures inside it, nothing fetched from anywhere.

Every text from a run folder goes through `escape`; a content security policy forbids the page to
load or send anything.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from vae_cli.hparams import comparable
from vae_cli.report import text
from vae_cli.report.commands import run_command, sweep_command, tensorboard_command
from vae_cli.report.runs import RunRecord
from vae_cli.report.sweep import REPLICATE, Sweep
from vae_cli.report.table import answer, label, legend, metric_names, shown_metrics, table_rows
from vae_cli.version import __version__

WIDE = 1.6  # width by height of a picture that takes a whole row
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html_page(sweep: Sweep, pictures: Sequence[tuple[str, bytes]]) -> str:
    """The page. pictures: (title, PNG)."""
    parts = [
        f"<h1>{escape(_title(sweep))}</h1>",
        f'<p class="answer">{escape(answer(sweep))}</p>',
        _groups(sweep),
        *(f'<p class="note">{escape(note)}</p>' for note in legend(sweep)),
        *_pictures(pictures),
        "<h2>Runs</h2>",
        _runs(sweep),
        *_skipped(sweep),
        *_commands(sweep),
        f"<footer>{escape(_origin(sweep))}</footer>",
    ]
    own = files("vae_cli.report")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(_title(sweep))}</title>",
            f"<style>{own.joinpath('page.css').read_text(encoding='utf-8')}</style>",
            "</head><body>",
            *parts,
            f"<script>{own.joinpath('page.js').read_text(encoding='utf-8')}</script>",
            "</body></html>",
            "",
        ]
    )


def _title(sweep: Sweep) -> str:
    names = text.short_names(sweep.swept)
    seeds = len({comparable(run.settings.get(REPLICATE)) for run in sweep.runs})
    over = [*names.values(), *(["seed"] if seeds > 1 else [])]
    return f"Sweep over {', '.join(over)}" if over else "Runs"


def _groups(sweep: Sweep) -> str:
    metrics = shown_metrics(sweep)
    if not metrics:
        return ""
    header, *rows = table_rows(sweep, metrics)
    body = []
    for group, row in zip(sweep.groups, rows, strict=True):
        marked = ' class="best"' if group is sweep.best else ""
        body.append(f"<tr{marked}>{_cells(row)}</tr>")
    return _table(header, body)


def _runs(sweep: Sweep) -> str:
    names, metrics = text.short_names(sweep.swept), shown_metrics(sweep)
    metrics = [name for name in metrics if name != "seconds"]
    shown = metric_names(metrics)
    header = [*names.values(), "seed", *shown.values(), "epochs", "seconds", "status", "folder"]
    body = [f"<tr>{_run_cells(run, sweep, metrics)}</tr>" for run in sweep.runs]
    return _table(header, body)


def _run_cells(run: RunRecord, sweep: Sweep, metrics: Sequence[str]) -> str:
    settings = [
        text.setting(run.settings[key]) if key in run.settings else ""
        for key in (*sweep.swept, REPLICATE)
    ]
    final = run.metrics if run.completed else {}
    numbers = [f"{final[name]:.6g}" if name in final else "" for name in metrics]
    seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
    error = f'<div class="error">{escape(run.error)}</div>' if run.error else ""
    status = f'<td><span class="status {run.status}">{run.status}</span>{error}</td>'
    command = run_command(run)
    folder = escape(run.name)
    if command:
        folder = f"<details><summary>{folder}</summary><code>{escape(command)}</code></details>"
    cells = _cells([*settings, *numbers, str(run.epochs), seconds])
    return f'{cells}{status}<td class="folder">{folder}</td>'


def _pictures(pictures: Sequence[tuple[str, bytes]]) -> Iterable[str]:
    if not pictures:
        return
    yield '<h2>Pictures</h2><div class="pictures">'
    for title, png in pictures:
        data = base64.b64encode(png).decode()
        named = escape(title)
        width, height = struct.unpack(">II", png[16:24])  # the PNG header
        shape = ' class="wide"' if width > WIDE * height else ""
        yield (
            f'<figure{shape}><img alt="{named}" src="data:image/png;base64,{data}">'
            f"<figcaption>{named}</figcaption></figure>"
        )
    yield "</div>"


def _skipped(sweep: Sweep) -> Iterable[str]:
    if sweep.skipped:
        rows = [f"<tr>{_cells([item.name, item.reason])}</tr>" for item in sweep.skipped]
        yield "<h2>Skipped</h2>" + _table(["folder", "because"], rows)


def _commands(sweep: Sweep) -> Iterable[str]:
    lines = []
    if command := sweep_command(sweep):
        lines.append(("the sweep again", command))
    if sweep.best and (command := run_command(sweep.best.completed[0])):
        lines.append((f"the best, {label(sweep.best, sweep)}, again", command))
    lines.append(("all runs in TensorBoard", tensorboard_command(sweep)))
    yield "<h2>Commands</h2>"
    for what, line in lines:
        yield f'<p class="note">{escape(what)}</p><pre>{escape(line)}</pre>'


def _origin(sweep: Sweep) -> str:
    """What the numbers come from: versions, device and commit, each once."""
    found: dict[str, None] = {}
    for run in sweep.runs:
        versions = run.about.get("versions")
        if isinstance(versions, dict):
            wanted = [f"{n} {versions[n]}" for n in ("vae-cli", "torch", "python") if n in versions]
            found |= dict.fromkeys(wanted)
        found |= dict.fromkeys(
            text.printable(run.about[key]) for key in ("device", "git_commit") if run.about.get(key)
        )
    names = [text.printable(name)[:80] for name in list(found)[:12]]
    return f"vae-report {__version__}; runs: {', '.join(names)}" if names else "vae-report"


def _table(header: Sequence[str], body: Sequence[str]) -> str:
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)
