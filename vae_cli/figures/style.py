"""One look for every picture: colours, sizes, figures, titles, and numbers out of tensors."""

import math
import textwrap
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

Array = npt.NDArray[np.float64]

# Ten colours that people with colour-vision deficiency tell apart: Petroff 2021, arXiv:2107.02270
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#94a4a2",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = ("o", "^", "s", "D")  # colour times marker: forty classes
LINE_STYLES = ("-", "--", "-.", ":")
INK = "#222222"
QUIET = "#6b6b6b"  # notes and secondary text
PALE = "#c9ccd1"  # guides, cells, whatever is missing
NOT_FINITE_COLOUR = (0.80, 0.47, 0.65)  # no grey level, so a NaN pixel cannot pass for data
GREY_MAP: Colormap = matplotlib.colormaps["gray"]  # 0 is black, as in the tutorials
# viridis without its last tenth: thin yellow lines vanish on white paper
VALUE_MAP: Colormap = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))

DPI = 120
TITLE_SIZE, PANEL_SIZE, LABEL_SIZE, TICK_SIZE, NOTE_SIZE = 12.0, 10.0, 10.0, 8.5, 8.5
LINE_WIDTH = 1.5
MAX_WIDTH, MAX_HEIGHT, MIN_WIDTH = 10.0, 10.0, 4.8  # inches
TITLE_HEIGHT, NOTE_HEIGHT = 0.45, 0.3
NATS = "nats per example"
RANGE_REACH = 3.0  # a value further out than this many typical spans leaves the picture


def finite_array(x: Tensor) -> Array:
    """A float64 copy on the host, inf turned into NaN: matplotlib draws both as gaps then."""
    # cpu first: some devices have no float64
    values = x.detach().cpu().to(torch.float64, copy=True)
    values[~values.isfinite()] = math.nan
    return values.numpy()


def code_name(dim: int) -> str:
    """Name of latent dimension `dim`, an index from 0: the first one is z1."""
    return f"z{dim + 1}"


def number(value: float, digits: int = 3, scale: float = 0.0) -> str:
    """A short number with a true minus sign, as matplotlib writes its ticks.

    What is tiny beside `scale` is zero: linspace(-3, 3, 15) has -3e-8 in its middle.
    """
    shown = 0.0 if abs(value) <= 1e-5 * scale else value
    return f"{shown:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def text_inches(texts: Sequence[str], size: float) -> float:
    """About how wide the longest line of the texts is: a character has 0.6 of its size."""
    return max(len(line) for text in texts for line in text.split("\n")) * 0.6 * size / 72


def wrapped(text: str, width: float, size: float) -> str:
    """The text broken into lines of at most `width` inches, where words allow it."""
    columns = max(1, int(width / text_inches(["m"], size)))
    return "\n".join(textwrap.fill(line, columns) for line in text.splitlines())


def new_figure(
    width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty figure with its own Agg canvas; sizes in inches. No pyplot, no global state."""
    figure = Figure(figsize=(max(width, MIN_WIDTH), height), dpi=DPI, facecolor="white")
    figure.set_layout_engine(layout, w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """`count` axes, filled row by row; `size` is one panel's width and height in inches."""
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    figure = new_figure(columns * size[0], rows * size[1] + TITLE_HEIGHT)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for ax in axes:
        plain_axes(ax)
    return figure, axes


def small_panels(count: int) -> tuple[Figure, list[Axes], int]:
    """At most four small panels a row, the rows as even as can be; also the columns."""
    columns = math.ceil(count / math.ceil(count / 4))
    width = max(2.3, MIN_WIDTH / columns)
    figure, axes = panels(count, columns, (width, min(3.0, 0.82 * width)))
    return figure, axes, columns


def outer_names(axes: Sequence[Axes], columns: int, x_label: str, y_label: str) -> None:
    """Name the x axis under the lowest panels and the y axis left of the leftmost ones."""
    for i, ax in enumerate(axes):
        lowest, leftmost = i + columns >= len(axes), i % columns == 0
        name_axes(ax, x_label if lowest else "", y_label if leftmost else "")


def plain_axes(ax: Axes) -> None:
    """Ticks of the common size and no box on the open sides."""
    ax.tick_params(labelsize=TICK_SIZE)
    ax.xaxis.get_offset_text().set_fontsize(TICK_SIZE)
    ax.yaxis.get_offset_text().set_fontsize(TICK_SIZE)
    ax.spines[["top", "right"]].set_visible(False)


def set_title(figure: Figure, title: str, notes: Sequence[str] = ()) -> None:
    """Title above and, small below, what the reader must know; both wrapped to the width.

    Comes after the figure's legend, if it has one.
    """
    width = figure.get_figwidth()
    figure.suptitle(wrapped(title, width, TITLE_SIZE), fontsize=TITLE_SIZE, color=INK)
    said = "; ".join(note for note in notes if note)
    if said and figure.legends:
        # Layout would put both at the lower edge, one over the other.
        legend = figure.legends[0]
        legend.set_title(wrapped(said, width, NOTE_SIZE))
        legend.get_title().set(color=QUIET, fontsize=NOTE_SIZE, multialignment="center")
    elif said:
        figure.supxlabel(wrapped(said, width, NOTE_SIZE), fontsize=NOTE_SIZE, color=QUIET)


def name_axes(ax: Axes, x_label: str = "", y_label: str = "", title: str = "") -> None:
    """Names of one axes at the common sizes; an empty one is left out."""
    ax.set_xlabel(x_label, fontsize=LABEL_SIZE)
    ax.set_ylabel(y_label, fontsize=LABEL_SIZE)
    if title:
        ax.set_title(title, fontsize=PANEL_SIZE)


def robust_range(
    lows: Array, highs: Array, quantile: float, trusted: int | None = None
) -> tuple[float, float]:
    """The range that holds every interval [low, high] except ends that are far out.

    Far out is more than RANGE_REACH typical spans away from the typical ends, which are the
    `quantile` of the lows and the 1 - `quantile` of the highs, taken over the first `trusted`
    intervals (all of them when None). NaN is ignored; without a finite number: (0, 1).
    """
    first = slice(trusted)
    typical_lows, typical_highs = _finite(lows[first]), _finite(highs[first])
    lows, highs = _finite(lows), _finite(highs)
    if lows.size == 0:
        return 0.0, 1.0
    if typical_lows.size == 0:
        typical_lows, typical_highs = lows, highs
    low = float(np.quantile(typical_lows, quantile, method="higher"))
    high = float(np.quantile(typical_highs, 1 - quantile, method="lower"))
    reach = RANGE_REACH * (high - low)
    if reach <= 0:  # constant, or too few values to tell which one is odd
        return float(lows.min()), float(highs.max())
    return float(lows[lows >= low - reach].min()), float(highs[highs <= high + reach].max())


def padded(low: float, high: float, share: float = 0.05) -> tuple[float, float]:
    """The range with a margin; never empty, which matplotlib would warn about."""
    margin = share * (high - low) or 0.1 * abs(low) or 0.5
    return low - margin, high + margin


def few(count: int, most: int) -> list[int]:
    """At most `most` indices out of `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]
