"""The prior p(z), and the KL of a posterior from it.

Shapes: B examples, K codes for an example, Z latent dimensions. Densities and KL are in nats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.config.networks import MixtureConfig, PriorConfig
from vae_cli.vae.posteriors import LOG_2PI, Encode, Posterior


class Examples(NamedTuple):
    """The training set, as a component sees it before the first update."""

    size: int  # how many examples there are
    some: Callable[[int], Tensor]  # n -> examples in random order [n, *shape], at most `size`


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


class Prior(nn.Module, ABC):
    """p(z). A module, so that its parameters train with the networks."""

    def __init__(self, config: PriorConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        """shape: of one example."""
        super().__init__()
        self.latent_dim = latent_dim

    def learn_from(self, examples: Examples) -> None:
        """Take what the prior starts from, before the first update."""

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
        kl = posterior.kl_to_standard_normal()
        return None if kl is None else KL(kl) if kl.ndim == 2 else KL(None, kl)


class Mixture(Prior):
    """sum_c w_c N(mean_c, diag(scale_c^2)), trained with the networks (Dilokthanakul et al. 2016).

    At first the components have weights 1/C, variances 1/2 and means drawn from N(0, I/2), so that
    the mixture as a whole is near N(0, I).
    """

    def __init__(self, config: MixtureConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
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
