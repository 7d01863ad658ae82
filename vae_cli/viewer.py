"""A model and its data as pictures need them; what several pictures share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae_cli.config import Config
from vae_cli.data.interface import Data, Split
from vae_cli.evaluation import Codes, Evaluation, encode, evaluate, evaluating
from vae_cli.randomness import generator
from vae_cli.schema.models import Posterior as PosteriorKind
from vae_cli.vae import VAE

if TYPE_CHECKING:
    from vae_cli.figures import CurveAxes

SHOWN = 10  # examples in a picture of reconstructions
SAMPLES = 64  # draws from the prior
CURVES_SHOWN = 8  # two full rows of panels
CURVE_SAMPLES = 16  # more, in one panel, cannot be told apart
ENCODED = 10_000  # test examples whose codes are drawn, at most


class Viewer:
    """Fixed inputs, fixed prior draws, the codes of the test set, and everything in display form.

    The same inputs and the same draws every time, so that two pictures of a run, or of two runs,
    can be compared. `found` is the model measured on the test set; without it that is done here.
    `history` is a line an epoch, as in metrics.jsonl.
    """

    def __init__(
        self,
        vae: VAE,
        data: Data,
        config: Config,
        found: Evaluation | None = None,
        history: Sequence[dict[str, float]] = (),
    ) -> None:
        self.vae = vae
        self.data = data
        self.config = config
        self.given = found
        self.history = history
        self.device = next(vae.parameters()).device
        self.generative = config.model.posterior is PosteriorKind.gaussian
        self.images = len(data.shape) == 3
        self.latent_dim = config.model.latent_dim

    # ------------------------------------------------------------------------------- the data

    @cached_property
    def test(self) -> Split:
        """The first test examples, at most ENCODED: those that `codes` belongs to."""
        test = self.data.test
        return test.take(torch.arange(min(ENCODED, len(test)), device=test.x.device))

    @cached_property
    def x(self) -> Tensor:
        """The inputs in pictures of reconstructions. [N, *shape]."""
        source = generator(self.device, self.config.seed, "pictures", "inputs")
        raw = self.data.test.head(SHOWN if self.images else CURVES_SHOWN)
        return self.data.prepare(raw.to(self.device), source)

    @cached_property
    def axes(self) -> CurveAxes | None:
        """What curves are drawn over; None for images."""
        from vae_cli.figures import CurveAxes

        curves = self.data.curves
        if curves is None:
            return None
        return CurveAxes(curves.grid.cpu(), curves.x_label, curves.y_label)

    def shown(self, x: Tensor) -> Tensor:
        """Values as they are drawn: curves that are logarithms by their exponentials."""
        logarithms = self.data.curves is not None and self.data.curves.logarithms
        return x.exp() if logarithms else x

    # ------------------------------------------------------------------------------- the codes

    @cached_property
    def codes(self) -> Codes:
        """The posteriors of the examples in `test`."""
        return encode(self.vae, self.data, self.test, self.config.seed)

    @cached_property
    def found(self) -> Evaluation:
        """The model measured on the whole test set."""
        if self.given is not None:
            return self.given
        config = self.config
        return evaluate(self.vae, self.data, self.data.test, config.beta, config.seed)

    @cached_property
    def order(self) -> list[int]:
        """Latent dimensions by falling KL; of an autoencoder by falling variance of the code."""
        by = self.found.kl if self.generative else self.found.mean_variance
        return by.argsort(descending=True, stable=True).tolist()

    @cached_property
    def z(self) -> Tensor:
        """Draws from the prior. [N, Z]."""
        source = generator(self.device, self.config.seed, "pictures", "samples")
        count = SAMPLES if self.images else CURVE_SAMPLES
        return torch.randn((count, self.latent_dim), generator=source, device=self.device)

    # ------------------------------------------------------------------------------- the model

    @torch.no_grad()
    def decoded(self, z: Tensor) -> Tensor:
        """What codes [..., Z] stand for, ready to be drawn. -> [..., *shape]."""
        with evaluating(self.vae):
            flat = self.shown(self.vae.mean(z.to(self.device).flatten(0, -2)))
        made: Tensor = flat.unflatten(0, z.shape[:-1])
        return made

    @torch.no_grad()
    def reconstructed(self) -> Tensor:
        """The fixed inputs through the model, ready to be drawn."""
        with evaluating(self.vae):
            return self.shown(self.vae.reconstruct(self.x))

    def sampled(self) -> Tensor:
        """The fixed prior draws decoded, ready to be drawn."""
        return self.decoded(self.z)
