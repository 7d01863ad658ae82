"""What a denoising autoencoder does to its input; the target stays clean (Vincent et al. 2010)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vae_cli.schema.losses import CorruptionConfig, GaussianNoiseConfig, MaskingConfig


class Corruption(ABC):
    """A random change of the input, made anew at every training step. Measuring uses clean input,
    so that the numbers of models with and without it compare."""

    def __init__(self, config: CorruptionConfig) -> None:
        self.name = config.name

    @abstractmethod
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What the encoder sees instead of x. [B, *shape] -> [B, *shape]."""


class Clean(Corruption):
    """Nothing is changed."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x


class GaussianNoise(Corruption):
    """x + sigma * noise."""

    def __init__(self, config: GaussianNoiseConfig) -> None:
        super().__init__(config)
        self.sigma = config.sigma

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.sigma * torch.randn(x.shape, generator=generator, device=x.device)


class Masking(Corruption):
    """Each value is set to 0 with a probability."""

    def __init__(self, config: MaskingConfig) -> None:
        super().__init__(config)
        self.probability = config.probability

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.probability
        return x * kept
