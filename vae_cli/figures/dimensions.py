"""What each latent dimension does: histograms of its code, and its share of the KL."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from vae_cli.figures import curves, style, tiles
from vae_cli.figures.style import Array

MAX_HISTOGRAMS = 16
MIXTURE_EXAMPLES = 2000  # enough for a smooth aggregate posterior
PRIOR_REACH = 4.0  # the prior's density is drawn to four standard deviations
TALLEST = 1.2  # three times the prior's peak: a collapsed code is a spike and must not flatten it


def code_histograms(
    means: Tensor,
    stddevs: Tensor | None = None,
    dims: Sequence[int] | None = None,
    title: str = "Codes against the prior",
) -> Figure:
    """Histogram of the posterior means [N,Z] of each dimension, the N(0,1) density over it.

    With stddevs [N,Z] also the aggregate posterior, the mean over examples of N(mean, stddev^2):
    it, not the histogram, should match the prior. `dims` names the columns (0, 1, ... when
    None). The first MAX_HISTOGRAMS columns are shown.
    """
    z = means.shape[1]
    tiles.check_same("dims", (len(dims or range(z)),), (z,))
    if stddevs is not None:
        tiles.check_same("stddevs", stddevs.shape, means.shape)
    count = min(z, MAX_HISTOGRAMS)
    figure, axes, columns = style.small_panels(count)
    centre = style.finite_array(means[:, :count])
    spread = None if stddevs is None else style.finite_array(stddevs[:, :count])
    cut = 0
    for i, ax in enumerate(axes):
        cut += _histogram(ax, centre[:, i], None if spread is None else spread[:, i])
        ax.set_title(style.code_name(i if dims is None else dims[i]), fontsize=style.PANEL_SIZE)
    style.outer_names(axes, columns, "code", "density")
    names = ["N(0, 1)"] + ([] if spread is None else ["aggregate posterior"])
    bars = Patch(color=style.PALETTE[0], alpha=0.55, label="posterior means")
    figure.legend([bars, *axes[0].get_lines()], ["posterior means", *names],
                  loc="outside lower center", ncols=3, frameon=False,
                  fontsize=style.TICK_SIZE)  # fmt: skip
    shown = f"first {count} of {z} dimensions" if count < z else ""
    note = f"in {cut} of {count} panels something runs out of the picture" if cut else ""
    style.set_title(figure, title, [shown, note])
    return figure


def kl_bars(
    kl: Tensor,
    active: Tensor,
    dims: Sequence[int] | None = None,
    title: str = "KL of each latent dimension",
) -> Figure:
    """Bars of kl [Z] in nats per example in the order given, active [Z] (bool) by colour.

    `dims` names the bars; without it they are numbered by their place. NaN is an empty place.
    """
    tiles.check_same("active", active.shape, kl.shape)
    z = len(kl)
    tiles.check_same("dims", (len(dims or range(z)),), (z,))
    on = active.detach().cpu().bool().numpy()
    figure, (ax,) = style.panels(1, 1, (min(style.MAX_WIDTH, 3.0 + 0.25 * z), 3.4))
    colours = [style.PALETTE[0] if a else style.PALE for a in on]
    ax.bar(np.arange(z), np.nan_to_num(style.finite_array(kl)), color=colours, width=0.8)
    side = 0.75 + max(0.0, (5 - z) / 2)  # a lone bar would fill the picture
    ax.set_xlim(-side, z - 1 + side)
    shown = range(0, z, math.ceil(z / 32))
    names = [style.code_name(i if dims is None else dims[i]) for i in shown]
    ax.set_xticks(shown, names, rotation=90 if z > 12 else 0)
    legend = [
        Patch(color=style.PALETTE[0], label=f"active units: {int(on.sum())} of {z}"),
        Patch(color=style.PALE, label="inactive"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=2, frameon=False,
                  fontsize=style.TICK_SIZE)  # fmt: skip
    style.name_axes(ax, "latent dimension", f"KL [{style.NATS}]")
    style.set_title(figure, title)
    return figure


def _histogram(ax: Axes, means: Array, stddevs: Array | None) -> bool:
    """Draw one dimension; returns whether something is cut at a side or at the top."""
    finite = means[np.isfinite(means)]
    low, high = style.robust_range(finite, finite, 0.005)
    low, high = min(low, -PRIOR_REACH), max(high, PRIOR_REACH)
    x = np.linspace(low, high, 300)
    tallest = 0.0
    if finite.size:
        edges = np.linspace(low, high, 41)
        counts = np.histogram(finite, edges)[0]
        heights = counts / (finite.size * np.diff(edges))
        ax.stairs(heights, edges, fill=True, color=style.PALETTE[0], alpha=0.55)
        tallest = float(heights.max())
    curves.draw_curve(ax, x, _normal(x, 0.0, 1.0), color=style.INK)
    if stddevs is not None:
        mixed = _aggregate(x, means, stddevs)
        curves.draw_curve(ax, x, mixed, color=style.PALETTE[6], linestyle="--")
    # A very wide code has a low histogram: then the prior's spike is what must give way.
    top = 1.3 * tallest if 0 < tallest < 0.05 else float(np.clip(1.1 * tallest, 0.45, TALLEST))
    ax.set(xlim=(low, high), ylim=(0, top))
    return bool(tallest > top or top < 0.4 or (finite < low).any() or (finite > high).any())


def _aggregate(x: Array, means: Array, stddevs: Array) -> Array:
    """Mean density [P] of N(mean, stddev^2) over the examples whose two numbers are usable."""
    usable = np.flatnonzero(np.isfinite(means) & (stddevs > 0))
    if usable.size == 0:
        return np.full_like(x, np.nan)
    chosen = usable[style.few(usable.size, MIXTURE_EXAMPLES)]
    # A posterior narrower than the grid would fall between its points and vanish.
    spread = np.maximum(stddevs[chosen], x[1] - x[0])
    return np.asarray(_normal(x[:, None], means[chosen], spread).mean(axis=1))


def _normal(x: Array, mean: Array | float, stddev: Array | float) -> Array:
    scaled = (x - mean) / stddev
    return np.asarray(np.exp(-0.5 * scaled**2) / (stddev * np.sqrt(2 * np.pi)))
