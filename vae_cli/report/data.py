"""The answer for other programs: sweep.csv, a row a run, and sweep.json, runs and groups."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from vae_cli.report import text
from vae_cli.report.commands import run_command, sweep_command
from vae_cli.report.runs import RunRecord
from vae_cli.report.sweep import REPLICATE, TEST_METRICS, Sweep
from vae_cli.report.text import printable
from vae_cli.version import __version__

SPLITS = ("test/", "latent/", "train/", "val/")


def csv_text(sweep: Sweep) -> str:
    """A row a run: what varied and the seed, test metrics, train and val finals, how it ended.

    Numbers have all their digits; what a run does not have is empty.
    """
    there = dict.fromkeys(name for run in sweep.runs for name in run.metrics)
    first = [name for name in TEST_METRICS if name in there]
    rest = [n for split in SPLITS for n in there if n.startswith(split) and n not in first]
    metrics = [*first, *rest]
    ending = ["epochs", "seconds", "status", "error", "folder"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*sweep.swept, REPLICATE, *metrics, *ending])
    for run in sweep.runs:
        settings = [
            text.setting(run.settings[key]) if key in run.settings else ""
            for key in (*sweep.swept, REPLICATE)
        ]
        numbers = [repr(run.metrics[name]) if name in run.metrics else "" for name in metrics]
        seconds = "" if run.seconds is None else repr(run.seconds)
        writer.writerow([*settings, *numbers, run.epochs, seconds, run.status, run.error, run.name])
    return file.getvalue()


def json_text(sweep: Sweep) -> str:
    """Runs and groups, best first. Strict JSON: nothing in it is NaN or infinite."""
    place = {id(run): i for i, run in enumerate(sweep.runs)}
    groups = [
        {
            "settings": group.settings,
            "runs": [place[id(run)] for run in group.runs],
            "completed": len(group.completed),
            "metrics": {
                name: {"mean": stat.mean, "std": stat.std, "n": stat.n}
                for name, stat in group.stats.items()
            },
            "pareto_front": group.on_front,
        }
        for group in sweep.groups
    ]
    content = {
        "vae_cli": __version__,
        "folders": [printable(root) for root in sweep.roots],
        "command": sweep_command(sweep),
        "metric": sweep.metric,
        "swept": sweep.swept,
        "groups": groups,
        "runs": [_run(run, sweep) for run in sweep.runs],
        "skipped": [{"folder": item.name, "reason": item.reason} for item in sweep.skipped],
        "notes": sweep.notes,
    }
    return json.dumps(_strict(content), indent=2, allow_nan=False) + "\n"


def _run(run: RunRecord, sweep: Sweep) -> dict[str, Any]:
    return {
        "folder": run.name,
        "status": run.status,
        "error": run.error or None,
        "swept": sweep.settings_of(run),
        "seed": run.settings.get(REPLICATE),
        "epochs": run.epochs,
        "seconds": run.seconds,
        "metrics": run.metrics,
        "command": run_command(run) or None,
        "settings": run.settings,
        **run.about,
    }


def _strict(item: Any) -> Any:
    """Values as JSON has them: a number that is not finite, or what YAML alone knows, by name."""
    if isinstance(item, dict):
        return {printable(key): _strict(part) for key, part in item.items()}
    if isinstance(item, list | tuple):
        return [_strict(part) for part in item]
    if item is None or isinstance(item, bool | int):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    return printable(item)
