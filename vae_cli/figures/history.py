"""How training went: metrics over the epochs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vae_cli.figures import style
from vae_cli.figures.style import Array

PANELS = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL", "elbo": "ELBO"}
SPLITS = {"train": (style.PALETTE[0], "-"), "val": (style.PALETTE[6], "--")}


def loss_curves(history: Sequence[Mapping[str, float]], title: str = "Training history") -> Figure:
    """Loss, reconstruction, KL and ELBO over the epochs: a panel for each that was logged.

    Each mapping is one epoch: "epoch", "train/loss", "val/kl", ... in nats per example. A split
    or a metric that is missing draws nothing, NaN and inf are gaps.
    """
    logged = {key.partition("/")[2] for entry in history for key in entry}
    metrics = [m for m in PANELS if m in logged] or ["loss"]
    figure, axes = style.panels(len(metrics), 2 if len(metrics) == 4 else 3, (3.6, 2.8))
    epochs = np.array([e.get("epoch", i + 1) for i, e in enumerate(history)], dtype=np.float64)
    drawn: dict[str, Line2D] = {}
    far = 0
    for ax, metric in zip(axes, metrics, strict=True):
        series = {split: _series(history, f"{split}/{metric}") for split in SPLITS}
        for split, y in series.items():
            if np.isfinite(y).any():
                drawn[split] = _line(ax, epochs, y, *SPLITS[split])
        far += _frame(ax, epochs, np.concatenate(list(series.values())))
        style.name_axes(ax, "epoch", style.NATS, PANELS[metric])
    if drawn:
        figure.legend(list(drawn.values()), list(drawn), loc="outside lower center", ncols=2,
                      fontsize=style.LABEL_SIZE, frameon=False)  # fmt: skip
    note = f"{far} values far from the others lie outside the panels" if far else ""
    note = note if drawn else "nothing was logged"
    style.set_title(figure, title, [note])
    return figure


def _series(history: Sequence[Mapping[str, float]], key: str) -> Array:
    values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _line(ax: Axes, epochs: Array, y: Array, colour: str, dashes: str) -> Line2D:
    # Validation may come every few epochs: the line goes through those it has. One that was
    # logged and is not finite looks the same here; its neighbours tell.
    marker = "o" if np.isfinite(y).sum() <= 20 else ""
    (line,) = ax.plot(epochs, y, color=colour, linestyle=dashes, linewidth=style.LINE_WIDTH,
                      marker=marker, markersize=3.5)  # fmt: skip
    return line


def _frame(ax: Axes, epochs: Array, values: Array) -> int:
    """Ranges that the first epochs or a spike do not blow up; returns the values outside."""
    low, high = style.robust_range(values, values, 0.1)
    ax.set_ylim(*style.padded(low, high))
    if epochs.size:
        ax.set_xlim(*style.padded(float(epochs.min()), float(epochs.max()), 0.03))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return int(((values < low) | (values > high)).sum())
