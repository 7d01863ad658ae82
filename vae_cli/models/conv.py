"""Convolutional autoencoder for images of any size and number of channels ("VanillaVAE")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vae_cli.models.convolutions import Down, Last, Up
from vae_cli.models.interface import ACTIVATIONS, Autoencoder
from vae_cli.models.layers import Linear
from vae_cli.posteriors import Posterior
from vae_cli.schema.models import ConvConfig


class Conv(Autoencoder):
    """Stride-2 convolutions down to a linear head; mirrored transposed convolutions back up.

    Each convolution halves height and width, rounding up; the decoder goes back through the same
    sizes, so every input size (odd ones too) comes out exactly.
    """

    def __init__(self, config: ConvConfig, shape: tuple[int, ...]) -> None:
        super().__init__(config, shape)
        activation = ACTIVATIONS[config.activation]
        channels, height, width = shape
        widths = config.channels
        sizes = [(height, width)]  # before each convolution, and after the last
        for _ in widths:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            sizes.append((height, width))
        self.smallest = (widths[-1], *sizes[-1])
        features = math.prod(self.smallest)

        down: list[nn.Module] = []
        for before, after, size in zip([channels, *widths], widths, sizes, strict=False):
            down += [Down(before, after, size), nn.BatchNorm2d(after), activation()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), Linear(features, self.code_width))

        up: list[nn.Module] = [
            Linear(config.latent_dim, features),
            nn.Unflatten(1, self.smallest),
        ]
        mirrored = list(reversed(widths))
        for before, after, size in zip(
            mirrored, [*mirrored[1:], mirrored[-1]], reversed(sizes[:-1]), strict=True
        ):
            up += [Up(before, after, size), nn.BatchNorm2d(after), activation()]
        self.decoder = nn.Sequential(*up, Last(mirrored[-1], channels))
        self.to(memory_format=torch.channels_last)  # see convolutions.py

    def encode(self, x: Tensor) -> Posterior:
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        output: Tensor = self.decoder(z)
        return output
