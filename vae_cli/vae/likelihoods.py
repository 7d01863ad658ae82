"""What a decoder's raw output means: the density p(x|z) and its mean.

Shapes: x [B, *shape], params [K, B, *shape] (a network's output, no sigmoid), results [K, B] in
nats, summed over the data dimensions, constants included unless a class says otherwise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from vae_cli.config import losses as schemas
from vae_cli.models.kernels import bernoulli_log_prob

LogCDF = Callable[[Tensor], Tensor]
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
        """Compute log p(x|z) in nats. x [B, *shape], params [K, B, *shape] -> [K, B].

        The sum has the precision of x and params: in float32, which training takes, it can be
        0.06 nats off at 3x64x64 values and 0.7 at 3x256x256; `analysis.measures` takes float64.
        """

    def log_mass(self, x: Tensor, params: Tensor) -> Tensor:
        """Compute log P(x|z) of 8-bit values x = k/255 under a density. Shapes as in log_prob.

        The probability of k is the density's mass from (k - 1/2)/255 to (k + 1/2)/255. The cells
        of 0 and 255 reach to the ends of the density, so the 256 probabilities sum to 1.
        """
        level = (255 * x).round()
        low = torch.where(level == 0, -math.inf, (level - 0.5) / 255)
        high = torch.where(level == 255, math.inf, (level + 0.5) / 255)
        return _sum(self.log_between(low, high, params))

    def log_between(self, low: Tensor, high: Tensor, params: Tensor) -> Tensor:
        """Compute log P(low < x < high | z) of each data dimension, for bits per dimension.

        low, high [B, *shape], perhaps infinite; params and result [K, B, *shape].
        """
        raise NotImplementedError(f"{type(self).__name__} has no distribution function")

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
        if self.domain != "binary" and x_is_binary:
            return "a density at binary values is no probability (use likelihood=bernoulli)"
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

    def log_between(self, low: Tensor, high: Tensor, params: Tensor) -> Tensor:
        # F(x) = (exp(l x) - 1) / (exp(l) - 1), which is x where l = 0; -|l| cannot overflow
        # away: from the interval to the end of [0, 1] where the density is largest
        low, high, minus = low.clamp(min=0), high.clamp(max=1), -params.abs().clamp(min=1e-30)
        away = torch.where(params > 0, 1 - high, low)
        return minus * away + (torch.expm1(minus * (high - low)) / torch.expm1(minus)).log()

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

    def _log_between(
        self, low: Tensor, high: Tensor, params: Tensor, scale: Tensor | float, log_cdf: LogCDF
    ) -> Tensor:
        """Compute `log_between` of a symmetric density; log_cdf: log F for mean 0 and scale 1."""
        mean = self.mean(params)
        low, high = (low - mean) / scale, (high - mean) / scale
        mirrored = low + high > 0  # log F keeps all digits in the lower tail, not in the upper
        below = log_cdf(torch.where(mirrored, -high, low))
        upto = log_cdf(torch.where(mirrored, -low, high))
        return upto + (-torch.expm1(below - upto)).log()  # log (F(high) - F(low))


class Gaussian(Location):
    """N(mean, sigma^2) in every data dimension, sigma fixed."""

    def __init__(self, config: schemas.GaussianConfig) -> None:
        super().__init__(config)
        self.sigma = config.sigma

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        constant = math.log(self.sigma) + HALF_LOG_2PI
        return _sum(-0.5 * ((x - self.mean(params)) / self.sigma) ** 2 - constant)

    def log_between(self, low: Tensor, high: Tensor, params: Tensor) -> Tensor:
        return self._log_between(low, high, params, self.sigma, log_ndtr)


class GaussianLearned(Location):
    """N(mean, sigma^2) with one sigma for all data dimensions, trained with the networks."""

    def __init__(self, config: schemas.GaussianLearnedConfig) -> None:
        super().__init__(config)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(config.sigma)))

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        scaled = (x - self.mean(params)) * (-self.log_sigma).exp()
        return _sum(-0.5 * scaled**2 - self.log_sigma - HALF_LOG_2PI)

    def log_between(self, low: Tensor, high: Tensor, params: Tensor) -> Tensor:
        return self._log_between(low, high, params, self.log_sigma.exp(), log_ndtr)


class GaussianOptimal(Location):
    """N(mean, sigma^2) with the sigma that fits the batch best: sigma^2 = mean squared error.

    Sigma-VAE (Rybkin et al. 2021, section 3.2). At the optimum the gradient through sigma is zero,
    so it is taken as a constant. In evaluation sigma is fixed: its square is the running mean of
    the training batches' variances, which is kept with the weights: of all batches at first, later
    with the weight `momentum` for the newest one.
    """

    variance: Tensor
    batches: Tensor  # how many there were

    def __init__(self, config: schemas.GaussianOptimalConfig) -> None:
        super().__init__(config)
        self.min_variance, self.momentum = config.min_sigma**2, config.momentum
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0.0))

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        squared = (x - self.mean(params)) ** 2
        variance = self.variance
        if self.training:
            variance = squared.detach().mean().clamp(min=self.min_variance)
            weight = self.batches.add_(1).reciprocal().clamp(min=self.momentum)
            self.variance.add_((variance - self.variance) * weight)
        return _sum(-0.5 * (squared / variance + variance.log()) - HALF_LOG_2PI)

    def log_between(self, low: Tensor, high: Tensor, params: Tensor) -> Tensor:
        return self._log_between(low, high, params, self.variance.sqrt(), log_ndtr)


class Laplace(Location):
    """Laplace(mean, scale) in every data dimension: the L1 error and a constant."""

    def __init__(self, config: schemas.LaplaceConfig) -> None:
        super().__init__(config)
        self.scale = config.scale

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _sum(-(x - self.mean(params)).abs() / self.scale - math.log(2 * self.scale))

    def log_between(self, low: Tensor, high: Tensor, params: Tensor) -> Tensor:
        return self._log_between(low, high, params, self.scale, _laplace_log_cdf)


class SquaredError(Location):
    """Minus the plain sum of squares.

    A Gaussian with variance 1/2 whose log-density lacks the constant -log(pi)/2 a dimension, so its
    ELBO compares between models, not with that of a normalised likelihood.
    """

    normalised = False

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return _sum(-((x - self.mean(params)) ** 2))


def _laplace_log_cdf(x: Tensor) -> Tensor:
    """Compute log F(x) of the Laplace density exp(-|x|) / 2."""
    return torch.where(x < 0, x - math.log(2), torch.log1p(-0.5 * (-x.abs()).exp()))


def _sum(values: Tensor) -> Tensor:
    """Sum over the data dimensions. [K, B, *shape] -> [K, B]."""
    return values.flatten(2).sum(2)
