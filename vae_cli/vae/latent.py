"""The latent code: the posterior q(z|x), the prior p(z) and the KL between them.

Shapes: B examples, K codes for an example, Z latent dimensions. Densities and KL are in nats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.config.networks import MixtureConfig, PosteriorConfig, PriorConfig

LOG_2PI = math.log(2 * math.pi)

# exp(log_var) overflows float32 above 88 and its square above 44; a standard deviation outside
# (e^-15, e^10) means nothing beside a prior of unit scale
LOG_VAR_MIN, LOG_VAR_MAX = -30.0, 20.0


class Code(NamedTuple):
    """Codes that were drawn from a posterior. Their density is computed only when asked for."""

    z: Tensor  # [K, B, Z]
    log_q: Callable[[], Tensor]  # log q(z|x) [K, B]; a flow knows it from the draw


class Posterior(ABC):
    """A distribution of codes for every example."""

    mean: Tensor  # [B, Z]

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
        """Compute KL(q(z|x) || N(0, I)) by dimension, [B, Z]; None without a closed form."""
        return None


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
        """Compute log q(z_j|x), before the sum over dimensions. z broadcasts against [B, Z]."""
        squared = (z - self.mean) ** 2 * (-self.log_var).exp()
        return -0.5 * (squared + self.log_var + LOG_2PI)

    def kl_to_standard_normal(self) -> Tensor:
        return 0.5 * (self.log_var.exp() + self.mean**2 - 1.0 - self.log_var)


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
        raise TypeError("posterior=point: a deterministic code has no density")

    def kl_to_standard_normal(self) -> Tensor:
        return torch.zeros_like(self.mean)


class Head(nn.Module, ABC):
    """Makes a posterior from a raw code. A module, so that one with parameters trains."""

    def __init__(self, config: PosteriorConfig, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @abstractmethod
    def width(self) -> int:
        """Return how wide the raw code is: the encoder's last layer."""

    @abstractmethod
    def forward(self, code: Tensor) -> Posterior:
        """Make q(z|x), in float32 whatever the precision of the networks. code [B, width]."""


class GaussianHead(Head):
    """The first half of the code is the mean, the second the logarithm of the variance."""

    def width(self) -> int:
        return 2 * self.latent_dim

    def forward(self, code: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(*code.float().chunk(2, dim=-1))


class PointHead(Head):
    """The code itself."""

    def width(self) -> int:
        return self.latent_dim

    def forward(self, code: Tensor) -> Point:
        return Point(code.float())


# x [B, *shape] -> q(z|x): a prior may be made of posteriors (VampPrior, Tomczak & Welling 2018)
Encode = Callable[[Tensor], Posterior]


class KL(NamedTuple):
    """KL(q(z|x) || p(z)): exact for each dimension, or only a total that is estimated."""

    by_dimension: Tensor | None  # [B, Z]
    estimate: Tensor | None = None  # [B]; where there is no by_dimension

    @property
    def total(self) -> Tensor:
        """The KL of each example. [B]."""
        total = self.estimate if self.by_dimension is None else self.by_dimension.sum(-1)
        assert total is not None
        return total


class Prior(nn.Module, ABC):
    """p(z). A module, so that its parameters train with the networks."""

    def __init__(self, config: PriorConfig, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @abstractmethod
    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Compute log p(z). z [K, B, Z] -> [K, B]."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        """Draw n codes on the generator's device. -> [n, Z]."""

    def exact_kl(self, posterior: Posterior) -> KL | None:
        """Compute the KL in closed form; None where there is none, so that it is estimated."""
        return None


class StandardNormal(Prior):
    """N(0, I) (Kingma & Welling 2014)."""

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        return -0.5 * (z**2 + LOG_2PI).sum(-1)

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        return torch.randn((n, self.latent_dim), generator=generator, device=generator.device)

    def exact_kl(self, posterior: Posterior) -> KL | None:
        by_dimension = posterior.kl_to_standard_normal()
        return None if by_dimension is None else KL(by_dimension)


class Mixture(Prior):
    """sum_c w_c N(mean_c, diag(scale_c^2)), trained with the networks (Dilokthanakul et al. 2016).

    At first the components have weights 1/C, variances 1/2 and means drawn from N(0, I/2), so that
    the mixture as a whole is near N(0, I).
    """

    def __init__(self, config: MixtureConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        shape = (config.components, latent_dim)
        self.means = nn.Parameter(torch.randn(shape) * math.sqrt(0.5))  # [C, Z]
        self.log_scales = nn.Parameter(torch.full(shape, 0.5 * math.log(0.5)))  # [C, Z]
        self.logits = nn.Parameter(torch.zeros(config.components))  # [C]

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        scaled = (z[..., None, :] - self.means) * (-self.log_scales).exp()  # [K, B, C, Z]
        log_components = -(0.5 * (scaled**2 + LOG_2PI) + self.log_scales).sum(-1)  # [K, B, C]
        return torch.logsumexp(self.logits.log_softmax(0) + log_components, -1)

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        chosen = torch.multinomial(self.logits.softmax(0), n, replacement=True, generator=generator)
        noise = torch.randn((n, self.latent_dim), generator=generator, device=generator.device)
        return torch.addcmul(self.means[chosen], self.log_scales[chosen].exp(), noise)
