"""What a sweep found: rate against distortion, and metrics over a setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from vae_cli.figures import style
from vae_cli.figures.style import Array

DECADES = 8.0  # a largest value so many times the smallest asks for a logarithmic axis
FAR = 50.0  # interquartile ranges from the median: a run that diverged
MOST_SERIES = 8  # lines with a name; of more, the names are left out
BAR: dict[str, Any] = {"capsize": 2.5, "elinewidth": 1.0, "capthick": 1.0}


@dataclass(frozen=True)
class Point:
    """Runs that differ in the seed alone. Points with one label have one colour."""

    label: str  # of the colour: beta=0.5
    value: float | None  # the label's number; None: a category
    x: Array  # [runs]
    y: Array  # [runs]
    on_front: bool = False
    mark: str = ""  # of the shape: lr=0.1; "" where shapes say nothing


@dataclass(frozen=True)
class Series:
    """A line: for each value of the setting, the numbers of the runs that have it."""

    label: str
    values: Sequence[object]  # numbers, or the names of categories
    runs: Sequence[Array]  # a [runs] for each value


def rate_distortion(
    points: Sequence[Point], colour_name: str = "", title: str = "Rate and distortion, test set"
) -> Figure:
    """KL (the rate, x) against reconstruction (the distortion, y), in nats per example.

    Small marks are runs, large ones means over seeds with a standard deviation each way; the line
    joins the means that no other beats in both; along a pale line the ELBO is constant.
    colour_name: what the points' values are, beside a colour bar.
    """
    named = len({point.label for point in points}) <= 2 * MOST_SERIES
    figure = style.new_figure(7.6 if named else 6.4, 4.8)
    ax = figure.add_subplot()
    style.plain_axes(ax)
    usual = _usual([p.x.mean() for p in points]) & _usual([p.y.mean() for p in points])
    far = len(points) - int(usual.sum())
    points = [point for point, near in zip(points, usual, strict=True) if near]
    colours = _colours(points)
    shapes = {mark: style.MARKERS[i] for i, mark in enumerate(_marks(points))}
    front = sorted((p for p in points if p.on_front), key=lambda p: float(p.x.mean()))
    if len(front) > 1:
        ax.plot([p.x.mean() for p in front], [p.y.mean() for p in front], color=style.QUIET,
                linewidth=1.2, zorder=2)  # fmt: skip
    for point, colour in zip(points, colours, strict=True):
        if len(point.x) > 1:
            ax.scatter(point.x, point.y, s=14, color=colour, alpha=0.45, linewidths=0, zorder=3)
        ax.errorbar(point.x.mean(), point.y.mean(), _std(point.y), _std(point.x),
                    marker=shapes.get(point.mark, "o"), markersize=7, color=colour,
                    markeredgecolor="white", zorder=4, **BAR)  # fmt: skip
    _constant_elbo(ax)
    style.name_axes(ax, "KL, nats per example (rate)", "reconstruction, nats per example")
    if named:
        _name_points(ax, points, colours, shapes, len(front) > 1)
    elif all(point.value is not None for point in points):
        bar = figure.colorbar(_scale([p.value for p in points if p.value is not None]), ax=ax)
        bar.set_label(colour_name, fontsize=style.LABEL_SIZE)
        bar.ax.tick_params(labelsize=style.TICK_SIZE)
    meaning = "along a pale line the ELBO is the number at its end; better to the lower left"
    style.set_title(figure, title, [meaning, _far_note(far)])
    return figure


def metric_panels(
    panels: Mapping[str, Sequence[Series]], setting: str, title: str = "", whole: bool = False
) -> Figure:
    """A panel a metric (its name -> series) over the values of a setting.

    Large marks: mean and standard deviation over the runs; small marks: the runs. The axis is
    logarithmic where the values are positive and spread over decades; names are categories.
    whole: the metric counts something, so its axis starts at 0 and has whole numbers.
    """
    count = len(panels)
    columns = min(count, 2) if count in (2, 4) else min(count, 3)
    figure, axes = style.panels(count, columns, (3.8 if count > 1 else 5.4, 3.2))
    labels: list[str] = []
    far = 0
    for ax, (metric, series) in zip(axes, panels.items(), strict=True):
        place = _axis(ax, [value for s in series for value in s.values])
        for i, one in enumerate(series):
            places = [place(value) for value in one.values]
            _series(ax, one, places, i if len(series) <= MOST_SERIES else None)
        far += _frame(ax, [runs for one in series for runs in one.runs])
        labels = [one.label for one in series]
        single = "" if count > 1 else metric
        style.name_axes(ax, setting, single, metric if count > 1 else "")
        if whole:
            ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1], top=max(1.0, 1.05 * ax.get_ylim()[1]))
            ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    notes = [_far_note(far)]
    if 1 < len(labels) <= MOST_SERIES:
        handles = [Line2D([], [], color=_series_colour(i), marker="o") for i in range(len(labels))]
        columns = max(1, min(4, int(figure.get_figwidth() // style.text_inches(labels, 11))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns,
                      fontsize=style.TICK_SIZE, frameon=False)  # fmt: skip
    elif len(labels) > MOST_SERIES:
        notes.append(f"a line for each of {len(labels)} combinations of the other settings")
    style.set_title(figure, title, notes)
    return figure


# ---------------------------------------------------------------------------------------- the parts


def _usual(values: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which values are not out of all proportion, as those of a run that diverged are."""
    array = np.asarray(values, dtype=np.float64)
    low, middle, high = np.quantile(array, [0.25, 0.5, 0.75])
    reach = FAR * (high - low)
    return np.abs(array - middle) <= reach if reach > 0 else np.ones(len(array), dtype=bool)


