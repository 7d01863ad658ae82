"""Pictures of a comparison: rate and distortion, metrics over a setting, models side by side."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_cli.analysis.export import save_png
from vae_cli.analysis.figures import INK, PALE, PALETTE, SHADES, panels, sheet, spread
from vae_cli.analysis.trained import load_run
from vae_cli.config.check import flatten
from vae_cli.console import UserError, one_line
from vae_cli.data.labels import labels_of, name_of, of_each_class
from vae_cli.runs.saved import SavedRun
from vae_cli.sweeps.plan import safe_name
from vae_cli.sweeps.table import ACTIVE, DISTORTION, RATE, Comparison, rows_of
from vae_cli.sweeps.varied import SEED, text

MODELS, EXAMPLES, NAMED = 8, 8, 12  # the most rows of models, examples in each, names in a legend
METRICS = {"test/elbo": "ELBO", DISTORTION: "reconstruction", RATE: "KL"}


def draw_all(sweep: Comparison, folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Draw what fits into a folder. Returns titles with files, and a line about each failure."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, failed = [], []
    for part, (stem, title, setting, draw) in [(p, x) for p in sweep.parts for x in _fitting(p)]:
        stem += f"_by_{setting}" * bool(setting) + f"_{part.title}" * bool(part.title)
        path = folder / f"{safe_name(stem)}.png"
        title += f" over {setting}" * bool(setting) + f" ({part.title})" * bool(part.title)
        try:
            save_png(draw(title=title), path, small_print(part))
            drawn.append((title, path))
        except Exception as error:  # of whatever kind: the table is worth having without it
            failed.append(f"{path.name} could not be drawn: {one_line(error)[:200]}")
    return drawn, failed


def small_print(sweep: Comparison) -> str:
    """Say which runs a picture compares: their folders, and all their data, models and betas."""
    flats, names = [flatten(run.settings) for run in sweep.saved], []
    for key in ("dataset.name", "model.name", "beta"):
        values = " / ".join(text(value)[:24] for value in _sorted(flat[key] for flat in flats))
        names.append(f"beta = {values}" if key == "beta" else values)
    folders = " + ".join(folder.absolute().name for folder in sweep.folders)
    return f"{folders}: {', '.join(names)}; {len(flats)} runs"


def _fitting(sweep: Comparison) -> Iterator[tuple[str, str, str, Callable[..., Figure]]]:
    """Yield what there are numbers for: the file's stem, a title, the setting, and a function."""
    if sweep.groups["completed"].gt(0).sum() > 1:
        yield "rate_distortion", "Rate and distortion", "", partial(rate_distortion, sweep)
    for key, name in sweep.swept.items():
        if len(side_by_side(sweep, key)) > 1:
            yield "metrics", "Test metrics", name, partial(over_setting, sweep, key, METRICS)
    key = leading(sweep)
    name, runs = sweep.swept.get(key, key), side_by_side(sweep, key)
    if len(runs) > 1:
        if key in sweep.swept:
            draw = partial(over_setting, sweep, key, {ACTIVE: ""}, unit="active units")
            yield "active_units", "Active units", name, draw
        if vaes := {label: run for label, run in runs.items() if _can_draw(run)}:
            yield "samples", "Prior samples", name, partial(samples, vaes)
        yield "reconstructions", "Reconstructions", name, partial(reconstructions, runs)


def _can_draw(run: SavedRun) -> bool:
    """Whether a run has a prior to draw from; True too where only its plug-in would know."""
    with suppress(UserError):  # whoever loads it says what is missing
        return run.config.samples_prior
    return True


def leading(sweep: Comparison) -> str:
    """The setting that models are compared over: beta or, where it does not vary, the first one."""
    return "beta" if "beta" in sweep.swept else next(iter(sweep.swept), SEED)


def side_by_side(sweep: Comparison, key: str) -> dict[str, SavedRun]:
    """The best completed run for each value of a setting: {"beta = 0.5": run}."""
    chosen: dict[Any, SavedRun] = {}
    for row, run in zip(rows_of(sweep.runs), sweep.saved, strict=True):  # the best come first
        if row["status"] == "completed" and text(row[key]):
            chosen.setdefault(row[key], run)
    values = _sorted(chosen)
    few = [values[i] for i in spread(len(values), MODELS)]
    return {f"{sweep.swept.get(key, key)} = {text(x)[:24]}": chosen[x] for x in few}


