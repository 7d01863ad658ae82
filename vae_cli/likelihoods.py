"""What a decoder's raw output means: the density p(x|z) and its mean.

Shapes: x [B, *shape], params [K, B, *shape] (a network's output, no sigmoid), results [K, B] in
nats, summed over the data dimensions, constants included unless a class says otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vae_cli.schema.losses import (
    BernoulliConfig,
    ContinuousBernoulliConfig,
    GaussianConfig,
    GaussianLearnedConfig,
    GaussianOptimalConfig,
    LaplaceConfig,
    LocationConfig,
    Output,
)

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
SMALL_LOGIT = 0.03  # below, Taylor series are exact to float32 and the closed forms are not


class Likelihood(nn.Module, ABC):
    """p(x|z). A module, so that one with parameters of its own trains with the networks."""

    @abstractmethod
    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """log p(x|z) in nats. x [B, *shape], params [K, B, *shape] -> [K, B]."""

    def mean(self, params: Tensor) -> Tensor:
        """E[x|z], for pictures and reconstructions. Same shape as params."""
        return params


class Bernoulli(Likelihood):
    """Independent Bernoulli variables with the network's output as logits.

    For x between 0 and 1 this is the usual cross-entropy: a loss, not a likelihood of grey values.
    """

    def __init__(self, config: BernoulliConfig) -> None:
        super().__init__()

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _bernoulli_log_prob(x, params)

    def mean(self, params: Tensor) -> Tensor:
        return params.sigmoid()


class ContinuousBernoulli(Likelihood):
    """A normalised density on [0, 1] from logits (Loaiza-Ganem & Cunningham 2019).

    With l the logit, the Bernoulli's x l - softplus(l) gains log C = log(l / tanh(l / 2)).
    """

    def __init__(self, config: ContinuousBernoulliConfig) -> None:
        super().__init__()

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _bernoulli_log_prob(x, params) + _sum(_log_normaliser(params))

    def mean(self, params: Tensor) -> Tensor:
        # 1 / (1 - exp(-l)) - 1 / l, and its Taylor series where both terms are huge
        small = params.abs() < SMALL_LOGIT
        safe = torch.where(small, 1.0, params)
        exact = 1 / -torch.expm1(-safe) - 1 / safe
        return torch.where(small, 0.5 + params / 12, exact)


class Location(Likelihood):
    """A density around a mean that is the network's output, or its sigmoid for data in [0, 1]."""

    def __init__(self, config: LocationConfig) -> None:
        super().__init__()
        self.squash = config.output is Output.sigmoid

    def mean(self, params: Tensor) -> Tensor:
        return params.sigmoid() if self.squash else params


class Gaussian(Location):
    """N(mean, sigma^2) in every data dimension, sigma fixed."""

    def __init__(self, config: GaussianConfig) -> None:
        super().__init__(config)
        self.sigma = config.sigma

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        constant = math.log(self.sigma) + HALF_LOG_2PI
        return _sum(-0.5 * ((x - self.mean(params)) / self.sigma) ** 2 - constant)


class GaussianLearned(Location):
    """N(mean, sigma^2) with one sigma for all data dimensions, trained with the networks."""

    def __init__(self, config: GaussianLearnedConfig) -> None:
        super().__init__(config)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(config.sigma)))

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        scaled = (x - self.mean(params)) * (-self.log_sigma).exp()
        return _sum(-0.5 * scaled**2 - self.log_sigma - HALF_LOG_2PI)


class GaussianOptimal(Location):
    """N(mean, sigma^2) with the sigma that fits the batch best: sigma^2 = mean squared error.

    Sigma-VAE (Rybkin et al. 2021, section 3.2). At the optimum the gradient through sigma is zero,
    so it is taken as a constant. A measured model has one sigma like any other: the running mean of
    the training batches' variances, kept with the weights.
    """

    variance: Tensor

    def __init__(self, config: GaussianOptimalConfig) -> None:
        super().__init__(config)
        self.min_variance, self.momentum = config.min_sigma**2, config.momentum
        self.register_buffer("variance", torch.tensor(1.0))

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        squared = (x - self.mean(params)) ** 2
        variance = self.variance
        if self.training:
            variance = squared.detach().mean().clamp(min=self.min_variance)
            self.variance.lerp_(variance, self.momentum)
        return _sum(-0.5 * (squared / variance + variance.log()) - HALF_LOG_2PI)


class Laplace(Location):
    """Laplace(mean, scale) in every data dimension: the L1 error and a constant."""

    def __init__(self, config: LaplaceConfig) -> None:
        super().__init__(config)
        self.scale = config.scale

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _sum(-(x - self.mean(params)).abs() / self.scale - math.log(2 * self.scale))


class SquaredError(Location):
    """Minus the plain sum of squares.

    A Gaussian with variance 1/2 whose log-density lacks the constant -log(pi)/2 a dimension, so its
    ELBO compares between models, not with that of a normalised likelihood.
    """

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _sum(-((x - self.mean(params)) ** 2))


def _sum(values: Tensor) -> Tensor:
    """Over the data dimensions. [K, B, *shape] -> [K, B]."""
    return values.flatten(2).sum(2)


class _BernoulliLogProb(torch.autograd.Function):
    """The sum of x l - softplus(l) with its gradient x - p, p = sigmoid(l), written out.

    softplus(l) is computed as relu(l) - log(max(p, 1 - p)): the same number as in torch's
    binary_cross_entropy_with_logits, several times faster on a CPU because log1p is avoided.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        p = logits.sigmoid()
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(x - p)
        log_prob = p.sub_(0.5).abs_().add_(0.5).log_()
        return _sum(log_prob.addcmul_(x.expand_as(logits), logits).sub_(logits.relu()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (slope,) = ctx.saved_tensors  # [K, B, *shape]
        return None, grad.reshape(*grad.shape, *[1] * (slope.dim() - 2)) * slope


def _bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log Bernoulli(x; sigmoid(logits)). x [B, *shape], logits [K, B, *shape] -> [K, B]."""
    if torch.compiler.is_compiling():
        return _sum(x * logits - F.softplus(logits))  # the compiler fuses this by itself
    result: Tensor = _BernoulliLogProb.apply(x, logits)
    return result


def _log_normaliser(logits: Tensor) -> Tensor:
    """log(l / tanh(l / 2)), the continuous Bernoulli's log C."""
    small = logits.abs() < SMALL_LOGIT
    safe = torch.where(small, 1.0, logits)  # no 0/0 in the branch that is not taken
    exact = (safe / torch.tanh(safe / 2)).log()
    return torch.where(small, math.log(2) + logits**2 / 12, exact)