def _frame(ax: Axes, groups: Sequence[Array]) -> int:
    """Keep groups that are far out from setting the y range; returns how many."""
    usual = _usual([runs.mean() for runs in groups])
    if not usual.all():
        near = np.concatenate(
            [runs for runs, is_near in zip(groups, usual, strict=True) if is_near]
        )
        ax.set_ylim(*style.padded(float(near.min()), float(near.max())))
    return int((~usual).sum())


def _far_note(far: int) -> str:
    return f"{far} means far from the others lie outside" if far else ""


def _std(values: Array) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _series_colour(i: int) -> str:
    return style.PALETTE[i % len(style.PALETTE)]


def _decades(values: Sequence[float]) -> bool:
    positive = [v for v in values if v > 0]
    return len(positive) == len(values) > 0 and max(values) >= DECADES * min(values)


def _norm(values: Sequence[float]) -> Normalize:
    low, high = min(values), max(values)
    return LogNorm(low, high) if _decades(values) else Normalize(low, high)


def _marks(points: Sequence[Point]) -> list[str]:
    """What shapes stand for, while there are shapes enough; else nothing."""
    marks = sorted({point.mark for point in points})
    return marks if 1 < len(marks) <= len(style.MARKERS) else []


def _colours(points: Sequence[Point]) -> list[Any]:
    """A colour a point: along one scale for numbers, one after the other for categories."""
    numbers = [p.value for p in points if p.value is not None]
    if len(numbers) < len(points) or len(set(numbers)) < 2:
        labels = list(dict.fromkeys(point.label for point in points))
        return [_series_colour(labels.index(point.label)) for point in points]
    norm = _norm(numbers)
    return [style.VALUE_MAP(norm(v)) for v in numbers]


def _scale(values: Sequence[float]) -> ScalarMappable:
    return ScalarMappable(_norm(values), style.VALUE_MAP)


def _name_points(
    ax: Axes,
    points: Sequence[Point],
    colours: Sequence[Any],
    shapes: Mapping[str, str],
    front: bool,
) -> None:
    """A legend beside the axes, right of the numbers at the pale lines."""
    named = dict(zip([point.label for point in points], colours, strict=True))
    handles = [Line2D([], [], color=c, marker="o", linestyle="") for c in named.values()]
    handles += [Line2D([], [], color=style.QUIET, marker=m, linestyle="") for m in shapes.values()]
    labels = [*named, *shapes]
    if front:
        handles.append(Line2D([], [], color=style.QUIET, linewidth=1.2))
        labels.append("Pareto front")
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.1, 1.02), frameon=False,
              fontsize=style.TICK_SIZE)  # fmt: skip


def _constant_elbo(ax: Axes) -> None:
    """Lines of equal KL + reconstruction across what the points span, each with its ELBO."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
    for total in MaxNLocator(9).tick_values(x0 + y0, x1 + y1):
        ax.plot([x0, x1], [total - x0, total - x1], color=style.PALE, linewidth=0.8, zorder=1)
        # a line leaves at the right edge or, inside the frame's ticks, at the lower one
        at_right = y0 < total - x1 < y1
        place = (x1, total - x1) if at_right else (total - y0, y0)
        if at_right or x0 < place[0] < x1 - 0.06 * (x1 - x0):
            ax.annotate(style.number(-total, 6), place, xytext=(3, 0) if at_right else (1, 4),
                        textcoords="offset points", va="center" if at_right else "bottom",
                        fontsize=7, color=style.QUIET, annotation_clip=False)  # fmt: skip


def _axis(ax: Axes, values: Sequence[Any]) -> Callable[[Any], float]:
    """Prepare the x axis for these values; returns a value's place on it."""
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    if len(numbers) < len(values):
        names = list(dict.fromkeys(map(str, values)))
        ax.set_xticks(range(len(names)), [style.wrapped(n, 1.2, style.TICK_SIZE) for n in names])
        ax.set_xlim(-0.5, len(names) - 0.5)
        return lambda value: float(names.index(str(value)))
    ticks = sorted(set(numbers))
    if _decades(ticks):
        ax.set_xscale("log")
        if len(ticks) <= 8:
            ax.xaxis.set_major_locator(FixedLocator(ticks))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xticks(ticks, [style.number(t) for t in ticks])
    elif len(ticks) <= 6:
        ax.set_xticks(ticks, [style.number(t) for t in ticks])
    return lambda value: float(value)


def _series(ax: Axes, series: Series, places: Sequence[float], i: int | None) -> None:
    """Draw a line; i: its number, None for one of too many to be told apart."""
    order = np.argsort(places)
    x = np.array([places[k] for k in order])
    runs = [series.runs[k] for k in order]
    colour, alpha = (style.PALETTE[0], 0.45) if i is None else (_series_colour(i), 1.0)
    for place, values in zip(x, runs, strict=True):
        if len(values) > 1:
            ax.scatter([place] * len(values), values, s=12, color=colour, alpha=0.4, linewidths=0)
    categories = any(isinstance(value, str) for value in series.values)
    ax.errorbar(x, [values.mean() for values in runs], [_std(values) or 0.0 for values in runs],
                marker="o", markersize=5, color=colour, alpha=alpha,
                linewidth=1.0 if categories else style.LINE_WIDTH,
                linestyle=":" if categories else "-", **BAR)  # fmt: skip
