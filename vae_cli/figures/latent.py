"""Codes as points in a plane, coloured by what is known about their examples."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from vae_cli.figures import style, tiles
from vae_cli.figures.style import Array

Mask = npt.NDArray[np.bool_]

MAX_CLASSES = len(style.PALETTE) * len(style.MARKERS)
MAX_LEGEND_ROWS = 16


def latent_scatter(
    codes: Tensor,
    labels: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    dims: tuple[int, int] = (0, 1),
    axis_names: tuple[str, str] | None = None,
    title: str = "Latent codes",
) -> Figure:
    """Points codes [N,2], coloured by integer labels [N], by parameters name -> [N], or plain.

    A panel for the labels and one per parameter. `dims` says which latent dimensions the two
    columns are, and names the axes; `axis_names` overrides it (an embedding such as t-SNE). More
    than MAX_CLASSES classes are coloured by number. Points that are not finite are left out, and
    so are the few that would dwarf the rest; a note says how many.
    """
    tiles.check_same("codes", codes.shape, (len(codes), 2))
    points = style.finite_array(codes)
    keep = np.asarray(np.isfinite(points).all(axis=1))
    points = points[keep]
    classes = None if labels is None else _known("labels", labels, keep).astype(np.int64)
    values = {name: _known(name, p, keep) for name, p in (parameters or {}).items()}
    if classes is not None and len(np.unique(classes)) > MAX_CLASSES:
        values = {"class": classes.astype(np.float64)} | values
        classes = None

    count = max(1, len(values) + (classes is not None))
    figure, axes = style.panels(count, 3, (6.4, 5.0) if count == 1 else (4.4, 3.7))
    free = iter(axes)
    if classes is not None:
        _by_class(next(free), points, classes, class_names)
    for name, value in values.items():
        _by_value(figure, next(free), points, value, name)
    if classes is None and not values:
        _draw_points(axes[0], points, style.PALETTE[0])
    outside = 0
    for ax in axes:
        outside = _frame_points(ax, points)
        style.name_axes(ax, *(axis_names or map(style.code_name, dims)))
    style.set_title(figure, title, _left_out(int((~keep).sum()), outside, len(keep)))
    return figure


def _known(name: str, values: Tensor, keep: Mask) -> Array:
    tiles.check_same(name, values.shape, keep.shape)
    known: Array = style.finite_array(values)[keep]
    return known


def _by_class(
    ax: Axes, points: Array, classes: npt.NDArray[np.int64], class_names: Sequence[str] | None
) -> None:
    """Colour and marker by class; drawn in the order given, so no class covers the others."""
    present = [int(c) for c in np.unique(classes)]
    # A class keeps its colour from picture to picture, unless its number is beyond the palette.
    direct = all(0 <= c < MAX_CLASSES for c in present)
    slots = {c: c if direct else i for i, c in enumerate(present)}
    slot = np.array([slots[int(c)] for c in classes], dtype=np.int64)
    colours = np.array([to_rgba(c) for c in style.PALETTE])
    for m, marker in enumerate(style.MARKERS):
        chosen = slot // len(style.PALETTE) == m
        if chosen.any():
            _draw_points(ax, points[chosen], colours[slot[chosen] % len(colours)], marker)
    handles = [_class_handle(slots[c], _class_label(c, class_names)) for c in present]
    if handles:
        ax.legend(handles=handles, title="class", loc="upper left", bbox_to_anchor=(1.01, 1.0),
                  ncols=math.ceil(len(handles) / MAX_LEGEND_ROWS), frameon=False,
                  fontsize=style.TICK_SIZE, title_fontsize=style.LABEL_SIZE,
                  borderaxespad=0, handletextpad=0.2, columnspacing=0.8)  # fmt: skip


def _class_label(label: int, class_names: Sequence[str] | None) -> str:
    known = class_names is not None and 0 <= label < len(class_names)
    return class_names[label] if known and class_names else str(label)


def _class_handle(slot: int, label: str) -> Line2D:
    marker, colour = divmod(slot, len(style.PALETTE))
    return Line2D([], [], linestyle="", marker=style.MARKERS[marker], markersize=6,
                  color=style.PALETTE[colour], label=label)  # fmt: skip


def _by_value(figure: Figure, ax: Axes, points: Array, values: Array, name: str) -> None:
    """Colour by a number, with a bar; a point whose number is not finite is pale."""
    low, high = style.robust_range(values, values, 0.005)
    norm = Normalize(low, high)
    known = np.isfinite(values)
    _draw_points(ax, points[~known], style.PALE)
    _draw_points(ax, points[known], style.VALUE_MAP(norm(values[known])))
    below, above = (values < low).any(), (values > high).any()
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    bar = figure.colorbar(ScalarMappable(norm, style.VALUE_MAP), ax=ax,
                          extend=extend[int(below), int(above)])  # fmt: skip
    bar.set_label(name, fontsize=style.LABEL_SIZE)
    bar.ax.tick_params(labelsize=style.TICK_SIZE)


def _draw_points(ax: Axes, points: Array, colour: object, marker: str = "o") -> None:
    size = float(np.clip(12000 / max(len(points), 1), 4, 36))  # square points a marker
    ax.scatter(points[:, 0], points[:, 1], s=size, c=colour,  # type: ignore[arg-type]
               marker=marker, alpha=0.75, linewidths=0)  # fmt: skip


def _frame_points(ax: Axes, points: Array) -> int:
    """Set both ranges; returns how many points leave them."""
    ranges = [style.robust_range(p, p, 0.005) for p in points.T]
    (left, right), (low, high) = (style.padded(*r) for r in ranges)
    # auto=True: equal scales below may widen the limits
    ax.set_xlim(left, right, auto=True)
    ax.set_ylim(low, high, auto=True)
    sides = sorted([right - left, high - low])
    # Equal scales show the prior round; a very long cloud would shrink to a line.
    if sides[1] < 3 * sides[0]:
        ax.set_aspect("equal", adjustable="datalim")
    inside = (points[:, 0] >= left) & (points[:, 0] <= right)
    inside &= (points[:, 1] >= low) & (points[:, 1] <= high)
    return int((~inside).sum())


def _left_out(broken: int, outside: int, count: int) -> list[str]:
    return [
        f"not finite, left out: {broken} of {count} points" if broken else "",
        f"far outside the picture: {outside} of {count} points" if outside else "",
    ]
