"""The posterior q(z|x): the codes of an example.

Shapes: B examples, K codes for an example, Z latent dimensions. Densities and KL are in nats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.config.networks import PosteriorConfig

LOG_2PI = math.log(2 * math.pi)

# exp(log_var) overflows float32 above 88 and its square above 44; a standard deviation outside
# (e^-15, e^10) means nothing beside a prior of unit scale
LOG_VAR_MIN, LOG_VAR_MAX = -30.0, 20.0


class Code(NamedTuple):
    """Codes that were drawn from a posterior. Their density is computed only when asked for."""

    z: Tensor  # [K, B, Z]
    log_q: Callable[[], Tensor]  # log q(z|x) [K, B]; a flow knows it from the draw


class KL(NamedTuple):
    """KL(q(z|x) || p(z)): exact for each dimension, or only a total, exact or estimated."""

    by_dimension: Tensor | None  # [B, Z]
    whole: Tensor | None = None  # [B]; where there is no by_dimension

    @property
    def total(self) -> Tensor:
        """The KL of each example. [B]."""
        total = self.whole if self.by_dimension is None else self.by_dimension.sum(-1)
        assert total is not None
        return total


class Posterior(ABC):
    """A distribution of codes for every example."""

    mean: Tensor  # [B, Z]
    cost: Tensor | None = None  # scalar, nats an example: added to the loss, whatever the objective
    metrics: Mapping[str, Tensor] = {}  # scalars, detached: logged beside the objective's
    # what the head changes of itself, in place, in each update; of noise [K, B, Z] as in `sample`
    learn: Callable[[Tensor], object] | None = None

    @property
    @abstractmethod
    def stddev(self) -> Tensor:
        """Standard deviation of each dimension. [B, Z]."""

    @abstractmethod
    def sample(self, noise: Tensor) -> Code:
        """Draw codes with the reparameterisation trick. noise [K, B, Z], standard normal."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log q(z|x). z [K, B, Z] -> [K, B]. Raises TypeError without a density."""

    def kl_to_standard_normal(self) -> Tensor | None:
        """Compute KL(q(z|x) || N(0, I)): by dimension [B, Z], or only its total [B].

        None without a closed form.
        """
        return None

    @property
    def component(self) -> "Posterior":
        """A density near q(z|x) that is known at every z: what a VampPrior is made of."""
        return self

    def log_prob_by_dimension(self, z: Tensor) -> Tensor:
        """Compute log q(z_j|x), before the sum over dimensions. z broadcasts against [B, Z].

        Raises TypeError where q is no product over dimensions.
        """
        raise TypeError(f"{type(self).__name__}: no density of each dimension")

    def stopped(self) -> "Posterior":
        """Copy the distribution without its gradient: log_prob then learns through z alone.

        Raises TypeError where it holds more than tensors, such as a network with parameters.
        """
        copied = object.__new__(type(self))
        for name, value in vars(self).items():
            if not isinstance(value, Tensor):
                raise TypeError(f"{type(self).__name__}.{name} is no tensor: write stopped()")
            setattr(copied, name, value.detach())
        return copied


class DiagonalGaussian(Posterior):
    """q(z|x) = N(mean, diag(exp(log_var))) (Kingma & Welling 2014, section 3 and appendix B)."""

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        """mean, log_var: [B, Z]. log_var is clamped so that exp cannot overflow."""
        self.mean = mean
        # hardtanh equals clamp; its backward pass is one operation instead of five
        self.log_var = F.hardtanh(log_var, LOG_VAR_MIN, LOG_VAR_MAX)

    @property
    def stddev(self) -> Tensor:
        return (0.5 * self.log_var).exp()

    def sample(self, noise: Tensor) -> Code:
        z = torch.addcmul(self.mean, self.stddev, noise)
        return Code(z, lambda: self.log_prob(z))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_prob_by_dimension(z).sum(-1)

    def log_prob_by_dimension(self, z: Tensor) -> Tensor:
        squared = (z - self.mean) ** 2 * (-self.log_var).exp()
        return -0.5 * (squared + self.log_var + LOG_2PI)

    def kl_to_standard_normal(self) -> Tensor:
        return 0.5 * (self.log_var.exp() + self.mean**2 - 1.0 - self.log_var)


