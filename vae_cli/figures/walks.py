"""Walks through the latent space: a plane, one dimension at a time, from one point to another."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from vae_cli.figures import curves, mosaic, style, tiles
from vae_cli.figures.curves import CurveAxes
from vae_cli.figures.style import Array

MAX_DIMS = 16
MAX_STEPS = 16


def manifold(
    decoded: Tensor,
    first_values: Tensor,
    second_values: Tensor,
    curve_axes: CurveAxes | None = None,
    dims: tuple[int, int] = (0, 1),
    title: str = "Learned manifold",
) -> Figure:
    """What a plane of codes decodes to, decoded [R*C,*shape].

    decoded[r * C + c] belongs to first_values[c] and second_values[r]. It is drawn in column c
    from the left and row r from the bottom: the first code grows to the right, the second upwards
    when values ascend. Every curve stands in a cell of its own, all on the same scale.
    """
    images = tiles.is_images(decoded)
    columns, rows = len(first_values), len(second_values)
    tiles.check_same("decoded", decoded.shape[:1], (rows * columns,))
    # Rows of a picture go down, the second code goes up.
    from_top = decoded.reshape(rows, columns, *decoded.shape[1:]).flip(0).flatten(0, 1)
    if images:
        made = mosaic.mosaic(from_top, columns, left=0.6, below=0.5)
    else:
        made = _curve_cells(from_top, columns, rows, curve_axes)
    _value_ticks(made, first_values)
    names = _value_names(second_values)
    every = math.ceil(2 * style.TICK_SIZE / 72 / made.tile_inches[1])
    made.axes.set_yticks(made.y_centres[::-1][::every], names[::every])
    style.name_axes(made.axes, style.code_name(dims[0]), style.code_name(dims[1]))
    style.set_title(made.figure, title, [made.note])
    return made.figure


def traversals(
    decoded: Tensor,
    values: Tensor,
    dims: Sequence[int],
    kl: Tensor | None = None,
    curve_axes: CurveAxes | None = None,
    value_name: str = "value of the code",
    title: str = "Latent traversals",
) -> Figure:
    """One code varied at a time: decoded [D,S,*shape], values [S], dims [D], kl [D] in nats.

    A row (images) or a panel (curves) per dimension in the order given, the first MAX_DIMS.
    `value_name` says what the values are.
    """
    tiles.check_same("decoded", decoded.shape[:2], (len(dims), len(values)))
    images = tiles.is_images(decoded.flatten(0, 1))
    count = min(len(dims), MAX_DIMS)
    names = [_dim_name(dim, kl, i) for i, dim in enumerate(dims[:count])]
    shown = f"first {count} of {len(dims)} dimensions" if count < len(dims) else ""
    if images:
        return _image_traversals(decoded[:count], values, names, value_name, shown, title)
    return _curve_traversals(decoded[:count], values, names, value_name, curve_axes, shown, title)


def interpolation(
    decoded: Tensor,
    stops: Sequence[str],
    curve_axes: CurveAxes | None = None,
    title: str = "Interpolation between two codes",
) -> Figure:
    """The way from stop to stop, decoded [L,S,*shape]: L legs of S steps between L + 1 stops.

    A row of images a leg, its ends named at its sides; or a panel of curves a leg, by colour.
    """
    legs, steps = decoded.shape[:2]
    tiles.check_same("stops", (len(stops),), (legs + 1,))
    if tiles.is_images(decoded.flatten(0, 1)):
        return _image_legs(decoded, stops, title)
    drawn = style.finite_array(decoded)
    x, x_label, y_label = curves.axes_or_index(curve_axes, drawn.shape[-1])
    figure, axes = style.panels(legs, 2, (6.4, 4.0))
    leaving = 0
    for ax, leg, ends in zip(axes, drawn, pairwise(stops), strict=True):
        mappable = curves.draw_coloured(ax, x, leg, np.linspace(0, 1, steps))
        leaving += curves.frame_curves(ax, x, leg)
        bar = figure.colorbar(mappable, ax=ax, ticks=[0, 1] if steps > 1 else [0])
        bar.ax.set_yticklabels(ends[:steps], fontsize=style.TICK_SIZE)
        style.name_axes(ax, x_label, y_label)
    style.set_title(figure, title, [curves.leaving_note(leaving, legs * steps)])
    return figure


def _dim_name(dim: int, kl: Tensor | None, i: int) -> str:
    name = style.code_name(dim)
    return name if kl is None else f"{name} (KL {style.number(float(kl[i]), 2)})"


def _value_names(values: Tensor) -> list[str]:
    """As many decimals as it takes to tell neighbours apart, and one more."""
    numbers = style.finite_array(values)
    steps = np.abs(np.diff(numbers))
    smallest = float(np.min(steps, where=steps > 0, initial=np.inf))
    if not np.isfinite(smallest):
        return [style.number(v) for v in numbers]
    decimals = max(0, 1 - math.floor(math.log10(smallest)))
    # + 0.0 turns a rounded -0.0 into 0.0
    return [style.number(round(float(v), decimals) + 0.0, 6) for v in numbers]


def _value_ticks(made: mosaic.Mosaic, values: Tensor) -> None:
    """The values [C] under their columns, every k-th where they would touch."""
    names = _value_names(values)
    wide = style.text_inches(names, style.TICK_SIZE) + 0.1
    every = math.ceil(wide / made.tile_inches[0])
    made.axes.set_xticks(made.x_centres[::every], names[::every])


def _image_legs(decoded: Tensor, stops: Sequence[str], title: str) -> Figure:
    steps = decoded.shape[1]
    chosen = style.few(steps, MAX_STEPS)
    thinned = f"{len(chosen)} of {steps} steps" if len(chosen) < steps else ""
    names = [style.wrapped(stop, 1.2, style.LABEL_SIZE) for stop in stops]
    picked = decoded[:, chosen].flatten(0, 1)
    room = mosaic.label_inches(names)
    below = style.NOTE_HEIGHT if thinned else 0.1
    made = mosaic.mosaic(picked, len(chosen), left=room, below=below, right=room)
    mosaic.row_labels(made.axes, made.y_centres, names[:-1])
    right = made.axes.get_xlim()[1] + 0.1 * made.x_centres[0]
    for y, name in zip(made.y_centres, names[1:], strict=True):
        made.axes.text(right, y, name, fontsize=style.LABEL_SIZE, va="center")
    style.set_title(made.figure, title, [thinned, made.note])
    return made.figure


def _image_traversals(
    decoded: Tensor,
    values: Tensor,
    names: Sequence[str],
    value_name: str,
    shown: str,
    title: str,
) -> Figure:
    chosen = style.few(len(values), MAX_STEPS)
    thinned = f"{len(chosen)} of {len(values)} values" if len(chosen) < len(values) else ""
    below = 0.5 + (style.NOTE_HEIGHT if shown or thinned else 0.0)
    picked = decoded[:, chosen].flatten(0, 1)
    made = mosaic.mosaic(picked, len(chosen), left=mosaic.label_inches(names), below=below)
    mosaic.row_labels(made.axes, made.y_centres, names)
    _value_ticks(made, values[chosen])
    style.name_axes(made.axes, value_name)
    style.set_title(made.figure, title, [shown, thinned, made.note])
    return made.figure


def _curve_traversals(
    decoded: Tensor,
    values: Tensor,
    names: Sequence[str],
    value_name: str,
    curve_axes: CurveAxes | None,
    shown: str,
    title: str,
) -> Figure:
    drawn, by = style.finite_array(decoded), style.finite_array(values)
    x, x_label, y_label = curves.axes_or_index(curve_axes, drawn.shape[-1])
    figure, axes, columns = style.small_panels(len(names))
    # One range for all panels: it shows which code moves the curve most.
    low, high, leaving = curves.curve_limits(drawn.reshape(-1, len(x)))
    for i, ax in enumerate(axes):
        mappable = curves.draw_coloured(ax, x, drawn[i], by)
        curves.frame_curves(ax, x, drawn[i])
        ax.set_ylim(*style.padded(low, high))
        ax.set_title(names[i], fontsize=style.PANEL_SIZE)
    style.outer_names(axes, columns, x_label, y_label)
    bar = figure.colorbar(mappable, ax=axes, pad=0.01)
    bar.set_label(value_name, fontsize=style.LABEL_SIZE)
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    note = curves.leaving_note(leaving, len(names) * len(by))
    style.set_title(figure, title, [shown, note])
    return figure


def _curve_cells(
    decoded: Tensor, columns: int, rows: int, curve_axes: CurveAxes | None
) -> mosaic.Mosaic:
    """Curves [R*C,P], top row first, as tiles of size 1 in one axes.

    Hundreds of axes, one a curve, would take many seconds.
    """
    drawn = style.finite_array(decoded)
    x, x_label, y_label = curves.axes_or_index(curve_axes, drawn.shape[1])
    low, high, leaving = curves.curve_limits(drawn)
    cell = min(2.4 if len(drawn) <= 4 else 1.2, 8.0 / max(columns, rows))
    figure = style.new_figure(columns * cell + 1.0, rows * cell + 1.2, layout="compressed")
    ax = figure.add_subplot()
    lines = _cell_lines(x, drawn, columns, (low, high))
    ax.add_collection(LineCollection(lines, colors=style.PALETTE[0], linewidths=1.1))
    ax.hlines(range(rows + 1), 0, columns, colors=style.PALE, linewidths=0.7)
    ax.vlines(range(columns + 1), 0, rows, colors=style.PALE, linewidths=0.7)
    mosaic.bare_axes(ax)
    ax.set(xlim=(-0.05, columns + 0.05), ylim=(rows + 0.05, -0.05), aspect="equal")
    x_centres, y_centres = [c + 0.5 for c in range(columns)], [r + 0.5 for r in range(rows)]
    notes = [f"each cell: {_span_text(x_label, x[0], x[-1])}, {_span_text(y_label, low, high)}"]
    notes += filter(None, [curves.leaving_note(leaving, len(drawn))])
    return mosaic.Mosaic(figure, ax, x_centres, y_centres, (cell, cell), "; ".join(notes))


def _span_text(name: str, low: float, high: float) -> str:
    first, last = (style.number(v, scale=high - low) for v in (low, high))
    return f"{name} from {first} to {last}"


def _cell_lines(x: Array, drawn: Array, columns: int, limits: tuple[float, float]) -> list[Array]:
    """Each curve scaled into its cell, as [P,2]; what leaves the range runs along the edge."""
    low, high = style.padded(*limits, share=0.0)
    across = 0.08 + 0.84 * (x - x.min()) / (np.ptp(x) or 1.0)
    down = 0.92 - 0.84 * (drawn.clip(low, high) - low) / (high - low)  # y grows downwards
    return [np.stack([across + i % columns, y + i // columns], axis=-1) for i, y in enumerate(down)]
