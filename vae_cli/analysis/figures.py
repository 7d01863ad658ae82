"""Draw examples as tiles or lines, a run's history and codes. Here is the look of all pictures.

Functions return matplotlib figures, which `export` writes. Images [C, H, W] hold values from 0
to 1; of channels other than 1 and 3 the first is drawn.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vae_cli.analysis.export import Picture, tile_grid
from vae_cli.analysis.measures import most_active, order
from vae_cli.analysis.trained import TrainedRun
from vae_cli.data.dataset import Curves
from vae_cli.runs.saved import read_metrics
from vae_cli.training.evaluation import ACTIVE_VARIANCE, Codes

# ten colours that people with colour-vision deficiency tell apart: Petroff 2021, arXiv:2107.02270
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#94a4a2",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
INK, PALE = "#222222", "#c9ccd1"
# viridis without its last tenth: thin yellow lines vanish on white paper
SHADES = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))
TRAVERSED = 16  # latent dimensions in a picture, the most active ones
POINTS, EMBEDDED = 10_000, 1000  # codes in a scatter plot; in a t-SNE and in the projector
LEGEND, NUMBERED = 40, 20  # classes in a legend; with a name on the cloud of their codes


def panels(
    count: int, columns: int, size: tuple[float, float], title: str, x_name: str, y_name: str
) -> tuple[Figure, list[Axes]]:
    """Make `count` axes of `size` inches (width, height), row by row, with names at two sides."""
    rows, columns = math.ceil(count / columns), min(columns, count)
    figure = Picture((columns * size[0], rows * size[1] + 0.4), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for i, ax in enumerate(axes):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        ax.set_xlabel(x_name if i >= count - columns else "")
    figure.supylabel(y_name, fontsize=10)
    figure.suptitle(title, fontsize=12)
    return figure, axes


def spread(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` places, evenly, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()})


def sheet(
    x: Tensor,
    title: str,
    curves: Curves | None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    along: str = "",
) -> Figure:
    """Draw a table of examples [R, C, *shape] with names of its rows and columns.

    Images: a tile each. Curves: a panel for each row, a line for each column. along: what changes
    along a row and colours the curves. Without it columns are versions of one example, and the
    first of them sets the y range.
    """
    if x.ndim == 5:
        return _image_sheet(x, title, rows, columns, along)
    values, grid = x.detach().cpu().double().numpy(), np.arange(x.shape[-1])
    names = ("index", "value") if curves is None else (curves.x_label, curves.y_label)
    if curves is not None:
        grid, values = curves.grid.cpu().numpy(), np.exp(values) if curves.logarithms else values
    count, lines = values.shape[:2]
    figure, axes = panels(count, 4, (6.4, 4.0) if count == 1 else (2.6, 2.1), title, *names)
    colours: Any = (INK, PALETTE[1], PALETTE[0]) if columns else PALETTE
    colours = SHADES(np.linspace(0, 1, lines)) if along else colours
    for i, ax in enumerate(axes):
        for j, line in enumerate(values[i]):
            ax.plot(grid, line, color=colours[j % len(colours)], linewidth=1.4)
        seen = values if along else values[i, : 1 if columns else None]
        low, high = np.nanmin(seen), np.nanmax(seen)
        if curves is not None:  # a Beta density can be a hundred times higher at an end
            high = min(high, 1.5 * np.nanquantile(seen, 0.98))
        margin = 0.05 * (high - low) or 0.5
        ax.set_ylim(low - margin, high + margin)
        ax.set_title("".join(rows[i : i + 1]), fontsize=9)
    if along:
        bar = figure.colorbar(ScalarMappable(Normalize(0, lines - 1), SHADES), ax=axes)
        bar.set_label(along, fontsize=9)
        ticks = spread(lines, 6)
        bar.set_ticks(ticks, labels=[columns[i] for i in ticks], fontsize=8)
    elif columns:
        figure.legend(axes[0].get_lines(), columns, loc="outside lower center", ncols=4)
    return figure


def _image_sheet(
    x: Tensor, title: str, rows: Sequence[str], columns: Sequence[str], along: str
) -> Figure:
    """Draw a table of images [R, C, channels, H, W] in one axes, names at its left and below."""
    picture = tile_grid(x).permute(1, 2, 0).numpy()
    down, right = picture.shape[0] / len(x), picture.shape[1] / x.shape[1]  # from tile to tile
    inch = min(9 / max(picture.shape), 1.2 / max(down, right))  # of a pixel
    figure = Picture((inch * picture.shape[1], inch * picture.shape[0]))
    ax = figure.add_axes((0, 0, 1, 1))  # names lie outside; `render` makes room for them
    ax.imshow(picture, interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for axis, step, names, room in ((ax.xaxis, right, columns, 0.5), (ax.yaxis, down, rows, 0.2)):
        places = spread(len(names), max(2, int(inch * step * len(names) / room))) if names else []
        axis.set_ticks([step * (i + 0.5) for i in places], [names[i] for i in places])
    ax.set(xlabel=along, title=title)
    return figure


def loss_curves(run: TrainedRun) -> Figure:
    """Draw metrics in nats over the epochs, a panel each, and which epoch's weights are kept."""
    # an autoencoder's KL is 0 and its ELBO the reconstruction's negative
    metrics = ("loss", "reconstruction", "kl", "elbo")[: 4 if run.config.is_generative else 2]
    title, history = "Training history", read_metrics(run.folder)
    figure, axes = panels(len(metrics), 2, (3.6, 2.7), title, "epoch", "nats per example")
    for ax, metric in zip(axes, metrics, strict=True):
        for split, colour in (("train", PALETTE[0]), ("val", PALETTE[6])):
            values = [line.get(f"{split}/{metric}", math.nan) for line in history]
            ax.plot([line["epoch"] for line in history], values, ".-", color=colour, label=split)
        ax.axvline(run.epoch, color=INK, linewidth=1, linestyle=":", label="best epoch")
        ax.set_title(metric.upper() if metric in ("kl", "elbo") else metric, fontsize=10)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0].legend(fontsize=8, loc="upper right")
    return figure