def _sorted(values: Iterable[Any]) -> list[Any]:
    """Different values in their order, numbers before texts."""
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def rate_distortion(sweep: Comparison, title: str) -> Figure:
    """KL (rate, x) against reconstruction (distortion, y): runs small, means of groups large."""
    names = ("KL, nats per example (rate)", "reconstruction, nats per example (distortion)")
    figure, (ax,) = panels(1, 1, (7.6, 4.8), title, *names)
    key = leading(sweep)
    setting = sweep.groups[key] if key in sweep.swept else sweep.groups["front"] * 0
    values = _sorted(setting)
    shades, stds = SHADES(np.linspace(0, 1, len(values))), sweep.stds.fillna(0)
    for i, value in enumerate(setting):
        colour = shades[values.index(value)]
        runs = sweep.runs[(sweep.runs["group"] == i) & (sweep.runs["status"] == "completed")]
        ax.scatter(runs[RATE], runs[DISTORTION], s=14, color=colour, alpha=0.45, linewidths=0)
        x, y, dx, dy = (t[k][i] for t in (sweep.means, stds) for k in (RATE, DISTORTION))
        ax.errorbar(x, y, dy, dx, fmt="o", markersize=7, capsize=2.5, color=colour)
    front = sweep.means[sweep.groups["front"]].sort_values(RATE)
    ax.plot(front[RATE], front[DISTORTION], color=INK, linewidth=1, zorder=1)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for total in np.linspace(x0 + y0, x1 + y1, 9)[1:-1]:
        ax.plot([x0, x1], [total - x0, total - x1], color=PALE, linewidth=0.8, zorder=0)
    ax.set(xlim=(x0, x1), ylim=(y0, y1))
    kinds = {"Pareto front": INK, "equal ELBO": PALE}
    handles = [Line2D([], [], color=colour, label=label) for label, colour in kinds.items()]
    for i in spread(len(values), NAMED) if len(values) > 1 else ():
        label = f"{sweep.swept[key]}={text(values[i])[:24]}"
        handles.append(Line2D([], [], linestyle="", marker="o", color=shades[i], label=label))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def over_setting(
    sweep: Comparison, key: str, metrics: dict[str, str], title: str, unit: str = "nats per example"
) -> Figure:
    """Means of metrics over a setting, with standard deviations. metrics: key -> panel's title."""
    figure, axes = panels(len(metrics), 3, (3.6, 3.2), title, sweep.swept[key], unit)
    values = _sorted(sweep.groups[key].dropna())
    numbers = not any(isinstance(value, str) for value in values)
    places = dict(zip(values, values if numbers else range(len(values)), strict=True))
    at = sweep.groups[key].map(places)
    others = [other for other in sweep.swept if other != key]
    labels = np.array([sweep.label(row, others) for row in rows_of(sweep.groups)])
    for ax, (metric, name) in zip(axes, metrics.items(), strict=True):
        if numbers and 0 < 8 * min(values) <= max(values):
            ax.set_xscale("log")
        if len(values) <= NAMED:
            ax.set_xticks([*places.values()], [text(value)[:24] for value in values])
            ax.minorticks_off()
        for i, label in enumerate(sorted(set(labels))):
            line = at[labels == label].sort_values().index
            points = (at[line], sweep.means[metric][line], sweep.stds[metric].fillna(0)[line])
            colour, form = PALETTE[i % len(PALETTE)], "o-" if numbers else "o:"
            ax.errorbar(*points, fmt=form, markersize=5, color=colour, label=label)
        ax.set_title(name, fontsize=10)
    if 1 < len(set(labels)) <= NAMED:
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def samples(runs: dict[str, SavedRun], title: str) -> Figure:
    """Draw decoded samples of several models, a row each, from equal draws of the prior."""
    models = [load_run(run.folder) for run in runs.values()]
    table = torch.stack([model.sample(EXAMPLES, seed=0) for model in models])
    return sheet(table, title, models[0].curves, rows=list(runs))


def reconstructions(runs: dict[str, SavedRun], title: str) -> Figure:
    """Test examples of several classes, and what the models of several runs make of them."""
    models = [load_run(run.folder) for run in runs.values()]
    data = models[0].data()
    index = of_each_class(data, EXAMPLES)
    x, labels = models[0].examples(index), labels_of(data, index)
    table = torch.stack([x, *(model.given(labels).reconstruct(x) for model in models)])
    names = ["original", *runs]
    if models[0].has_images:
        columns = [name_of(data, i) for i in index.tolist()]
        return sheet(table, title, data.curves, rows=names, columns=columns)
    return sheet(table.transpose(0, 1), title, data.curves, columns=names, along="model")
