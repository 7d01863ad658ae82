"""Curves and vectors: how one is drawn, and figures that compare a curve with its fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vae_cli.figures import style, tiles
from vae_cli.figures.style import Array

MAX_RESIDUALS = 6


@dataclass(frozen=True, eq=False)
class CurveAxes:
    """What a curve is drawn over: grid [P] and the names of both axes."""

    grid: Tensor
    x_label: str
    y_label: str


def axes_or_index(curve_axes: CurveAxes | None, points: int) -> tuple[Array, str, str]:
    """Grid [P] and both names; the index for a vector that has no grid."""
    if curve_axes is None:
        return np.arange(points, dtype=np.float64), "index", "value"
    tiles.check_same("CurveAxes.grid", curve_axes.grid.shape, (points,))
    return style.finite_array(curve_axes.grid), curve_axes.x_label, curve_axes.y_label


def curve_limits(curves: Array, trusted: int | None = None) -> tuple[float, float, int]:
    """y range for curves [S,P], and how many curves leave it.

    A curve that dwarfs the others does not set the range (a Beta density can peak a hundred
    times higher than its neighbours). The first `trusted` curves say what is usual.
    """
    # fmin and fmax ignore NaN and, unlike nanmin, do not warn about a curve that is all NaN
    lows = np.fmin.reduce(curves, axis=-1)
    highs = np.fmax.reduce(curves, axis=-1)
    low, high = style.robust_range(lows, highs, 0.25, trusted)
    leaving = int(((lows < low) | (highs > high)).sum())
    return low, high, leaving


def leaving_note(leaving: int, count: int) -> str:
    """Sentence about curves that leave the y range, "" when none does."""
    if not leaving:
        return ""
    return f"{leaving} of {count} curves leave the y range, which the others set"


def draw_curve(ax: Axes, x: Array, y: Array, **how: object) -> None:
    """One line; short vectors with a marker a point, for a single one has no line."""
    marker = "o" if x.size <= 20 else ""
    options = {"linewidth": style.LINE_WIDTH, "marker": marker, "markersize": 3.5} | how
    ax.plot(x, y, **options)  # type: ignore[arg-type]


def frame_curves(ax: Axes, x: Array, curves: Array, trusted: int | None = None) -> int:
    """Set both ranges for curves [S,P] and return how many leave the y range."""
    low, high, leaving = curve_limits(curves, trusted)
    ax.set_ylim(*style.padded(low, high))
    ax.set_xlim(*style.padded(float(np.nanmin(x)), float(np.nanmax(x)), 0.02))
    if not np.mod(x, 1).any():  # an index: no ticks between its points
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if not np.isfinite(curves).any():
        ax.text(0.5, 0.5, "no finite value", transform=ax.transAxes, ha="center", va="center",
                fontsize=style.NOTE_SIZE, color=style.QUIET)  # fmt: skip
    return leaving


def draw_coloured(ax: Axes, x: Array, curves: Array, values: Array) -> ScalarMappable:
    """Curves [S,P] coloured by values [S]; returns what a colour bar needs."""
    norm = Normalize(*_span(values))
    for y, value in zip(curves, values, strict=True):
        draw_curve(ax, x, y, color=style.VALUE_MAP(norm(value)), linewidth=1.2)
    return ScalarMappable(norm, style.VALUE_MAP)


def overlay(ax: Axes, x: Array, original: Array, others: Sequence[Array]) -> int:
    """A curve [P] in ink and others over it; the first sets the y range."""
    draw_curve(ax, x, original, color=style.INK, linewidth=2.2, alpha=0.75)
    for i, y in enumerate(others):
        line = style.LINE_STYLES[(i + 1) % len(style.LINE_STYLES)]
        draw_curve(ax, x, y, color=series_colour(i), linestyle=line)
    return frame_curves(ax, x, np.stack([original, *others]), trusted=1)


def series_colour(i: int) -> str:
    """Colour of the i-th curve that is compared with an original."""
    order = (1, 0, 2, 3)  # orange then blue: the later, better fit gets the stronger colour
    return style.PALETTE[order[i] if i < len(order) else i % len(style.PALETTE)]


def legend_below(figure: Figure, ax: Axes, labels: Sequence[str]) -> None:
    """One legend for all panels, under them, for the lines of `ax` in drawing order."""
    figure.legend(ax.get_lines()[: len(labels)], labels, loc="outside lower center",
                  ncols=min(4, len(labels)), fontsize=style.TICK_SIZE, frameon=False)  # fmt: skip


def residuals(
    originals: Tensor,
    reconstructions: Tensor,
    curve_axes: CurveAxes | None = None,
    title: str = "Curves, reconstructions and residuals",
) -> Figure:
    """Curves [N,P] with reconstructions [N,P] above, reconstruction minus original below.

    The first MAX_RESIDUALS examples, a column each.
    """
    tiles.check_same("reconstructions", reconstructions.shape, originals.shape)
    count = min(len(originals), MAX_RESIDUALS)
    x, x_label, y_label = axes_or_index(curve_axes, originals.shape[1])
    true, made = (style.finite_array(t[:count]) for t in (originals, reconstructions))
    figure, axes = style.panels(2 * count, count, (max(1.9, 4.8 / count), 1.9))
    leaving = 0
    for i in range(count):
        upper, lower = axes[i], axes[count + i]
        leaving += overlay(upper, x, true[i], [made[i]])
        draw_error(lower, x, made[i] - true[i])
        style.name_axes(upper, "", y_label if i == 0 else "")
        style.name_axes(lower, x_label, "residual" if i == 0 else "")
    legend_below(figure, axes[0], ["original", "reconstruction"])
    shown = f"first {count} of {len(originals)}" if count < len(originals) else ""
    note = "residual: reconstruction minus original"
    style.set_title(figure, title, [shown, note, leaving_note(leaving, 2 * count)])
    return figure


def curve_fit(
    target: Tensor,
    fitted: Tensor,
    curve_axes: CurveAxes | None = None,
    target_label: str = "target",
    fit_label: str = "fit",
    title: str = "Curve fit",
) -> Figure:
    """A curve [P] and its fit [P] on the left, fit minus target on the right."""
    tiles.check_same("fitted", fitted.shape, target.shape)
    x, x_label, y_label = axes_or_index(curve_axes, len(target))
    true, made = style.finite_array(target), style.finite_array(fitted)
    figure, (left, right) = style.panels(2, 2, (4.2, 3.2))
    leaving = overlay(left, x, true, [made])
    left.legend(left.get_lines(), [target_label, fit_label], fontsize=style.TICK_SIZE)
    draw_error(right, x, made - true)
    style.name_axes(left, x_label, y_label, "curves")
    style.name_axes(right, x_label, f"error in {y_label}", f"{fit_label} minus {target_label}")
    style.set_title(figure, title, [leaving_note(leaving, 2)])
    return figure


def draw_error(ax: Axes, x: Array, error: Array) -> None:
    """An error curve [P] around a zero line, the y range even about zero."""
    ax.axhline(0, color=style.PALE, linewidth=1)
    draw_curve(ax, x, error, color=style.PALETTE[2], linewidth=1.2)
    frame_curves(ax, x, error[None])
    largest = float(np.fmax.reduce(np.abs(error)))
    if np.isfinite(largest) and largest > 0:
        ax.set_ylim(-1.1 * largest, 1.1 * largest)


def _span(values: Array) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