def scatter(run: TrainedRun, points: Tensor, title: str, x_name: str, y_name: str) -> Figure:
    """Draw codes of the first test examples [N, 2], a panel for each thing known of them.

    Curves' parameters get a colour bar, classes a legend.
    """
    count, names, (x, y) = len(points), run.data().class_names, points.double().numpy().T
    known = run.data().test.known or {"example": torch.arange(count).float()}
    size = (6.4, 5.0) if len(known) == 1 else (4.6, 3.8)
    figure, axes = panels(len(known), 3, size, title, x_name, y_name)
    how: dict[str, Any] = {"s": min(36.0, max(4.0, 12000 / count)), "linewidths": 0}
    how["alpha"] = 0.75 if count < 5000 else 0.45
    for ax, (name, every) in zip(axes, known.items(), strict=True):
        values = every[:count].cpu()
        if values.is_floating_point():
            drawn = ax.scatter(x, y, c=values.numpy(), cmap=SHADES, **how)
            figure.colorbar(drawn, ax=ax, label=name)
            continue
        colours: Any = PALETTE if values.max() < 10 else colormaps["tab20"](range(20))
        # in the order of the data, so that no class lies over all the others
        ax.scatter(x, y, c=[colours[label % len(colours)] for label in values.tolist()], **how)
        classes = values.unique().tolist()
        for label in classes[:LEGEND]:
            text = names[label] if names else str(label)
            ax.scatter([], [], color=colours[label % len(colours)], label=text)
            if len(classes) <= NUMBERED:  # at the code that is nearest to the middle of the class
                own = points[values == label].double()
                middle = (own - own.median(0).values).norm(dim=1).argmin()
                across, up = own[middle].tolist()
                halo = [withStroke(linewidth=2.5, foreground="white")]
                kind: Any = {"ha": "center", "va": "center", "path_effects": halo}
                ax.text(across, up, text, fontsize=10, fontweight="bold", color=INK, **kind)
        name += f"\n{LEGEND} of {len(classes):,}" if len(classes) > LEGEND else ""
        ax.legend(title=name, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def latent_scatter(run: TrainedRun, codes: Codes | None = None) -> Figure:
    """Draw the two most active dimensions of the test codes, or of codes of the first examples."""
    codes = codes or run.codes
    count, (first, second) = run.vae.latent_dim, sorted(most_active(codes)[:2])
    points = codes.mean[:POINTS, [first, second]]
    title = f"Codes of {len(points):,} test examples"
    which = f"the two of {order(codes).removesuffix(' first')} among {count} dimensions"
    title += f"\n{which}" if count > 2 else ""
    return scatter(run, points, title, f"z{first + 1}", f"z{second + 1}")


def tsne(run: TrainedRun) -> Figure:
    """Put test codes in a plane by t-SNE (van der Maaten & Hinton 2008), repeatably."""
    from sklearn.manifold import TSNE

    means = run.codes.mean[:EMBEDDED].double().numpy()
    perplexity = min(30.0, (len(means) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(means)
    title = f"t-SNE of {len(means):,} test codes of {run.vae.latent_dim} dimensions"
    return scatter(run, torch.from_numpy(plane), title, "t-SNE 1", "t-SNE 2")


def code_histograms(run: TrainedRun) -> Figure:
    """Draw how the codes of each dimension are distributed, beside draws from the prior."""
    dims, mean, seed = most_active(run.codes)[:TRAVERSED], run.codes.mean, run.config.seed
    title = f"Codes against the prior, {order(run.codes)}"
    figure, axes = panels(len(dims), 4, (2.6, 2.0), title, "code", "density")
    parts = [part[:, dims].numpy() for part in (mean, run.codes.drawn)]
    parts.append(run.draw_codes(POINTS, seed)[:, dims].cpu().numpy())
    low, high = np.quantile(np.concatenate(parts), [0.001, 0.999], axis=0)
    # one range, in which a wide dimension looks wide
    ends = (low.min() - 0.3, high.max() + 0.3)
    how: dict[str, Any] = {"bins": 60, "range": ends, "density": True}
    for ax, dim, *columns in zip(axes, dims, *(part.T for part in parts), strict=True):
        ax.hist(columns[0], label="posterior means", color=PALETTE[0], alpha=0.55, **how)
        for i, name, colour in ((1, "aggregate posterior", PALETTE[6]), (2, "prior", INK)):
            heights, _, _ = ax.hist(columns[i], label=name, color=colour, histtype="step", **how)
        ax.set_title(f"z{dim + 1}", fontsize=9)
        # a collapsed code, a spike, must not flatten the prior
        ax.set_ylim(0, 3 * float(np.max(heights)))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def kl_bars(run: TrainedRun) -> Figure:
    """Draw the mean KL of each dimension over the test set, active dimensions in blue."""
    assert run.kl is not None
    dims, active = most_active(run.codes), run.codes.mean.var(0, unbiased=False) > ACTIVE_VARIANCE
    count, colours = len(dims), [PALETTE[0] if active[dim] else PALE for dim in dims]
    title = (
        f"KL of each latent dimension, largest first, {int(active.sum())} of {count} active (blue)"
    )
    size = (min(10.0, 4.5 + 0.25 * count), 3.2)
    figure, (ax,) = panels(1, 1, size, title, "latent dimension", "KL [nats per example]")
    ax.bar(range(count), run.kl[dims].numpy(), color=colours)
    places = spread(count, 32)
    ax.set_xticks(places, [f"z{dims[i] + 1}" for i in places], rotation=90 if count > 12 else 0)
    return figure
