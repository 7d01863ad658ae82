"""Every picture of a finished run: its file, when it fits, and how it is drawn.

PICTURES, at the end, is the list. Nobody has to choose: what fits is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vae_cli import build, figures
from vae_cli.viewer import Viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

TRAVERSED = 16  # latent dimensions, the most active ones
PRIOR_REACH = 3.0  # standard deviations of the prior that a traversal covers
CODE_REACH = 2.0  # of an autoencoder's codes: further out its decoder has seen nothing
PRIOR_SHARE = 0.9  # of the prior's mass, in each dimension, that a manifold covers
CODE_SHARE = 0.95  # of an autoencoder's codes, likewise
STEPS = 9  # of an interpolation, ends included
FRAMES = 24  # of its animation, a leg
EMBEDDED = 1000  # codes in a t-SNE
FEWEST_EMBEDDED = 10
LEAST_VARIANCE = 1e-12  # of codes; with less they are one point and rounding
PERPLEXITY = 30.0
PCA_ABOVE = 50  # dimensions; t-SNE gets slow and noisy in more


def reconstructions(view: Viewer) -> Figure:
    """Test examples, before and after training."""
    config = view.config
    # the same seed, so the weights that the training started from
    untrained = build.vae(config, view.data.shape).to(view.device)
    rows = {
        "before training": Viewer(untrained, view.data, config).reconstructed(),
        "after training": view.reconstructed(),
    }
    return figures.reconstructions(view.shown(view.x), rows, curve_axes=view.axes)


def residuals(view: Viewer) -> Figure:
    """What the reconstruction of a curve gets wrong."""
    return figures.residuals(view.shown(view.x), view.reconstructed(), view.axes)


def samples(view: Viewer) -> Figure:
    """Draws from the prior, decoded."""
    return figures.samples(view.sampled(), curve_axes=view.axes)


def loss_curves(view: Viewer) -> Figure:
    """How training went. An autoencoder's KL is 0 and its ELBO the reconstruction's negative."""
    shown = (
        ("loss", "reconstruction", "kl", "elbo") if view.generative else ("loss", "reconstruction")
    )
    kept = ("epoch", *(f"{split}/{name}" for split in ("train", "val") for name in shown))
    return figures.loss_curves([{k: line[k] for k in kept if k in line} for line in view.history])


def latent_scatter(view: Viewer) -> Figure:
    """Test codes in the plane of two dimensions."""
    first, second = (0, 1) if view.latent_dim == 2 else view.order[:2]
    what = "posterior means" if view.generative else "codes"
    title = f"Latent {what} of {len(view.test):,} test examples"
    if view.latent_dim > 2:
        most = "KL" if view.generative else "variance"
        title += f"\nthe two dimensions of largest {most}, of {view.latent_dim}"
    return figures.latent_scatter(
        view.codes.mean[:, [first, second]],
        view.test.labels,
        view.data.class_names,
        view.test.parameters,
        dims=(first, second),
        title=title,
    )


def tsne(view: Viewer) -> Figure:
    """Test codes of many dimensions, their neighbourhoods kept, in a plane."""
    codes = view.codes.mean[:EMBEDDED]
    labels, parameters = view.test.labels, view.test.parameters or {}
    through = f"\nthrough {PCA_ABOVE} principal components" if view.latent_dim > PCA_ABOVE else ""
    return figures.latent_scatter(
        embedded(codes),
        None if labels is None else labels[:EMBEDDED],
        view.data.class_names,
        {name: number[:EMBEDDED] for name, number in parameters.items()},
        axis_names=("t-SNE 1", "t-SNE 2"),
        title=f"t-SNE of {len(codes):,} test codes of {view.latent_dim} dimensions{through}",
    )


def embedded(codes: Tensor) -> Tensor:
    """t-SNE of codes (van der Maaten & Hinton 2008). [N, Z] -> [N, 2]."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = codes.double().numpy()
    if points.shape[1] > PCA_ABOVE < len(points):
        points = PCA(PCA_ABOVE, random_state=0).fit_transform(points)
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    return torch.from_numpy(plane)


def manifold(view: Viewer) -> Figure:
    """What the plane of two latent dimensions decodes to."""
    size, chosen = view.config.manifold_size, view.config.manifold_range
    if chosen is not None:
        across = up = torch.linspace(chosen[0], chosen[1], size)
        how = ""
    elif view.generative:
        tail = (1 - PRIOR_SHARE) / 2
        # even steps in probability: every cell stands for as many samples as the next
        across = up = torch.special.ndtri(torch.linspace(tail, 1 - tail, size))
        how = ", at quantiles of the prior"
    else:
        tail = (1 - CODE_SHARE) / 2
        ends = view.codes.mean.quantile(torch.tensor([tail, 1 - tail]), dim=0).T
        across, up = (torch.linspace(low, high, size) for low, high in ends.tolist())
        how = f", over the central {CODE_SHARE:.0%} of the test codes"
    plane = torch.cartesian_prod(up, across).flip(-1)  # row by row, the first code fastest
    return figures.manifold(
        view.decoded(plane), across, up, view.axes, title=f"Decoded manifold{how}"
    )


