"""Which pictures a run gets: in TensorBoard while it trains, in `figures/` when it has finished.

`fitting` lists the latter. Inputs and draws from the prior depend on the seed alone, so pictures of
two runs can be laid side by side.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from vae_cli.analysis import figures, measures
from vae_cli.analysis.figures import EMBEDDED, PALETTE, POINTS, TRAVERSED, panels
from vae_cli.analysis.trained import TrainedRun
from vae_cli.console import say
from vae_cli.data.labels import find_example, first_two, labels_of, name_of
from vae_cli.runs.saved import read_metrics
from vae_cli.training.build import fresh_vae
from vae_cli.training.evaluation import Evaluation, evaluating
from vae_cli.training.loop import Observer, Training

log = logging.getLogger(__name__)
Walk = dict[str, Tensor]  # codes and what they decode to, by their names in an npz
Maker = Callable[[TrainedRun], Figure | Tensor]  # of a picture, or of the images of a film


def _again(run: TrainedRun, x: Tensor) -> Tensor:
    """Reconstruct the first test examples, which a conditional model is told the classes of."""
    return run.given(labels_of(run.data(), slice(len(x)))).reconstruct(x)


def _reconstructions(run: TrainedRun) -> Figure:
    # the run's seed, so the weights that the training started from
    untrained = fresh_vae(run.config, run.data()).to(run.device).eval()
    before = TrainedRun(run.folder, run.config, untrained, 0, run.data())
    x, curves = run.examples(10 if run.has_images else 8), run.curves
    table = torch.stack([x, _again(before, x), _again(run, x)])
    names = ("original", "before training", "after training")
    if run.has_images:
        return figures.sheet(table, "Reconstructions", curves, rows=names)
    return figures.sheet(table.transpose(0, 1), "Reconstructions", curves, columns=names)


def _residuals(run: TrainedRun) -> Figure:
    x, title = run.examples(8), "Reconstruction minus original, in the units of the data"
    return figures.sheet((_again(run, x) - x)[:, None], title, None)


def of_class(run: TrainedRun, label: int | None) -> str:
    """The end of a title: which class a conditional model decodes."""
    return f", {run.class_names[label]}" if run.vae.classes and label is not None else ""


def samples(
    run: TrainedRun, z: Tensor, name: str = "the prior", label: int | None = None
) -> tuple[Walk, Figure]:
    """Decode draws z [n, Z] of what has this name. -> z, x [n, *shape], and a picture.

    Of a conditional model: of one class or, without a label, of each class in turn, a column each,
    and the labels [n].
    """
    n, by_class = len(z), run.vae.classes > 0 and label is None
    each = run.in_turn(n) if label is None else run.given(label)
    x, columns = each.decode(z), min(run.vae.classes if by_class else 8, n)
    table = x[: n - n % columns].unflatten(0, (-1, columns))  # full rows only
    names = run.class_names[:columns] if by_class else ()
    title = f"Samples from {name}{of_class(run, label)}"
    walk = {"z": z, "x": x} | ({} if each.labels is None else {"labels": each.labels.expand(n)})
    return walk, figures.sheet(table, title, run.curves, columns=names)


def _loss_curves(run: TrainedRun) -> Figure:
    """Draw metrics in nats over the epochs, in training and validation, a panel each."""
    # an autoencoder's KL is 0 and its ELBO the reconstruction's negative
    metrics = ("loss", "reconstruction", "kl", "elbo")[: 4 if run.config.is_generative else 2]
    title, history = "Training history", read_metrics(run.folder)
    figure, axes = panels(len(metrics), 2, (3.6, 2.7), title, "epoch", "nats per example")
    for ax, metric in zip(axes, metrics, strict=True):
        for split, colour in (("train", PALETTE[0]), ("val", PALETTE[6])):
            values = [line.get(f"{split}/{metric}", math.nan) for line in history]
            ax.plot([line["epoch"] for line in history], values, ".-", color=colour, label=split)
        ax.set_title(metric.upper() if metric in ("kl", "elbo") else metric, fontsize=10)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0].legend(fontsize=8)
    return figure


def _manifold(run: TrainedRun) -> Figure:
    size, chosen = run.config.manifold_size, run.config.manifold_range
    if chosen is not None:
        values, where = torch.linspace(chosen[0], chosen[1], size)[:, None].expand(-1, 2), ""
    else:  # even steps in probability: every cell stands for as many codes as the next
        points, where = run.codes.mean, ", at quantiles of the test codes"
        if run.config.samples_prior:
            points, where = run.draw_codes(POINTS, run.config.seed), ", at quantiles of the prior"
        values = points.cpu().quantile(torch.linspace(0.05, 0.95, size), dim=0)
    across, up = values[:, 0], values[:, 1].flip(0)  # the second code grows upwards
    z = torch.cartesian_prod(up, across).flip(-1).unflatten(0, (size, size))
    x, where = run.given(0).decode(z), where + of_class(run, 0)
    rows, columns = [f"z2 = {v:.2f}" for v in up.tolist()], [f"{v:.2f}" for v in across.tolist()]
    return figures.sheet(x, f"Decoded manifold{where}", run.curves, rows, columns, "z1")


def walk_along(
    run: TrainedRun,
    count: int | None,
    steps: int,
    limit: float,
    origin: Tensor | None = None,
    label: int = 0,
) -> tuple[Walk, Figure]:
    """Vary the `count` most active dimensions one at a time, the others at origin [Z].

    From -limit to limit standard deviations of the prior around its mean (`run.moments`). label:
    of a conditional model. -> dims [D], values [D, S], origin, x [D, S, *shape], and a picture with
    a row for each dimension.
    """
    dims, (centre, scale) = measures.most_active(run.codes)[:count], run.moments
    along = f"standard deviations of the {'prior' if run.config.is_generative else 'code'}"
    ticks, chosen = torch.linspace(-limit, limit, steps), torch.tensor(dims)
    values = centre[chosen, None] + scale[chosen, None] * ticks
    origin = centre if origin is None else origin
    x, kl = run.given(label).traverse(chosen, values, origin), run.kl
    rows = [f"z{dim + 1}" + ("" if kl is None else f" (KL {kl[dim]:.2g})") for dim in dims]
    columns = [f"{round(tick, 5) + 0.0:.2g}" for tick in ticks.tolist()]
    title = f"Traversals, the most active dimension first{of_class(run, label)}"
    figure = figures.sheet(x, title, run.curves, rows, columns, along)
    return {"dims": chosen, "values": values, "origin": origin, "x": x}, figure


def _traversals(run: TrainedRun) -> Figure:
    return walk_along(run, TRAVERSED, 11, 3.0 if run.config.is_generative else 2.0)[1]


def walk_between(run: TrainedRun, stops: Sequence[int], steps: int) -> tuple[Walk, Figure]:
    """Walk straight from test example to test example, L legs.

    A conditional model decodes a leg with the class of its start.
    -> z [L, steps, Z] and x [L, steps, *shape], and a picture with a row for each leg.
    """
    examples = run.examples(list(stops))
    labels = labels_of(run.data(), torch.tensor(stops)).expand(len(stops))
    z = measures.line(run.given(labels).encode(examples).mean, steps)
    x, names = (
        run.given(labels[:-1, None]).decode(z),
        [name_of(run.data(), index) for index in stops],
    )
    rows = [f"{start} → {end}" for start, end in pairwise(names)]
    ends = ["start", *[""] * (steps - 2), "end"]
    along = "" if run.has_images else "way between the codes"
    figure = figures.sheet(x, "Interpolation", run.curves, rows, ends, along)
    return {"z": z, "x": x}, figure


def _interpolation(run: TrainedRun, steps: int) -> tuple[Walk, Figure]:
    """Walk between the first examples of the classes in `interpolate`, else `first_two`."""
    chosen = run.config.interpolate or ()
    stops = [find_example(run.data(), "interpolate", str(label), "label") for label in chosen]
    return walk_between(run, stops or first_two(run.data()), steps)


def fitting(run: TrainedRun) -> dict[str, Maker]:
    """List the pictures that fit a run: file in figures/ -> what draws it."""
    vae, images, size = run.config.is_generative, run.has_images, run.vae.latent_dim
    seed, numbers = run.config.seed, not run.config.posterior.one_hot  # else nothing is between
    varied = bool(run.codes.mean.var(0).max() > 1e-12)  # else t-SNE would show rounding errors
    table: dict[str, tuple[bool, Maker]] = {
        "loss_curves.png": (bool(read_metrics(run.folder)), _loss_curves),
        "reconstructions.png": (True, _reconstructions),
        "residuals.png": (not images, _residuals),
        "samples.png": (run.config.samples_prior, lambda r: samples(r, r.draw_codes(64, seed))[1]),
        "latent_scatter.png": (size >= 2, figures.latent_scatter),
        "manifold.png": (size == 2 and numbers, _manifold),
        "traversals.png": (numbers, _traversals),
        "interpolation.png": (True, lambda run: _interpolation(run, 9)[1]),
        "interpolation.gif": (images, lambda run: _interpolation(run, 24)[0]["x"].flatten(0, 1)),
        "code_histograms.png": (vae, figures.code_histograms),
        "kl_bars.png": (run.kl is not None, figures.kl_bars),
        "tsne.png": (size > 2 and varied, figures.tsne),
    }
    return {file: draw for file, (fits, draw) in table.items() if fits}


def draw_all(
    run: TrainedRun, folder: Path, log_image: Callable[[str, Tensor], object] = lambda *_: None
) -> list[Path]:
    """Draw every picture that fits into `figures/` of a folder; return what could be drawn."""
    (folder / "figures").mkdir(exist_ok=True)
    drawn, makers = [], fitting(run)
    say(f"drawing {len(makers)} pictures …")
    if run.config.is_generative and run.kl is None:
        say(f"no kl_bars.png: {run.config.no_kl}")
    for file, draw in makers.items():
        path = folder / "figures" / file
        try:
            made = draw(run)
            if isinstance(made, Tensor):
                figures.save_gif(made, path)
            else:
                log_image(f"figures/{path.stem}", figures.save_png(made, path))
            drawn.append(path)
        except Exception as error:  # whatever it is: a picture is not worth a finished run
            log.exception("%s could not be drawn", file)
            say(f"warning: {file} could not be drawn: {error}")
    return drawn


class Pictures(Observer):
    """Draws reconstructions and samples while a run trains, and every picture when it has finished.

    They always show equal inputs and draws: TensorBoard's slider shows how the model learned.
    """

    def begin(self, training: Training) -> None:
        folder, config, state = training.run.folder, training.config, training.state
        self.run = TrainedRun(folder, config, state.measured, state.epoch, training.data)
        if state.step == 0:
            self.epoch(training, {})

    def epoch(self, training: Training, record: dict[str, float]) -> None:
        run, state, every = self.run, training.state, training.config.image_every
        if training.config.figures == "none" or every == 0 or state.epoch % every:
            return
        with evaluating(state.measured):
            x = run.examples(10)
            tables = {"reconstructions": torch.stack([x, _again(run, x)])}
            if training.config.samples_prior:
                tables["samples"] = run.sample(64, run.config.seed).unflatten(0, (8, 8))
        for tag, table in tables.items():
            if run.has_images:
                picture = figures.tile_grid(table)
            else:
                picture = figures.render(figures.sheet(table, tag, training.data.curves))[1]
            training.run.log_image(tag, picture, state.step)

    def end(self, training: Training, evaluation: Evaluation) -> None:
        if training.config.figures != "none":
            with evaluating(training.state.measured):
                log_image = partial(training.run.log_image, step=training.state.step)
                draw_all(self.run, training.run.folder, log_image)
                training.run.log_codes(*_projected(self.run))


def _projected(run: TrainedRun) -> tuple[Tensor, list[str], Tensor | None]:
    """Test codes, with names and square images, as TensorBoard's projector takes them."""
    x, side = run.examples(EMBEDDED), min(64, max(run.shape))
    codes = F.pad(run.codes.mean[: len(x)], (0, max(0, 3 - run.vae.latent_dim)))  # for its 3-D PCA
    names = [name_of(run.data(), index) for index in range(len(x))]
    images = F.interpolate(figures.rgb(x, 1), (side, side)) if run.has_images else None
    return codes, names, images
