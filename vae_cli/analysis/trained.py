"""A trained run at hand: load its folder; encode, decode, sample, walk through codes, measure."""

from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vae_cli.analysis import measures
from vae_cli.config.plugins import load_plugins
from vae_cli.config.settings import Config
from vae_cli.console import UserError
from vae_cli.data.dataset import Curves, Data, generator
from vae_cli.data.labels import with_classes
from vae_cli.runs import checkpoint, saved
from vae_cli.training.build import device_of, load_data
from vae_cli.training.evaluation import Codes, encode, log_likelihood
from vae_cli.vae.posteriors import Posterior
from vae_cli.vae.vae import VAE, build_vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class TrainedRun:
    """A run's model in evaluation mode, and its data, which are loaded when first needed.

    Arrays, lists and tensors are accepted; tensors on the run's device come back. Draws differ from
    call to call unless a seed is given.
    """

    def __init__(
        self, folder: Path, config: Config, vae: VAE, epoch: int, data: Data | None = None
    ) -> None:
        """epoch: the one that the weights come from."""
        self.trained_on: dict[str, Any] | None = None  # the data's `identity`; None: not compared
        self.folder, self.config, self.vae, self.epoch = folder, config, vae, epoch
        self._data = data
        self.shape = vae.model.shape  # of one example: (C, H, W) or (P,)
        self.has_images = len(self.shape) == 3  # else curves
        self.device = next(vae.parameters()).device
        self.labels: Tensor | None = None  # what `given` sets
        self.class_names = data.class_names if data else ()  # that a conditional model knows

    def __repr__(self) -> str:
        names = f"{self.config.model.name} on {self.config.dataset.name}"
        return f"TrainedRun({str(self.folder)!r}: {names}, epoch {self.epoch})"

    def given(self, labels: Any) -> "TrainedRun":
        """Return this run for examples of known classes; it matters to a conditional model alone.

        labels: numbers of classes, one for all or one for each example.
        """
        run = copy(self)
        run.labels = torch.as_tensor(labels, device=self.device) if self.vae.classes else None
        return run

    def _labels(self, shape: tuple[int, ...]) -> Tensor | None:
        """The labels for codes or examples of a shape. Raises UserError where they are missing."""
        if self.labels is None and self.vae.classes:
            raise UserError("this model is conditional: write run.given(labels).…")
        return None if self.labels is None else self.labels.expand(shape)

    @torch.no_grad()
    def encode(self, x: Any) -> Posterior:
        """Compute q(z|x); its `.mean` is the code. x [B, *shape] -> posterior over [B, Z]."""
        examples = self._taken(x)
        return self.vae.encode(examples, self._labels(examples.shape[:1]))

    @torch.no_grad()
    def decode(self, z: Any) -> Tensor:
        """Compute E[x|z]. z [..., Z] -> [..., *shape]."""
        codes = self._checked(z, (self.vae.latent_dim,))
        labels = self._labels(codes.shape[:-1])
        labels = None if labels is None else labels.flatten()
        x: Tensor = self.vae.mean(codes.flatten(0, -2), labels).unflatten(0, codes.shape[:-1])
        return x

    def reconstruct(self, x: Any) -> Tensor:
        """Compute E[x|z] at the posterior mean. [B, *shape] -> [B, *shape]."""
        return self.decode(self.encode(x).mean)

    def in_turn(self, n: int) -> "TrainedRun":
        """Return this run for n draws: of each class in turn, unless it is `given` labels."""
        turns = torch.arange(n) % max(1, self.vae.classes)
        return self.given(turns) if self.labels is None else self

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """Decode n draws from the prior, `in_turn`. -> [n, *shape]."""
        return self.in_turn(n).decode(self.draw_codes(n, seed))

    def draw_codes(self, n: int, seed: int | None = None) -> Tensor:
        """Draw n codes from the prior. -> [n, Z]. Raises UserError for an autoencoder."""
        if not self.config.samples_prior:
            raise UserError("an autoencoder has no prior; use vae-eval task=sample sampler=gmm")
        return self.vae.draw_prior(n, _source(self.device, seed))

    def interpolate(self, start: Any, end: Any, steps: int) -> Tensor:
        """Decode the line between the codes of examples [*shape]. -> [steps, *shape], with ends."""
        ends = self.encode(torch.stack([torch.as_tensor(start), torch.as_tensor(end)])).mean
        return self.decode(measures.line(ends, steps)[0])

    def traverse(self, dims: Any, values: Any, origin: Any = None) -> Tensor:
        """Set dims [D] one at a time to values [S] or [D, S], around origin [Z], which is the mean
        of the prior unless it is given. -> [D, S, *shape]."""
        by, chosen = torch.as_tensor(values, dtype=torch.float32), torch.as_tensor(dims)
        code = self.moments[0] if origin is None else torch.as_tensor(origin)
        z = code.float().cpu().repeat(len(chosen), by.shape[-1], 1)  # [D, S, Z]
        z[torch.arange(len(chosen)), :, chosen] = by
        return self.decode(z)

    def log_likelihood(self, x: Any, num_samples: int, seed: int | None = None) -> Tensor:
        """Estimate log p(x) from num_samples codes for each x [B, *shape]. -> [B] float64, nats."""
        examples, source = self._taken(x), _source(self.device, seed)
        labels = self._labels(examples.shape[:1])
        return log_likelihood(self.vae, [(examples, labels)], num_samples, source)[0]

    def fit(self, target: Any, num_starts: int, seed: int | None = None) -> measures.Fit:
        """Find the code whose decoded example is nearest to target [*shape]; see `measures.fit`."""
        wanted = self._taken(torch.as_tensor(target)[None])[0]
        source, label = _source(torch.device("cpu"), seed), self._labels(())
        return measures.fit(self.vae, wanted, num_starts, source, int(label or 0))

    def data(self) -> Data:
        """Return the dataset that the run was trained on, with its splits, on the run's device.

        Raises UserError where the data are others now, unless `trained_on` is None.
        """
        if self._data is None:
            data = load_data(self.config, self.trained_on)
            self._data = with_classes(data, self.class_names).to(self.device)
        return self._data

    @property
    def curves(self) -> Curves | None:
        """How pictures show the run's curves; None for images, and where its data are missing."""
        with suppress(UserError):
            return None if self.has_images else self.data().curves
        return None

    def embed(self, split: str = "test", seed: int | None = None) -> Codes:
        """Compute the posteriors of train, val or test, in order, on the CPU (seed: the run's)."""
        chosen = self.config.seed if seed is None else seed
        return encode(self.vae, self.data(), self.data().split(split), chosen)

    @cached_property
    def codes(self) -> Codes:
        """The posteriors of the test set, on the CPU."""
        return self.embed()

    @property
    def kl(self) -> Tensor | None:
        """The mean KL of each dimension over the test set [Z]; None where a KL is no such sum."""
        by_dimension = self.codes.kl if self.config.is_generative else None
        return None if by_dimension is None else by_dimension.mean(0)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the prior; of an autoencoder, of the test codes. [Z] each.

        Known of a factorised prior, which is N(0, I); of others, from 10,000 draws.
        """
        drawn = self.config.is_generative
        if drawn and self.config.prior.factorised:
            return torch.zeros(self.vae.latent_dim), torch.ones(self.vae.latent_dim)
        points = self.draw_codes(10_000, self.config.seed).cpu() if drawn else self.codes.mean
        return points.mean(0), points.std(0, unbiased=False)

    def examples(self, chosen: Any = 8, split: str = "test") -> Tensor:
        """Return examples as the network takes them: the first `chosen`, or those of these numbers.

        With binarize=dynamic, of the one draw with which the run is measured. -> [N, *shape].
        """
        data = self.data()
        part = data.fixed(data.split(split), self.config.seed)
        raw = part.x[slice(chosen) if isinstance(chosen, int) else torch.as_tensor(chosen)]
        return data.prepare(raw, generator(raw.device, self.config.seed, "examples"))

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: how the run ended, its times, sizes and versions."""
        return saved.read_summary(self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """The final numbers, such as test/elbo; none until the run has completed."""
        return dict(self.summary.get("metrics") or {})

    @property
    def history(self) -> "DataFrame":
        """The content of metrics.jsonl: a row for each epoch, a column for each number."""
        from pandas import DataFrame

        return DataFrame(saved.read_metrics(self.folder))

    def show(self, what: Any, title: str = "") -> "Figure":
        """Draw a picture of `figures/` by its name, or examples [C, *shape] or [R, C, *shape]."""
        pictures: Any = import_module("vae_cli.analysis.pictures")  # which imports this module
        if not isinstance(what, str):
            table = what if what.ndim == len(self.shape) + 2 else what[None]
            return cast("Figure", pictures.figures.sheet(table, title, self.curves))
        makers = {name.removesuffix(".png"): draw for name, draw in pictures.fitting(self).items()}
        if what not in makers:
            raise UserError(f"no picture {what} of this run; there are {', '.join(makers)}")
        return cast("Figure", makers[what](self))

    def _taken(self, x: Any) -> Tensor:
        """Turn examples into a float32 tensor [..., *shape] on the device. Raises UserError."""
        examples, data = self._checked(x, self.shape), self.trained_on or {}
        unit = self.config.dataset.unit_interval or self.config.likelihood.needs_unit_interval
        low, high = map(float, examples.aminmax())
        if (unit or data.get("dtype") == "uint8") and not (low >= 0 and high <= 1):
            line = f"got values from {low:g} to {high:g}, and the network takes those from 0 to 1"
            raise UserError(f"{line}: divide bytes by 255, or take run.examples(8)")
        return examples

    def _checked(self, values: Any, shape: tuple[int, ...]) -> Tensor:
        """Turn values into a float32 tensor [..., *shape] on the device. Raises UserError."""
        tensor = torch.as_tensor(values, dtype=torch.float32, device=self.device)
        if tensor.ndim <= len(shape) or tuple(tensor.shape[-len(shape) :]) != shape:
            wanted = ", ".join(map(str, shape))
            raise UserError(f"got shape {list(tensor.shape)}, which must be [N, {wanted}]")
        return tensor


def _source(device: torch.device, seed: int | None) -> torch.Generator:
    source = torch.Generator(device)
    return source.manual_seed(source.seed() if seed is None else seed)


def load_run(
    folder: str | Path, device: str = "cpu", plugins: str | Sequence[str] = ()
) -> TrainedRun:
    """Load a run folder: its best weights or, of a run that has not ended, the newest there are.

    plugins: modules to import first, "a,b" or a list; none is imported because the folder names it.
    Raises UserError where the folder is not a run, is damaged or needs other plug-ins.
    """
    load_plugins(plugins)
    folder = saved.folder_of(folder, *saved.OF_BEST)
    config = saved.saved_config(folder)
    saved.refuse_links_out(folder)
    weights, data, epoch = checkpoint.best_weights(folder)
    names = tuple(data["classes"])
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and not kept
        vae = build_vae(config, tuple(data["shape"]), len(names)).requires_grad_(False).eval()
    try:
        vae.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}: the weights do not fit the model of config.yaml") from error
    run = TrainedRun(folder, config, vae.to(device_of(device)), epoch)
    run.trained_on, run.class_names = data, names if vae.classes else ()
    return run