def traversals(view: Viewer) -> Figure:
    """One dimension after the other, the most active first."""
    dims = view.order[:TRAVERSED]
    if view.generative:
        values = torch.linspace(-PRIOR_REACH, PRIOR_REACH, 13)
        centre, scale = torch.zeros(view.latent_dim), torch.ones(view.latent_dim)
        title, value_name = "Traversals through the prior mean", "value of the code"
    else:
        values = torch.linspace(-CODE_REACH, CODE_REACH, 9)
        scale, centre = torch.std_mean(view.codes.mean, dim=0, unbiased=False)
        title, value_name = "Traversals through the mean code", "standard deviations of the code"
    if view.latent_dim > len(dims):
        title += f": the {len(dims)} most active of {view.latent_dim} dimensions"
    z = centre.repeat(len(dims), len(values), 1)  # [D, S, Z]
    for row, dim in enumerate(dims):
        z[row, :, dim] += values * scale[dim]
    kl = view.found.kl[dims] if view.generative else None
    return figures.traversals(
        view.decoded(z), values, dims, kl, view.axes, value_name=value_name, title=title
    )


def interpolation(view: Viewer) -> Figure:
    """Straight lines between the codes of test examples."""
    stops, names = _stops(view)
    what = "classes" if view.test.labels is not None else "test examples"
    title = f"Interpolation between {what}"
    return figures.interpolation(view.decoded(_legs(stops, STEPS)), names, view.axes, title)


def interpolation_frames(view: Viewer) -> list[Image]:
    """The same, there and back."""
    stops, names = _stops(view)
    walk = _legs(stops, FRAMES)
    joined = torch.cat([*(leg[:-1] for leg in walk), walk[-1, -1:]])  # a stop is met once
    title = f"From {names[0]} to {names[-1]}".replace("\n", ", ")
    return figures.animation_frames(view.decoded(joined), view.axes, title)


def code_histograms(view: Viewer) -> Figure:
    """Each dimension's codes against the prior."""
    codes, order = view.codes, view.order
    return figures.code_histograms(codes.mean[:, order], codes.stddev[:, order], order)


def kl_bars(view: Viewer) -> Figure:
    """How much each dimension tells about an example."""
    order = view.order
    return figures.kl_bars(view.found.kl[order], view.found.active[order], order)


def _stops(view: Viewer) -> tuple[Tensor, list[str]]:
    """Codes [L + 1, Z] between which to interpolate, of test examples, and their names."""
    labels, parameters = view.test.labels, view.test.parameters
    chosen = view.config.interpolate
    if labels is None and chosen is not None:
        raise ValueError(f"interpolate={chosen}: the data has no labels")
    present = [] if labels is None else labels.unique().tolist()
    chosen = chosen or present[:2]
    if labels is None or len(chosen) < 2:
        index = list(range(min(2, len(view.test))))
        names = [_example_name(i, parameters) for i in index]
    else:
        missing = [label for label in chosen if label not in present]
        if missing:
            raise ValueError(f"interpolate={chosen}: no test example has the label {missing[0]}")
        index = [int((labels == label).nonzero()[0]) for label in chosen]
        classes = view.data.class_names
        names = [classes[c] if c < len(classes) else str(c) for c in chosen]
    return view.codes.mean[index], names


def _example_name(i: int, parameters: dict[str, Tensor] | None) -> str:
    if not parameters:
        return f"test example {i}"
    return "\n".join(f"{name} = {float(number[i]):.2f}" for name, number in parameters.items())


def _legs(stops: Tensor, steps: int) -> Tensor:
    """Straight lines from stop to stop. [L + 1, Z] -> [L, steps, Z]."""
    share = torch.linspace(0, 1, steps)[:, None]
    return torch.lerp(stops[:-1, None], stops[1:, None], share)


# ---------------------------------------------------------------------------------------- the list


def _always(view: Viewer) -> bool:
    return True


def _variational(view: Viewer) -> bool:
    return view.generative


def _curves(view: Viewer) -> bool:
    return view.data.curves is not None


def _plane(view: Viewer) -> bool:
    return view.latent_dim == 2


def _two_examples(view: Viewer) -> bool:
    return len(view.test) >= 2


def _embeddable(view: Viewer) -> bool:
    varies = bool(view.found.mean_variance.max() > LEAST_VARIANCE)
    return view.latent_dim > 2 and len(view.test) >= FEWEST_EMBEDDED and varies


class Picture(NamedTuple):
    """A file in `figures/`, whether it fits, and what draws it: a figure, or frames for a GIF."""

    file: str
    fits: Callable[[Viewer], bool]
    make: Callable[[Viewer], Figure | list[Image]]


PICTURES = (
    Picture("loss_curves.png", lambda view: len(view.history) > 0, loss_curves),
    Picture("reconstructions.png", _always, reconstructions),
    Picture("residuals.png", _curves, residuals),
    Picture("samples.png", _variational, samples),
    Picture("latent_scatter.png", lambda view: view.latent_dim >= 2, latent_scatter),
    Picture("manifold.png", _plane, manifold),
    Picture("traversals.png", _always, traversals),
    Picture("interpolation.png", _two_examples, interpolation),
    Picture("interpolation.gif", _two_examples, interpolation_frames),
    Picture("code_histograms.png", _variational, code_histograms),
    Picture("kl_bars.png", _variational, kl_bars),
    Picture("tsne.png", _embeddable, tsne),
)
