"""Which pictures a run gets: in TensorBoard while it trains, in `figures/` when it has finished.

`fitting` lists the latter. Inputs and draws from the prior depend on the seed alone, so pictures of
two runs can be laid side by side.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vae_cli.analysis import export, figures, measures
from vae_cli.analysis.figures import EMBEDDED, POINTS, TRAVERSED
from vae_cli.analysis.trained import TrainedRun
from vae_cli.console import say
from vae_cli.data.labels import find_example, first_two, labels_of, name_of, of_each_class
from vae_cli.runs.saved import read_metrics
from vae_cli.training.build import fresh_vae
from vae_cli.training.evaluation import Evaluation, encode, evaluating
from vae_cli.training.loop import Observer, Training

log = logging.getLogger(__name__)
Walk = dict[str, Tensor]  # codes and what they decode to, by their names in an npz
Maker = Callable[[TrainedRun], Figure | Tensor]  # of a picture, or of the images of a film


def _again(run: TrainedRun, x: Tensor, index: Tensor) -> Tensor:
    """Reconstruct test examples by their numbers; a conditional model is told their classes."""
    return run.given(labels_of(run.data(), index)).reconstruct(x)


def _reconstructions(run: TrainedRun) -> Figure:
    # the run's seed, so the weights that the training started from
    untrained = fresh_vae(run.config, run.data()).to(run.device).eval()
    before = TrainedRun(run.folder, run.config, untrained, 0, run.data())
    index, curves = of_each_class(run.data(), 10 if run.has_images else 8), run.curves
    x, known = run.examples(index), [name_of(run.data(), i) for i in index.tolist()]
    table = torch.stack([x, _again(before, x, index), _again(run, x, index)])
    names, title = ("original", "before training", "after training"), "Reconstructions"
    if run.has_images:
        return figures.sheet(table, title, curves, rows=names, columns=known)
    return figures.sheet(table.transpose(0, 1), title, curves, rows=known, columns=names)


def _residuals(run: TrainedRun) -> Figure:
    index, curves = of_each_class(run.data(), 8), run.curves
    x, rows = run.examples(index), [name_of(run.data(), i) for i in index.tolist()]
    title = "Reconstruction minus original, in the units of the data"
    curves = curves and replace(curves, y_label="difference", logarithms=False)
    return figures.sheet((_again(run, x, index) - x)[:, None], title, curves, rows)


def of_class(run: TrainedRun, label: int | None) -> str:
    """The end of a title: which class a conditional model decodes."""
    return f", class {run.class_names[label]}" if run.vae.classes and label is not None else ""


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
    title = f"Traversals, {measures.order(run.codes)}{of_class(run, label)}"
    figure = figures.sheet(x, title, run.curves, rows, columns, along)
    return {"dims": chosen, "values": values, "origin": origin, "x": x}, figure


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
        "loss_curves.png": (bool(read_metrics(run.folder)), figures.loss_curves),
        "reconstructions.png": (True, _reconstructions),
        "residuals.png": (not images, _residuals),
        "samples.png": (run.config.samples_prior, lambda r: samples(r, r.draw_codes(64, seed))[1]),
        "latent_scatter.png": (size >= 2, figures.latent_scatter),
        "manifold.png": (size == 2 and numbers, _manifold),
        "traversals.png": (numbers, lambda r: walk_along(r, TRAVERSED, 11, 3.0 if vae else 2.0)[1]),
        "interpolation.png": (True, lambda run: _interpolation(run, 9)[1]),
        "interpolation.gif": (images, lambda run: _interpolation(run, 24)[0]["x"].flatten(0, 1)),
        "code_histograms.png": (vae, figures.code_histograms),
        "kl_bars.png": (run.kl is not None, figures.kl_bars),
        "tsne.png": (size > 2 and varied, figures.tsne),
    }
    return {file: draw for file, (fits, draw) in table.items() if fits}


def draw_all(run: TrainedRun, folder: Path) -> list[Path]:
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
                export.save_gif(made, path)
            else:
                export.save_png(made, path, export.small_print(run))
            drawn.append(path)
        except Exception as error:  # whatever it is: a picture is not worth a finished run
            log.exception("%s could not be drawn", file)
            say(f"warning: {file} could not be drawn: {error}")
    return drawn


class Pictures(Observer):
    """Draws what TensorBoard shows while a run trains, and files when it has finished.

    In TensorBoard reconstructions and samples, always of equal inputs and draws, and the plane of
    codes after 0, 1, 2, 4, 8, … pictures of them: its slider shows how the model learned.
    """

    def begin(self, training: Training) -> None:
        folder, config, state = training.run.folder, training.config, training.state
        self.run = TrainedRun(folder, config, state.measured, state.epoch, training.data)
        self.index = of_each_class(training.data, 10)
        if state.step == 0:
            self.epoch(training, {})

    def epoch(self, training: Training, record: dict[str, float]) -> None:
        run, state, every = self.run, training.state, training.config.image_every
        drawing = training.config.figures != "none" and training.run.loggers
        if not drawing or every == 0 or state.epoch % every:
            return
        with evaluating(state.measured):
            x = run.examples(self.index)
            tables = {"reconstructions": torch.stack([x, _again(run, x, self.index)])}
            if training.config.samples_prior:
                tables["samples"] = run.sample(64, run.config.seed).unflatten(0, (8, 8))
        for tag, table in tables.items():
            if run.has_images:
                picture = export.tile_grid(table)
            else:
                picture = export.render(figures.sheet(table, tag, training.data.curves))[1]
            training.run.log_image(tag, picture, state.step)
        turn = state.epoch // every
        if run.vae.latent_dim >= 2 and (not turn & (turn - 1) or state.is_finished(run.config)):
            first = training.data.test.take(torch.arange(min(EMBEDDED, len(training.data.test))))
            codes = encode(state.measured, training.data, first, run.config.seed)
            picture = export.render(figures.latent_scatter(run, codes))[1]
            training.run.log_image("latent_plane", picture, state.step)

    def end(self, training: Training, evaluation: Evaluation) -> None:
        if training.config.figures != "none":
            self.run.epoch = training.state.best_epoch
            with evaluating(training.state.measured):
                draw_all(self.run, training.run.folder)
                training.run.log_codes(*_projected(self.run))


def _projected(run: TrainedRun) -> tuple[Tensor, list[str], Tensor | None]:
    """Test codes, with names and square images, as TensorBoard's projector takes them."""
    x, side = run.examples(EMBEDDED), min(64, max(run.shape))
    codes = F.pad(run.codes.mean[: len(x)], (0, max(0, 3 - run.vae.latent_dim)))  # for its 3-D PCA
    names = [name_of(run.data(), index) for index in range(len(x))]
    images = F.interpolate(export.rgb(x, 1), (side, side)) if run.has_images else None
    return codes, names, images
