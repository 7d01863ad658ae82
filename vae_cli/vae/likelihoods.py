"""What a decoder's raw output means: the density p(x|z) and its mean.

Shapes: x [B, *shape], params [K, B, *shape] (a network's output, no sigmoid), results [K, B] in
nats, summed over the data dimensions, constants included unless a class says otherwise.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vae_cli.config import losses as schemas
from vae_cli.models.kernels import bernoulli_log_prob

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
SMALL_LOGIT = 0.03  # below, Taylor series are exact to float32 and the closed forms are not


class Likelihood(nn.Module, ABC):
    """p(x|z). A module, so that one with parameters of its own trains with the networks."""

    normalised: ClassVar[bool] = True  # False: a loss without its constant
    domain: ClassVar[Literal["binary", "unit", "real"]] = "real"  # of the x that have a density

    def __init__(self, config: schemas.LikelihoodConfig) -> None:
        super().__init__()

    @abstractmethod
    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """Compute log p(x|z) in nats. x [B, *shape], params [K, B, *shape] -> [K, B]."""

    def mean(self, params: Tensor) -> Tensor:
        """Compute E[x|z], for pictures and reconstructions. params and result [K, B, *shape]."""
        return params

    def raw_of_mean(self, mean: Tensor, examples: int) -> Tensor:
        """Compute the output whose `mean` this is, the mean of so many examples. Any shape.

        A logit stays finite: 0 and 1 count as one exception among examples + 2 (Laplace's rule).
        """
        return mean

    def note(self, x_is_binary: bool) -> str | None:
        """Say why the numbers are no log-likelihood of the data; None where they are one."""
        if not self.normalised:
            return "the likelihood is not normalised: compare with the same likelihood only"
        if self.domain == "binary" and not x_is_binary:
            return "grey values have no probability under this likelihood: the bound is on a loss"
        return None


class Bernoulli(Likelihood):
    """Independent Bernoulli variables with the network's output as logits.

    For x between 0 and 1 this is the usual cross-entropy: a loss, not a likelihood of grey values.
    """

    domain: ClassVar[Literal["binary", "unit"]] = "binary"

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return bernoulli_log_prob(x, params)

    def mean(self, params: Tensor) -> Tensor:
        return params.sigmoid()

    def raw_of_mean(self, mean: Tensor, examples: int) -> Tensor:
        return mean.logit(1 / (examples + 2))


class ContinuousBernoulli(Bernoulli):
    """A normalised density on [0, 1] from logits (Loaiza-Ganem & Cunningham 2019).

    With l the logit, the Bernoulli's x l - softplus(l) gains log C = log(l / tanh(l / 2)). Training
    starts at the Bernoulli's logit of a mean m: the exact one, -1 / m for a pixel that is nearly
    always dark, would make a bright one cost as many nats.
    """

    domain = "unit"

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        small = params.abs() < SMALL_LOGIT
        safe = torch.where(small, 1.0, params)  # no 0/0 in the branch that is not taken
        exact = (safe / torch.tanh(safe / 2)).log()
        log_c = torch.where(small, math.log(2) + params**2 / 12, exact)
        return bernoulli_log_prob(x, params) + _sum(log_c)

    def mean(self, params: Tensor) -> Tensor:
        # 1 / (1 - exp(-l)) - 1 / l, and its Taylor series where both terms are huge
        small = params.abs() < SMALL_LOGIT
        safe = torch.where(small, 1.0, params)
        exact = 1 / -torch.expm1(-safe) - 1 / safe
        return torch.where(small, 0.5 + params / 12, exact)


class Location(Likelihood):
    """A density around a mean that is the network's output, or its sigmoid for data in [0, 1]."""

    def __init__(self, config: schemas.LocationConfig) -> None:
        super().__init__(config)
        self.squash = config.output == "sigmoid"

    def mean(self, params: Tensor) -> Tensor:
        return params.sigmoid() if self.squash else params

    def raw_of_mean(self, mean: Tensor, examples: int) -> Tensor:
        return mean.logit(1 / (examples + 2)) if self.squash else mean


class Gaussian(Location):
    """N(mean, sigma^2) in every data dimension, sigma fixed."""

    def __init__(self, config: schemas.GaussianConfig) -> None:
        super().__init__(config)
        self.sigma = config.sigma

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        constant = math.log(self.sigma) + HALF_LOG_2PI
        return _sum(-0.5 * ((x - self.mean(params)) / self.sigma) ** 2 - constant)


class GaussianLearned(Location):
    """N(mean, sigma^2) with one sigma for all data dimensions, trained with the networks."""

    def __init__(self, config: schemas.GaussianLearnedConfig) -> None:
        super().__init__(config)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(config.sigma)))

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        scaled = (x - self.mean(params)) * (-self.log_sigma).exp()
        return _sum(-0.5 * scaled**2 - self.log_sigma - HALF_LOG_2PI)


class GaussianOptimal(Location):
    """N(mean, sigma^2) with the sigma that fits the batch best: sigma^2 = mean squared error.

    Sigma-VAE (Rybkin et al. 2021, section 3.2). At the optimum the gradient through sigma is zero,
    so it is taken as a constant. In evaluation sigma is fixed: its square is the running mean of
    the training batches' variances, which is kept with the weights.
    """

    variance: Tensor

    def __init__(self, config: schemas.GaussianOptimalConfig) -> None:
        super().__init__(config)
        self.min_variance, self.momentum = config.min_sigma**2, config.momentum
        self.register_buffer("variance", torch.tensor(1.0))

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        squared = (x - self.mean(params)) ** 2
        variance = self.variance
        if self.training:
            variance = squared.detach().mean().clamp(min=self.min_variance)
            self.variance.add_(variance - self.variance, alpha=self.momentum)
        return _sum(-0.5 * (squared / variance + variance.log()) - HALF_LOG_2PI)


class Laplace(Location):
    """Laplace(mean, scale) in every data dimension: the L1 error and a constant."""

    def __init__(self, config: schemas.LaplaceConfig) -> None:
        super().__init__(config)
        self.scale = config.scale

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _sum(-(x - self.mean(params)).abs() / self.scale - math.log(2 * self.scale))


class SquaredError(Location):
    """Minus the plain sum of squares.

    A Gaussian with variance 1/2 whose log-density lacks the constant -log(pi)/2 a dimension, so its
    ELBO compares between models, not with that of a normalised likelihood.
    """

    normalised = False

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _sum(-((x - self.mean(params)) ** 2))


def _sum(values: Tensor) -> Tensor:
    """Sum over the data dimensions. [K, B, *shape] -> [K, B]."""
    return values.flatten(2).sum(2)