class FullGaussian(Posterior):
    """q(z|x) = N(mean, L L^T), L lower triangular (Kingma & Welling 2019, section 2.5.1).

    L has the diagonal exp(log_var / 2): the standard deviation of a dimension given those before.
    """

    def __init__(self, mean: Tensor, log_var: Tensor, below: Tensor) -> None:
        """mean, log_var [B, Z]; below [B, Z (Z - 1) / 2]: L under its diagonal, row by row."""
        self.mean, self.log_var = mean, F.hardtanh(log_var, LOG_VAR_MIN, LOG_VAR_MAX)
        self.scale = torch.diag_embed((0.5 * self.log_var).exp())  # L [B, Z, Z]
        row, column = torch.tril_indices(mean.shape[1], mean.shape[1], -1, device=mean.device)
        self.scale[:, row, column] = below

    @property
    def stddev(self) -> Tensor:
        return self.scale.square().sum(-1).sqrt()

    def sample(self, noise: Tensor) -> Code:
        z = self.mean + torch.einsum("bij,kbj->kbi", self.scale.to(noise.dtype), noise)
        return Code(z, lambda: self._log_density(noise))

    def log_prob(self, z: Tensor) -> Tensor:
        centred = (z - self.mean)[..., None]
        noise = torch.linalg.solve_triangular(self.scale.to(z.dtype), centred, upper=False)
        return self._log_density(noise[..., 0])

    def _log_density(self, noise: Tensor) -> Tensor:
        """Compute log q of the code that standard normal noise [..., B, Z] became. -> [..., B]."""
        return -0.5 * (noise**2 + self.log_var + LOG_2PI).sum(-1)

    def kl_to_standard_normal(self) -> Tensor:
        """Compute the total [B]: the dimensions depend on each other."""
        squares = self.scale.square().sum(-1) + self.mean**2
        return 0.5 * (squares - 1.0 - self.log_var).sum(-1)


class Point(Posterior):
    """A deterministic code, as a plain autoencoder has it. Its KL counts as 0."""

    def __init__(self, mean: Tensor) -> None:
        """mean: [B, Z]."""
        self.mean = mean

    @property
    def stddev(self) -> Tensor:
        return torch.zeros_like(self.mean)

    def sample(self, noise: Tensor) -> Code:
        z = self.mean.expand(noise.shape)
        return Code(z, lambda: self.log_prob(z))

    def log_prob(self, z: Tensor) -> Tensor:
        raise TypeError("a deterministic code has no density")

    def kl_to_standard_normal(self) -> Tensor:
        return torch.zeros_like(self.mean)


class Head(nn.Module, ABC):
    """Makes a posterior from a raw code. A module, so that one with parameters trains."""

    def __init__(self, config: PosteriorConfig, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.decoded = latent_dim  # how many dimensions the decoder reads, from the first on

    def nearest(self, z: Tensor) -> Tensor:
        """Move codes [N, Z] to the nearest that this posterior can have."""
        return z

    def width(self) -> int:
        """Return how wide the raw code is, the encoder's last layer: a number for each dimension
        unless a head needs more."""
        return self.latent_dim

    @abstractmethod
    def forward(self, code: Tensor) -> Posterior:
        """Make q(z|x), in float32 whatever the precision of the networks. code [B, width]."""


class GaussianHead(Head):
    """The first half of the code is the mean, the second the logarithm of the variance."""

    def width(self) -> int:
        return 2 * self.latent_dim

    def forward(self, code: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(*code.float().chunk(2, dim=-1))


class FullGaussianHead(Head):
    """The mean, the logarithms of the variances given the dimensions before, and L below."""

    def width(self) -> int:
        return self.latent_dim * (self.latent_dim + 3) // 2

    def forward(self, code: Tensor) -> FullGaussian:
        mean, log_var, below = code.float().tensor_split((self.latent_dim, 2 * self.latent_dim), -1)
        return FullGaussian(mean, log_var, below)


class PointHead(Head):
    """The code itself."""

    def forward(self, code: Tensor) -> Point:
        return Point(code.float())


class Encode(Protocol):
    """What gives a prior, or a penalty, the posteriors that it is made of."""

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Posterior:
        """Compute q(z|x), of a conditional model q(z|x, y). x [B, *shape], labels [B] int64."""
