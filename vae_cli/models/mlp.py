"""Fully connected autoencoder for images and curves."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from vae_cli.models.interface import ACTIVATIONS, Autoencoder
from vae_cli.models.layers import Linear
from vae_cli.posteriors import Posterior
from vae_cli.schema.models import MLPConfig


class MLP(Autoencoder):
    """x -> hidden_sizes -> code, and the mirror image back (Kingma & Welling 2014, appendix C)."""

    def __init__(self, config: MLPConfig, shape: tuple[int, ...]) -> None:
        super().__init__(config, shape)
        size = math.prod(shape)
        activation = ACTIVATIONS[config.activation]
        widths = config.hidden_sizes
        self.encoder = _layers([size, *widths], self.code_width, activation)
        self.decoder = _layers([config.latent_dim, *reversed(widths)], size, activation)

    def encode(self, x: Tensor) -> Posterior:
        return self.posterior(self.encoder(x.flatten(1)))

    def decode(self, z: Tensor) -> Tensor:
        output: Tensor = self.decoder(z).unflatten(-1, self.shape)
        return output


def _layers(widths: list[int], last: int, activation: type[nn.Module]) -> nn.Sequential:
    """Linear and activation through `widths`, then one linear layer to `last`."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [Linear(wide, narrow), activation()]
    return nn.Sequential(*layers, Linear(widths[-1], last))
