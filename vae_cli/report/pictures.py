"""The pictures of a sweep: which runs and groups go where. Imports matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vae_cli.figures import style, sweeps
from vae_cli.figures.history import PANELS
from vae_cli.figures.output import save_png
from vae_cli.figures.sweeps import Point, Series
from vae_cli.report import text
from vae_cli.report.models import Models
from vae_cli.report.runs import RunRecord
from vae_cli.report.sweep import DISTORTION, RATE, REPLICATE, Group, Sweep
from vae_cli.report.table import label, metric_names, shown_metrics

MOST_ROWS = 8  # models side by side
ACTIVE = "test/active_units"


@dataclass(frozen=True)
class Picture:
    """A file in figures/ and what it shows."""

    file: str
    title: str
    make: Callable[[], Figure]


def draw(sweep: Sweep, folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Draw what fits the sweep into a folder. Returns (title, file) of each, and what failed."""
    drawn, failed = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures(sweep):
        try:
            save_png(picture.make(), folder / picture.file)
        except Exception as error:  # whatever it is: the others and the table are worth having
            failed.append(f"{picture.file} could not be drawn: {text.printable(error)[:200]}")
        else:
            drawn.append((picture.title, folder / picture.file))
    return drawn, failed


def pictures(sweep: Sweep) -> Iterator[Picture]:
    """Those that this sweep has the numbers for."""
    names = text.short_names(sweep.swept)
    measured = [g for g in sweep.groups if RATE in g.stats and DISTORTION in g.stats]
    if len(measured) > 1:
        yield Picture(
            "rate_distortion.png",
            "Rate and distortion, test set",
            lambda: sweeps.rate_distortion(_points(sweep, measured), names.get(leading(sweep), "")),
        )
    done = [group for group in sweep.groups if group.completed]
    for key in sweep.swept:
        name = names[key]
        if len(_values(done, key)) > 1:
            yield Picture(
                f"metrics_by_{_safe(name)}.png",
                f"Test metrics over {name}",
                lambda key=key, name=name: _metrics(sweep, done, key, name),  # type: ignore[misc]
            )
    key = leading(sweep)
    name = names.get(key, key)
    if len(_values(done, key)) > 1 and any(ACTIVE in group.stats for group in done):
        yield Picture(
            f"active_units_by_{_safe(name)}.png",
            f"Active units over {name}",
            lambda: _active_units(sweep, done, key, name),
        )
    chosen = side_by_side(sweep, key)
    if len(chosen) > 1:
        models = Models(chosen)
        if any(run.settings.get("model.posterior") != "point" for run in chosen.values()):
            yield Picture(
                f"samples_by_{_safe(name)}.png",
                f"Prior samples over {name}",
                lambda: models.samples(name),
            )
        yield Picture(
            f"reconstructions_by_{_safe(name)}.png",
            f"Reconstructions over {name}",
            lambda: models.reconstructions(name),
        )


def leading(sweep: Sweep) -> str:
    """The setting that models are compared over: beta or, where it is not swept, the first one."""
    return "beta" if "beta" in sweep.swept else next(iter(sweep.swept), REPLICATE)


def side_by_side(sweep: Sweep, key: str) -> dict[str, RunRecord]:
    """One completed run for each value of a setting, as like the best group as can be, and of one
    seed where that can be: 'beta = 0.5' -> run, in the order of the values."""
    done = [run for group in sweep.groups for run in group.completed]
    if not done:
        return {}
    best = sweep.groups[0].settings
    others = [other for other in sweep.swept if other != key]

    def unlike(run: RunRecord) -> tuple[int, int]:
        differing = sum(run.settings.get(other) != best.get(other) for other in others)
        seed = run.settings.get(REPLICATE)
        return differing, seed if isinstance(seed, int) else 0

    chosen: dict[str, RunRecord] = {}
    for run in sorted(done, key=unlike):  # stable: better groups first
        if key in run.settings:
            chosen.setdefault(text.setting(run.settings[key]), run)
    first = next(iter(chosen.values()), None)
    alike = {
        value: run
        for value, run in chosen.items()
        if first and run.settings["dataset.name"] == first.settings["dataset.name"]
    }
    ordered = sorted(alike, key=lambda value: _order(alike[value].settings[key]))
    name = text.short_names(sweep.swept).get(key, key)
    few = [ordered[i] for i in style.few(len(ordered), MOST_ROWS)]
    return {f"{name} = {text.shortened(value, 24)}": alike[value] for value in few}


# ----------------------------------------------------------------------------------------- numbers


def _points(sweep: Sweep, groups: Sequence[Group]) -> list[Point]:
    """Coloured by the leading setting, shaped by the next one."""
    key = leading(sweep)
    second = next((other for other in sweep.swept if other != key), None)
    points = []
    for group in sorted(groups, key=lambda group: _order(group.settings.get(key))):
        value = _plotted(group.settings.get(key))
        runs = [r.metrics for r in group.completed if RATE in r.metrics and DISTORTION in r.metrics]
        points.append(
            Point(
                _named(sweep, group, key) if sweep.swept else label(group, sweep),
                float(value) if isinstance(value, int | float) else None,
                np.array([m[RATE] for m in runs]),
                np.array([m[DISTORTION] for m in runs]),
                group.on_front,
                _named(sweep, group, second) if second else "",
            )
        )
    return points


def _named(sweep: Sweep, group: Group, key: str) -> str:
    """A setting of a group in words: 'beta=0.5'."""
    name = text.short_names(sweep.swept).get(key, key)
    if key not in group.settings:
        return f"no {name}"
    return text.shortened(f"{name}={text.setting(group.settings[key])}", 30)


def _metrics(sweep: Sweep, groups: Sequence[Group], key: str, name: str) -> Figure:
    wanted = [m for m in shown_metrics(sweep) if m not in ("seconds", ACTIVE)]
    shown = metric_names(wanted)
    panels = {
        PANELS.get(shown[m], shown[m]): series
        for m in wanted
        if (series := _lines(groups, key, m, text.short_names(sweep.swept)))
    }
    return sweeps.metric_panels(panels, name, f"Test metrics over {name}, nats per example")


def _active_units(sweep: Sweep, groups: Sequence[Group], key: str, name: str) -> Figure:
    series = _lines(groups, key, ACTIVE, text.short_names(sweep.swept))
    return sweeps.metric_panels(
        {"active units": series}, name, f"Active units over {name}", whole=True
    )


def _lines(groups: Sequence[Group], key: str, metric: str, names: dict[str, str]) -> list[Series]:
    """A line for each combination of the other settings."""
    lines: dict[str, tuple[list[object], list[np.ndarray]]] = {}
    for group in groups:
        runs = [run.metrics[metric] for run in group.completed if metric in run.metrics]
        if key not in group.settings or not runs:
            continue
        others = {k: v for k, v in group.settings.items() if k != key}
        named = ", ".join(f"{names[k]}={text.setting(v)}" for k, v in others.items())
        values, numbers = lines.setdefault(named, ([], []))
        values.append(_plotted(group.settings[key]))
        numbers.append(np.array(runs))
    return [Series(text.shortened(n, 60), *lines[n]) for n in sorted(lines)]


def _plotted(value: object) -> object:
    """A number as it is; anything else by its name."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else text.shortened(text.setting(value), 24)


def _values(groups: Sequence[Group], key: str) -> set[str]:
    return {text.setting(g.settings[key]) for g in groups if key in g.settings}


def _order(value: object) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def _safe(name: str) -> str:
    """A setting as part of a file's name."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
