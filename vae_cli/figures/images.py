"""Examples side by side, images or curves: reconstructions and samples, of one model or several."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae_cli.figures import curves, mosaic, style, tiles
from vae_cli.figures.curves import CurveAxes

MAX_EXAMPLES = 16


def reconstructions(
    originals: Tensor,
    rows: Mapping[str, Tensor],
    curve_axes: CurveAxes | None = None,
    title: str = "Reconstructions",
) -> Figure:
    """Originals [N,*shape] and what was made of them, `rows` = label -> [N,*shape].

    Images: originals in the top row, a labelled row per entry. Curves: a panel per example, all
    versions overlaid. The first MAX_EXAMPLES examples are shown.
    """
    if "original" in rows:
        raise ValueError('the row label "original" belongs to the originals')
    for label, made in rows.items():
        tiles.check_same(label, made.shape, originals.shape)
    images = tiles.is_images(originals)
    count = min(len(originals), MAX_EXAMPLES)
    shown = f"first {count} of {len(originals)}" if count < len(originals) else ""
    versions = {"original": originals[:count]} | {k: v[:count] for k, v in rows.items()}
    if images:
        return _image_rows(versions, shown, title)
    return _curve_panels(versions, curve_axes, shown, title)


def samples(
    x: Tensor, curve_axes: CurveAxes | None = None, title: str = "Samples from the prior"
) -> Figure:
    """Samples [N,*shape]: images in a grid near square, curves in one axes."""
    if tiles.is_images(x):
        made = mosaic.mosaic(x, _columns(len(x), x.shape[-2] / x.shape[-1]))
        style.set_title(made.figure, title, [made.note])
        return made.figure
    grid, x_label, y_label = curves.axes_or_index(curve_axes, x.shape[1])
    figure, (ax,) = style.panels(1, 1, (6.4, 4.0))
    values = style.finite_array(x)
    for i, y in enumerate(values):
        colour = style.PALETTE[i % len(style.PALETTE)]
        curves.draw_curve(ax, grid, y, color=colour, linewidth=1.1, alpha=0.85)
    leaving = curves.frame_curves(ax, grid, values)
    style.name_axes(ax, x_label, y_label)
    style.set_title(figure, title, [curves.leaving_note(leaving, len(values))])
    return figure


def samples_of_models(
    rows: Mapping[str, Tensor], curve_axes: CurveAxes | None = None, title: str = "Prior samples"
) -> Figure:
    """Prior samples of several models, label -> [N,*shape]: a row of images or a panel of curves
    for each."""
    drawn = list(rows.values())
    if tiles.is_images(drawn[0]):
        grid = mosaic.mosaic(torch.cat(drawn), len(drawn[0]), left=mosaic.label_inches(list(rows)))
        mosaic.row_labels(grid.axes, grid.y_centres, list(rows))
        style.set_title(grid.figure, title, [grid.note])
        return grid.figure
    figure, axes, columns = style.small_panels(len(rows))
    x, x_label, y_label = curves.axes_or_index(curve_axes, drawn[0].shape[1])
    everything = np.concatenate([style.finite_array(made) for made in drawn])
    leaving = 0
    for ax, (label, made) in zip(axes, rows.items(), strict=True):
        for i, y in enumerate(style.finite_array(made)):
            colour = style.PALETTE[i % len(style.PALETTE)]
            curves.draw_curve(ax, x, y, color=colour, linewidth=1.0, alpha=0.85)
        leaving = curves.frame_curves(ax, x, everything)
        ax.set_title(label, fontsize=style.PANEL_SIZE)
    style.outer_names(axes, columns, x_label, y_label)
    style.set_title(figure, title, [curves.leaving_note(leaving, len(everything))])
    return figure


def _columns(count: int, ratio: float) -> int:
    """Columns that make a picture of `count` tiles near square; full rows where there is a way.

    ratio: a tile's height by its width; wide tiles need fewer columns.
    """
    square = math.sqrt(count * ratio)
    full = [c for c in range(1, count + 1) if count % c == 0 and 0.6 < c / square < 1.6]
    return min(full, key=lambda c: abs(c - square), default=min(math.ceil(square), count))


def _image_rows(versions: Mapping[str, Tensor], shown: str, title: str) -> Figure:
    labels = list(versions)
    stacked = torch.cat([v.detach().cpu().float() for v in versions.values()])
    below = style.NOTE_HEIGHT if shown else 0.1
    made = mosaic.mosaic(
        stacked, len(versions["original"]), left=mosaic.label_inches(labels), below=below
    )
    mosaic.row_labels(made.axes, made.y_centres, labels)
    style.set_title(made.figure, title, [shown, made.note])
    return made.figure


def _curve_panels(
    versions: Mapping[str, Tensor], curve_axes: CurveAxes | None, shown: str, title: str
) -> Figure:
    drawn = np.stack([style.finite_array(v) for v in versions.values()])  # [V,N,P]
    x, x_label, y_label = curves.axes_or_index(curve_axes, drawn.shape[-1])
    count = drawn.shape[1]
    figure, axes, columns = style.small_panels(count)
    leaving = 0
    for i, ax in enumerate(axes):
        leaving += curves.overlay(ax, x, drawn[0, i], list(drawn[1:, i]))
    style.outer_names(axes, columns, x_label, y_label)
    curves.legend_below(figure, axes[0], list(versions))
    note = curves.leaving_note(leaving, len(versions) * count)
    style.set_title(figure, title, [shown, note])
    return figure
