"""The prior p(z), and the KL of a posterior from it.

Shapes: B examples, K codes for an example, Z latent dimensions. Densities and KL are in nats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.config.networks import ExemplarConfig, MixtureConfig, PriorConfig, VampPriorConfig
from vae_cli.console import say
from vae_cli.vae.posteriors import KL, LOG_2PI, DiagonalGaussian, Encode, Posterior

VALUES = 2**22  # numbers that are computed at a time: memory does not grow with examples or codes
EDGE = 0.01  # how far within the range of the data a pseudo-input starts, as a share of it


class Examples(NamedTuple):
    """The training set, as a component sees it before the first update."""

    size: int  # how many examples there are
    # n -> examples in random order [n, *shape], at most `size`, and their labels [n] or None
    some: Callable[[int], tuple[Tensor, Tensor | None]]
    drawn: bool = False  # the examples are probabilities, from which each update draws anew

    def exactly(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return `count` examples in random order, some of them repeatedly where there are fewer.

        -> [count, *shape] and their labels [count] or None, on the CPU.
        """
        if count > self.size:
            line = f"more than the {self.size:,} training examples, so some stand repeatedly"
            say(f"warning: prior.components={count}: {line}")
        x, labels = self.some(count)
        index = torch.arange(count) % len(x)
        return x[index], None if labels is None else labels[index]


