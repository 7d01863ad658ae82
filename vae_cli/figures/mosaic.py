"""Tiles as a figure: colours, separators, and where each tile's centre is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_cli.figures import style
from vae_cli.figures.tiles import paste, shown_channels

TILE_PIXELS = 48  # tiles are enlarged to about this, so that a separator stays thin
SEPARATOR = 3  # pixels between enlarged tiles


class Mosaic(NamedTuple):
    """A figure with one axes that holds all tiles; centres are in data coordinates."""

    figure: Figure
    axes: Axes
    x_centres: list[float]  # a column each, left to right
    y_centres: list[float]  # a row each, top to bottom
    tile_inches: tuple[float, float]  # width and height of a tile with its separator
    note: str  # what the reader must know, "" when nothing


def coloured_tiles(x: Tensor) -> tuple[Tensor, str]:
    """[N,C,H,W] -> RGB [N,3,H,W] in [0,1], and a note. Values are clipped, NaN and inf marked."""
    tiles, note = shown_channels(torch.from_numpy(style.finite_array(x)))
    broken = tiles.isnan().any(dim=1)  # [N,H,W]
    tiles = tiles.nan_to_num().clamp(0, 1)
    if tiles.shape[1] == 1:
        rgb = style.GREY_MAP(tiles[:, 0].numpy())[..., :3]
    else:
        rgb = tiles.permute(0, 2, 3, 1).numpy().copy()
    rgb[broken.numpy()] = style.NOT_FINITE_COLOUR
    if broken.any():
        note = "; ".join(filter(None, [note, "pixels that are NaN or infinite in pink"]))
    return torch.from_numpy(rgb).permute(0, 3, 1, 2), note


def mosaic(
    x: Tensor, columns: int, left: float = 0.2, below: float = 0.1, right: float = 0.2
) -> Mosaic:
    """Tiles [N,C,H,W], row by row from the top left, in one axes without ticks.

    `left`, `below`, `right`: inches that labels on these sides need.
    """
    tiles, note = coloured_tiles(x)
    sides = tiles.shape[-2:]
    scale = max(1, round(min(TILE_PIXELS / min(sides), 10 * TILE_PIXELS / max(sides))))
    tiles = tiles.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    picture = paste(tiles, columns, SEPARATOR).permute(1, 2, 0).numpy()

    inch = _inches_per_pixel(picture.shape, tiles.shape[-2:], len(tiles), left + right)
    height, width = (inch * size for size in picture.shape[:2])
    below += style.NOTE_HEIGHT if note else 0.0
    figure = style.new_figure(
        width + left + right, height + below + style.TITLE_HEIGHT, layout="compressed"
    )
    ax = figure.add_subplot()
    ax.imshow(picture)
    bare_axes(ax)
    x_centres = _centres(columns, tiles.shape[-1])
    y_centres = _centres(math.ceil(len(tiles) / columns), tiles.shape[-2])
    tile_inches = (width / len(x_centres), height / len(y_centres))
    return Mosaic(figure, ax, x_centres, y_centres, tile_inches, note)


def bare_axes(ax: Axes) -> None:
    """No ticks and no frame; labels can still be put at tick positions."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.tick_params(length=0, labelsize=style.TICK_SIZE)
    ax.spines[:].set_visible(False)


def row_labels(ax: Axes, centres: Sequence[float], labels: Sequence[str]) -> None:
    """Name each row at its left."""
    ax.set_yticks(centres, labels, fontsize=style.LABEL_SIZE)


def label_inches(labels: Sequence[str]) -> float:
    """Room that row labels take."""
    return 0.2 + style.text_inches(labels, style.LABEL_SIZE)


def _centres(count: int, size: int) -> list[float]:
    # A pixel's centre has a whole number, so the picture starts at -0.5.
    return [float(c) for c in np.arange(count) * (size + SEPARATOR) + (size - 1) / 2]


def _inches_per_pixel(
    picture: tuple[int, ...], tile: Sequence[int], count: int, beside: float
) -> float:
    largest = 2.4 if count <= 4 else 1.2  # inches a tile
    return min(
        (style.MAX_WIDTH - beside) / picture[1],
        (style.MAX_HEIGHT - style.TITLE_HEIGHT) / picture[0],
        largest / max(tile),
    )
