"""Codes that are made in several steps: flows, and two stochastic layers.

Shapes: B examples, K codes for an example, Z latent dimensions. Densities are in nats. Networks run
in the precision of their weights, sums in that of the noise.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.config.networks import FlowConfig, IAFConfig, LadderConfig, LadderPriorConfig
from vae_cli.models.kernels import linear
from vae_cli.models.networks import ACTIVATIONS, layers
from vae_cli.vae.posteriors import Code, DiagonalGaussian, Encode, Head, Posterior
from vae_cli.vae.priors import Prior, StandardNormal

FORGET_BIAS = 2.0  # at first a step of the flow keeps sigmoid(2) = 0.88 of each code
DRAWS = 100  # of the standard deviation's estimate


class Layered(Posterior):
    """Codes that are computed from Gaussian noise in several steps.

    `mean`, which pictures and reconstructions take, is the code of zero noise: a good point, not
    the expectation. `stddev` is an estimate from 100 draws, equal noise for every example.
    """

    def __init__(self, base: DiagonalGaussian, latent_dim: int) -> None:
        """base: what the first step draws from."""
        self.base, self.latent_dim = base, latent_dim

    @property
    def mean(self) -> Tensor:  # type: ignore[override]  # computed where it is needed
        zero = self.base.mean.new_zeros(1, self.base.mean.shape[0], self.latent_dim)
        return self.sample(zero).z[0]

    @property
    def stddev(self) -> Tensor:
        noise = torch.randn(DRAWS, 1, self.latent_dim, generator=torch.Generator().manual_seed(0))
        noise = noise.to(self.base.mean.device).expand(-1, self.base.mean.shape[0], -1)
        return self.sample(noise).z.std(0)


class MaskedLinear(nn.Linear):
    """A linear layer with some weights fixed at 0."""

    mask: Tensor  # [outputs, inputs]

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """A network whose outputs j depend on z_1 … z_(j-1) and a context (Germain et al. 2015).

    A hidden unit has a number d and sees z_1 … z_d; output j sees the units with d < j. The numbers
    of a layer go evenly from 0, so that every output sees the context, to Z - 1.
    """

    def __init__(self, latent_dim: int, context: int, hidden_sizes: list[int]) -> None:
        super().__init__()
        inputs = torch.arange(1, latent_dim + 1)
        numbers = [inputs, *(torch.arange(width) * latent_dim // width for width in hidden_sizes)]
        masks = [after[:, None] >= before for before, after in pairwise(numbers)]
        last = inputs.repeat(2)[:, None] > numbers[-1]
        self.hidden = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.context = nn.Linear(context, hidden_sizes[0], bias=False)
        self.last = MaskedLinear(last)
        nn.init.zeros_(self.last.weight)  # so that the flow starts near its base
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Compute two outputs for each dimension. z [N, Z], context [N, C] -> twice [N, Z]."""
        hidden = self.context(context)
        for depth, layer in enumerate(self.hidden):
            hidden = F.elu(layer(z) + hidden if depth == 0 else layer(hidden))
        first, second = self.last(hidden).chunk(2, -1)
        return first, second


class IAF(Layered):
    """An inverse autoregressive flow from a Gaussian (Kingma et al. 2016, algorithm 1).

    z_0 = mean + stddev * noise; each step takes s, m from a MADE of z and the context, and makes
    z <- s z + (1 - s) m. So log q(z|x) = log q(z_0|x) - the sum of log s over steps and dimensions.
    """

    def __init__(self, base: DiagonalGaussian, context: Tensor, steps: nn.ModuleList) -> None:
        """context: [B, C] of the encoder."""
        super().__init__(base, base.mean.shape[1])
        self.context, self.steps = context, steps

    def sample(self, noise: Tensor) -> Code:
        start = self.base.sample(noise).z
        z, log_det = start, torch.zeros_like(start[..., 0])  # [K, B, Z], [K, B]
        context = self.context.expand(z.shape[0], -1, -1).flatten(0, 1)
        for number, made in enumerate(self.steps):
            z = z.flip(-1) if number else z  # each step goes through the dimensions the other way
            shift, gate = made(z.flatten(0, 1).to(context.dtype), context)
            log_s = F.logsigmoid(gate.view_as(z).to(z.dtype) + FORGET_BIAS)
            z = torch.lerp(shift.view_as(z).to(z.dtype), z, log_s.exp())
            log_det = log_det + log_s.sum(-1)
        return Code(z, lambda: self.base.log_prob(start) - log_det)

    @property
    def component(self) -> DiagonalGaussian:
        return self.base

    def log_prob(self, z: Tensor) -> Tensor:
        raise TypeError("posterior=iaf: log q(z|x) is known only at the codes that it draws")