class Prior(nn.Module, ABC):
    """p(z). A module, so that its parameters train with the networks."""

    def __init__(self, config: PriorConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        """shape: of one example."""
        super().__init__()
        self.latent_dim = latent_dim

    def learn_from(self, examples: Examples) -> None:
        """Take what the prior starts from, before the first update."""

    @abstractmethod
    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        """Compute log p(z). z [K, B, Z] -> [K, B].

        x: the examples [B, *shape] that the codes belong to, in training.
        """

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        """Draw n codes on the generator's device. -> [n, Z]."""

    def density(self, encode: Encode) -> Callable[[Tensor], Tensor]:
        """Return log_prob as a function of codes alone, while no parameter changes."""
        return lambda z: self.log_prob(z, encode)

    def exact_kl(self, posterior: Posterior) -> KL | None:
        """Compute the KL in closed form; None where there is none, so that it is estimated."""
        return None


class StandardNormal(Prior):
    """N(0, I) (Kingma & Welling 2014)."""

    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        return -0.5 * (z**2 + LOG_2PI).sum(-1)

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        return torch.randn((n, self.latent_dim), generator=generator, device=generator.device)

    def exact_kl(self, posterior: Posterior) -> KL | None:
        kl = posterior.kl_to_standard_normal()
        return None if kl is None else KL(kl) if kl.ndim == 2 else KL(None, kl)


class Sum(Prior):
    """sum_c w_c p_c(z), a sum of C densities, each of the kind that a posterior has."""

    uniform: Tensor  # [C] log-weights that are equal

    def __init__(self, config: MixtureConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.count = count = config.components  # C
        equal = torch.full((count,), -math.log(count))
        self.register_buffer("uniform", equal, persistent=False)

    @abstractmethod
    def components(self, encode: Encode, chosen: Tensor | slice) -> Posterior:
        """Return the densities of the components with the numbers `chosen`, in this order."""

    def log_weights(self, x: Tensor | None = None) -> Tensor:
        """Compute log w_c, [C], or [B, C] where it depends on the example that a code is of."""
        return self.uniform

    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        return self._mixed(self.components(encode, slice(None)), z, x)

    def density(self, encode: Encode) -> Callable[[Tensor], Tensor]:
        return partial(self._mixed, self.components(encode, slice(None)))  # which encodes once

    def _mixed(self, components: Posterior, z: Tensor, x: Tensor | None = None) -> Tensor:
        portions = z.flatten(0, -2).split(max(1, VALUES // (self.count * self.latent_dim)))
        each = [part[:, None].expand(-1, self.count, -1) for part in portions]  # [n, C, Z]
        log_densities = torch.cat([components.log_prob(part) for part in each])
        log_densities = log_densities.unflatten(0, z.shape[:-1])  # [K, B, C]
        return torch.logsumexp(self.log_weights(x) + log_densities, -1)

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        weights = self.log_weights().exp()
        chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn((n, self.latent_dim), generator=generator, device=generator.device)
        parts = zip(chosen.split(500), noise[None].split(500, 1), strict=True)
        return torch.cat([self.components(encode, c).sample(e).z[0] for c, e in parts])


class Mixture(Sum):
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

    def components(self, encode: Encode, chosen: Tensor | slice) -> DiagonalGaussian:
        return DiagonalGaussian(self.means[chosen], 2 * self.log_scales[chosen])

    def log_weights(self, x: Tensor | None = None) -> Tensor:
        return self.logits.log_softmax(0)


class OfExamples(Sum):
    """A sum of densities that the encoder makes of C examples or pseudo-inputs.

    Of a conditional model, which encodes an example with its class, each is encoded with the class
    of the training example that it is or started from. p(z) is one for all classes.
    """

    labels: Tensor  # [C] int64; 0 where the data has no classes

    def __init__(self, config: MixtureConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.register_buffer("labels", torch.zeros(self.count, dtype=torch.int64))

    def take(self, examples: Examples) -> Tensor:
        """Keep the labels of C training examples, and return these. -> [C, *shape]."""
        x, labels = examples.exactly(self.count)
        if labels is not None:
            self.labels.copy_(labels)
        return x


class VampPrior(OfExamples):
    """(1/C) sum_c q(z|u_c), posteriors of C pseudo-inputs u_c, which are trained with the networks.

    Tomczak & Welling 2018. Of posterior=iaf, whose density is known only at its own draws, it takes
    the Gaussians that the flow starts from. A sigmoid keeps u_c in the range of the training
    values; their code has a hardtanh, without a gradient at the ends of the range, where most
    pixels of an example lie.
    """

    range: Tensor  # lowest and highest training value

    def __init__(self, config: VampPriorConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.start = config.start
        self.raw = nn.Parameter(torch.randn(config.components, *shape))
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    @torch.no_grad()
    def learn_from(self, examples: Examples) -> None:
        self.range.copy_(torch.stack(examples.some(1000)[0].aminmax()))
        (low, high), x = self.range, self.take(examples)
        if self.start == "examples":  # with a little noise, so that equal ones do not stay equal
            shares = (x - low) / (high - low)
            self.raw.mul_(0.01).add_(shares.nan_to_num(0.5).clamp(EDGE, 1 - EDGE).logit())

    def pseudo_inputs(self) -> Tensor:
        """Return u. [C, *shape]."""
        low, high = self.range.unbind()
        return low + (high - low) * self.raw.sigmoid()

    def components(self, encode: Encode, chosen: Tensor | slice) -> Posterior:
        return encode(self.pseudo_inputs()[chosen], self.labels[chosen]).component


class Exemplar(OfExamples):
    """(1/C) sum_c N(mean of q(z|x_c), scale^2 I) around C fixed training examples x_c.

    Norouzi et al. 2020. The scale is trained with the networks. In training, the density of an
    example's codes leaves out the component that is made of this example, so that codes cannot
    gather at the exemplars. For this an example is compared with all exemplars, by products of
    [B, D] and [D, C] for D data values: about as much work as a layer of the encoder.
    """

    exemplars: Tensor  # [C, *shape]; of data that is binarised anew at each step, the probabilities

    def __init__(self, config: ExemplarConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.drawn = False
        self.register_buffer("exemplars", torch.full((config.components, *shape), math.nan))

    def learn_from(self, examples: Examples) -> None:
        self.exemplars.copy_(self.take(examples))
        self.drawn = examples.drawn

    def components(self, encode: Encode, chosen: Tensor | slice) -> DiagonalGaussian:
        mean = encode(self.exemplars[chosen], self.labels[chosen]).mean
        return DiagonalGaussian(mean, (2 * self.log_scale).expand_as(mean))

    def log_weights(self, x: Tensor | None = None) -> Tensor:
        if x is None or not self.training:
            return super().log_weights()
        others = ~self.made_of(x)
        others |= ~others.any(1, keepdim=True)  # where no other would be left
        return others.log() - others.sum(1, keepdim=True).log()

    def made_of(self, x: Tensor) -> Tensor:
        """Say which exemplar each example is, or is a draw of. x [B, *shape] -> bool [B, C].

        Of draws the exemplar that gives x the largest probability, if it can give x at all.
        """
        x, exemplars = x.flatten(1), self.exemplars.flatten(1).to(x.dtype)
        if self.drawn:
            one, zero = (p.clamp(min=1e-12).log() for p in (exemplars, 1 - exemplars))
            log_p = x @ (one - zero).T + zero.sum(1)
            never = x @ (exemplars == 0).to(x.dtype).T + (1 - x) @ (exemplars == 1).to(x.dtype).T
            return (log_p >= log_p.amax(1, keepdim=True)) & (never == 0)
        square = x.square().sum(1, keepdim=True)
        distance = square + exemplars.square().sum(1) - 2 * x @ exemplars.T
        return distance < 1e-5 * (1 + square)  # as exact as float32 sums are
