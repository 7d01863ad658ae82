"""The posterior q(z|x) that an encoder returns.

Shapes: B examples, Z latent dimensions, K codes drawn for an example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

# exp(log_var) overflows float32 above 88 and its square above 44; a standard deviation outside
# (e^-15, e^10) means nothing beside a prior of unit scale
LOG_VAR_MIN, LOG_VAR_MAX = -30.0, 20.0


class Posterior(ABC):
    """A distribution of codes for every example."""

    mean: Tensor  # [B, Z]

    @property
    @abstractmethod
    def stddev(self) -> Tensor:
        """Standard deviation of each dimension. [B, Z]."""

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised codes from standard normal noise. [K, B, Z] -> [K, B, Z]."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats. [K, B, Z] -> [K, B]."""

    @abstractmethod
    def kl(self) -> Tensor:
        """KL(q(z|x) || N(0, 1)) in nats, for each dimension. -> [B, Z]."""


class DiagonalGaussian(Posterior):
    """q(z|x) = N(mean, diag(exp(log_var))) (Kingma & Welling 2014, section 3 and appendix B)."""

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        """mean, log_var: [B, Z]. log_var is clamped so that exp cannot overflow."""
        self.mean = mean
        # clamp, whose gradient takes one operation in this form and five in that
        self.log_var = F.hardtanh(log_var, LOG_VAR_MIN, LOG_VAR_MAX)

    @property
    def stddev(self) -> Tensor:
        return (0.5 * self.log_var).exp()

    def sample(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.mean, self.stddev, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_prob_by_dimension(z).sum(-1)

    def log_prob_by_dimension(self, z: Tensor) -> Tensor:
        """log q(z_j|x), before the sum over dimensions. z broadcasts against [B, Z]."""
        squared = (z - self.mean) ** 2 * (-self.log_var).exp()
        return -0.5 * (squared + self.log_var + math.log(2 * math.pi))

    def kl(self) -> Tensor:
        return 0.5 * (self.log_var.exp() + self.mean**2 - 1.0 - self.log_var)


class Point(Posterior):
    """A deterministic code: what a plain autoencoder's encoder returns. Its KL counts as 0."""

    def __init__(self, mean: Tensor) -> None:
        """mean: [B, Z]."""
        self.mean = mean

    @property
    def stddev(self) -> Tensor:
        return torch.zeros_like(self.mean)

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean.expand(noise.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        raise TypeError(
            "a deterministic code has no density; use a model with a gaussian posterior"
        )

    def kl(self) -> Tensor:
        return torch.zeros_like(self.mean)