class IAFHead(Head):
    """The base Gaussian's mean and log-variance, then a context that every step sees."""

    def __init__(self, config: IAFConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.context = config.context
        mades = (MADE(latent_dim, config.context, config.hidden_sizes) for _ in range(config.flows))
        self.steps = nn.ModuleList(mades)

    def width(self) -> int:
        return 2 * self.latent_dim + self.context

    def forward(self, code: Tensor) -> IAF:
        sizes = [self.latent_dim, self.latent_dim, self.context]
        mean, log_var, context = code.float().split(sizes, -1)
        return IAF(DiagonalGaussian(mean, log_var), context, self.steps)


class Conditional(nn.Module):
    """N(mean, diag(stddev^2)) of one part of a code given the other, by a network."""

    def __init__(self, given: int, config: LadderConfig | LadderPriorConfig, result: int) -> None:
        super().__init__()
        sizes = [given, *config.hidden_sizes]
        self.network = layers(sizes, 2 * result, ACTIVATIONS[config.activation])

    def given(self, given: Tensor) -> DiagonalGaussian:
        """Compute the Gaussian, [..., result], given a part [..., given]."""
        weight = next(self.parameters())
        code = self.network(given.flatten(0, -2).to(weight.dtype)).unflatten(0, given.shape[:-1])
        return DiagonalGaussian(*code.chunk(2, -1))


class Ladder(Layered):
    """q(z|x) = q(z1|x) q(z2|z1) of a code z = (z1, z2) (Burda et al. 2016, section 5)."""

    def __init__(self, base: DiagonalGaussian, above: Conditional, latent_dim: int) -> None:
        super().__init__(base, latent_dim)
        self.above = above

    def sample(self, noise: Tensor) -> Code:
        lower = self.base.mean.shape[1]
        first = self.base.sample(noise[..., :lower])
        second = self.above.given(first.z).sample(noise[..., lower:])
        return Code(torch.cat([first.z, second.z], -1), lambda: first.log_q() + second.log_q())

    def log_prob(self, z: Tensor) -> Tensor:
        first, second = z.tensor_split([self.base.mean.shape[1]], -1)
        return self.base.log_prob(first) + self.above.given(first).log_prob(second)


class LadderHead(Head):
    """Mean and log-variance of z1, which alone the decoder reads; z2 comes from z1 by a network."""

    def __init__(self, config: LadderConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.decoded = latent_dim - config.top
        self.above = Conditional(self.decoded, config, config.top)

    def width(self) -> int:
        return 2 * self.decoded

    def forward(self, code: Tensor) -> Ladder:
        base = DiagonalGaussian(*code.float().chunk(2, -1))
        return Ladder(base, self.above, self.latent_dim)


class LadderPrior(Prior):
    """p(z) = p(z2) p(z1|z2) of a code z = (z1, z2); z2 from N(0, I) (Burda et al. 2016)."""

    def __init__(self, config: LadderPriorConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.top = StandardNormal(config, config.top, shape)
        self.below = Conditional(config.top, config, latent_dim - config.top)

    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        first, second = z.tensor_split([-self.top.latent_dim], -1)
        return self.top.log_prob(second, encode) + self.below.given(second).log_prob(first)

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        second = self.top.sample(n, generator, encode)
        lower = (n, self.latent_dim - self.top.latent_dim)
        noise = torch.randn(lower, generator=generator, device=generator.device)
        return torch.cat([self.below.given(second).sample(noise).z, second], -1)


class Flow(Prior):
    """N(0, I), stretched and shifted by a RealNVP (Dinh et al. 2017), trained with the networks.

    Each layer leaves every second dimension as it is and computes from these a shift and a scale,
    from 1/e to e, for the others; the next layer does so the other way round. At first all layers
    are the identity. In one latent dimension the flow is a Gaussian.
    """

    changed: Tensor  # [layers, Z]: 1 for the dimensions that a layer changes, 0 for the others

    def __init__(self, config: FlowConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.base = StandardNormal(config, latent_dim, shape)
        width, self.layers = config.hidden_size, nn.ModuleList()
        changed = (torch.arange(latent_dim) + torch.arange(config.layers)[:, None]) % 2
        self.register_buffer("changed", changed.float(), persistent=False)
        for _ in self.changed:
            last = nn.Linear(width, 2 * latent_dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            hidden = [nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
            self.layers.append(nn.Sequential(*hidden, last))

    def _change(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute shift and log-scale of a layer, 0 where it changes nothing. [..., Z] each."""
        changed = self.changed[number]
        raw: Tensor = self.layers[number]((z * (1 - changed)).to(changed.dtype))
        shift, log_scale = raw.chunk(2, dim=-1)
        return changed * shift, changed * log_scale.tanh()

    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        log_volume = torch.zeros((), dtype=z.dtype, device=z.device)
        for number in reversed(range(len(self.layers))):
            shift, log_scale = self._change(number, z)
            z = (z - shift) * (-log_scale).exp()
            log_volume = log_volume + log_scale.sum(-1)
        return self.base.log_prob(z, encode) - log_volume

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        z = self.base.sample(n, generator, encode)
        for number in range(len(self.layers)):
            shift, log_scale = self._change(number, z)
            z = z * log_scale.exp() + shift
        return z
