"""What a trained model has learned: log-likelihood, information in the code, walks through codes.

Shapes: B or N examples, K codes an example, Z latent dimensions. Information is in nats.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_cli.data.interface import Data
from vae_cli.evaluation import Codes, evaluating
from vae_cli.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    GaussianLearned,
    GaussianOptimal,
    Laplace,
    Likelihood,
    SquaredError,
)
from vae_cli.objectives import log_prior
from vae_cli.posteriors import DiagonalGaussian
from vae_cli.schema.datasets import Binarize
from vae_cli.vae import VAE

IMAGES = 50  # examples at a time; their codes are drawn in portions of at most
VALUES = 2**22  # decoded values (16 MiB in float32): memory does not grow with K or N
PAIRS = 2**22  # densities of codes under posteriors that are kept at a time

DENSITIES = (ContinuousBernoulli, Gaussian, GaussianLearned, GaussianOptimal, Laplace)


@dataclass(frozen=True)
class Estimate:
    """A mean over examples with its standard error (standard deviation / sqrt(N))."""

    value: float
    standard_error: float


def mean_and_error(values: Tensor) -> Estimate:
    """The mean over examples. [N] -> Estimate; one example has no standard error (NaN)."""
    values = values.double()
    error = values.std() / math.sqrt(len(values)) if len(values) > 1 else torch.tensor(math.nan)
    return Estimate(float(values.mean()), float(error))


# ----------------------------------------------------------------------------------- log-likelihood


@dataclass(frozen=True)
class LogLikelihood:
    """An importance-weighted estimate for every example, on the CPU."""

    values: Tensor  # [N] float64, log p(x) in nats
    effective_samples: Tensor  # [N] float64, from 1 to K: near K, q(z|x) is the true posterior


@torch.no_grad()
def log_likelihood(
    vae: VAE,
    x: Tensor,
    num_samples: int,
    source: torch.Generator,
    advance: Callable[[int], object] = lambda codes: None,
) -> LogLikelihood:
    """log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x) (Burda et al. 2016, section 5).

    In expectation a lower bound of log p(x) that grows with K = num_samples. x [N, *shape] as the
    network takes it; noise comes from `source`, on x's device. The sum over k is a running
    log-sum-exp in float64, so memory does not grow with K. `advance(n)` hears of n more codes.
    """
    results = []
    with evaluating(vae):
        for examples in x.split(IMAGES):
            posterior = vae.encode(examples)
            if not isinstance(posterior, DiagonalGaussian):
                raise TypeError("a deterministic autoencoder has no density of codes and no p(x)")
            portion = max(1, VALUES // examples.numel())
            first = torch.full((len(examples),), -math.inf, dtype=torch.float64)
            second = first.clone()  # log-sum-exp of the weights, and of their squares
            for begin in range(0, num_samples, portion):
                count = min(portion, num_samples - begin)
                shape = (count, len(examples), vae.model.latent_dim)
                z = posterior.sample(torch.randn(shape, generator=source, device=x.device))
                log_joint = vae.likelihood.log_prob(examples, vae.decode(z)) + log_prior(z)
                log_weight = (log_joint - posterior.log_prob(z)).cpu().double()  # [count, B]
                first = torch.logaddexp(first, log_weight.logsumexp(0))
                second = torch.logaddexp(second, (2 * log_weight).logsumexp(0))
                advance(count * len(examples))
            # effective sample size (sum w)^2 / sum w^2 (Kong 1992)
            results.append((first - math.log(num_samples), (2 * first - second).exp()))
    values, effective = zip(*results, strict=True)
    return LogLikelihood(torch.cat(values), torch.cat(effective))


def bits_per_dimension(elbo: float, data: Data, likelihood: Likelihood) -> tuple[float | None, str]:
    """Upper bound of the code length in bits a data dimension, and what it assumes.

    -elbo / (D ln 2) for binary data under a Bernoulli likelihood. For 8-bit values x = k / 255
    under a density, the mass of a value is taken as density * 1/255 (the width of its cell), which
    adds log2(255) bits. Otherwise None and the reason.
    """
    dimensions = math.prod(data.shape)
    bits = -elbo / (dimensions * math.log(2))
    binary = data.binarize is not Binarize.none
    if isinstance(likelihood, SquaredError):
        return None, "squared_error is not normalised (use gaussian)"
    if isinstance(likelihood, Bernoulli):
        if binary:
            return bits, f"{data.binarize.name} binarised data, probability of 0 and 1"
        return None, "bernoulli gives no probability of grey values"
    if binary:
        return None, "a density at binary values is no probability (use bernoulli)"
    if data.train.x.dtype != torch.uint8:
        return None, "the data is not stored in 8 bits"
    if not isinstance(likelihood, DENSITIES):
        return None, f"{type(likelihood).__name__} is not known as a density"
    return (
        bits + math.log2(255),
        "8-bit values k/255, probability = density x 1/255, no dequantisation noise",
    )


# ------------------------------------------------------------------------------------------- codes


def mutual_information(codes: Codes, source: torch.Generator) -> Estimate:
    """I_q(x; z) = KL(q(x, z) || q(x) q(z)) in nats, for the N examples of `codes`.

    The mean over examples of log q(z_n|x_n) - log (1/N) sum_m q(z_n|x_m), z_n ~ q(z|x_n) drawn from
    `source` (on the CPU): the index-code mutual information of Hoffman & Johnson 2016 with the
    aggregate posterior of all N codes (not a minibatch as in Chen et al. 2018). Every term, and so
    the estimate, is at most log N.
    """
    mean, stddev = codes.mean.double(), codes.stddev.double()
    if not bool((stddev > 0).all()):
        raise TypeError("a deterministic code has no density: its information is not finite")
    n = len(mean)
    z = mean + stddev * torch.randn(mean.shape, generator=source, dtype=torch.float64)
    log_scale = stddev.log().sum(1)  # [N]; constants cancel between the two terms
    own = -0.5 * ((z - mean) / stddev).square().sum(1) - log_scale
    # sum_d ((z - mean) / stddev)^2 as matrix products, all pairs [rows, N] a block at a time
    precision = stddev.square().reciprocal()
    scaled, offset = mean * precision, (mean.square() * precision).sum(1)
    mixtures = []
    for rows in z.split(max(1, PAIRS // n)):
        squared = rows.square() @ precision.T - 2 * rows @ scaled.T + offset
        mixtures.append((-0.5 * squared - log_scale).logsumexp(1) - math.log(n))
    return mean_and_error(own - torch.cat(mixtures))


def aggregate_moments(codes: Codes) -> tuple[Tensor, Tensor]:
    """Mean [Z] and variance [Z] of the aggregate posterior (1/N) sum_n q(z|x_n).

    The variance is that of the means plus the mean of the variances; the prior's are 0 and 1.
    """
    variance = codes.mean.var(0, unbiased=False) + codes.stddev.square().mean(0)
    return codes.mean.mean(0), variance


def most_active(codes: Codes) -> Tensor:
    """Latent dimensions by falling mean KL or, for deterministic codes, variance. [Z] int64."""
    kl = codes.kl.mean(0)
    activity = kl if bool((kl > 0).any()) else codes.mean.var(0, unbiased=False)
    return activity.argsort(descending=True, stable=True)


@dataclass(frozen=True)
class Probe:
    """A linear classifier of codes."""

    train_accuracy: float
    test_accuracy: float
    converged: bool


def linear_probe(train: Codes, train_labels: Tensor, test: Codes, test_labels: Tensor) -> Probe:
    """Multinomial logistic regression on posterior means, fitted to the training codes.

    Each dimension is standardised with the training codes' mean and variance; scikit-learn's
    LogisticRegression with its own L2 penalty (C = 1), at most 1,000 iterations of L-BFGS.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    iterations = 1000
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as `converged`
        classifier.fit(train.mean.numpy(), train_labels.cpu().numpy())
    return Probe(
        float(classifier.score(train.mean.numpy(), train_labels.cpu().numpy())),
        float(classifier.score(test.mean.numpy(), test_labels.cpu().numpy())),
        bool(classifier[-1].n_iter_.max() < iterations),
    )


# ------------------------------------------------------------------------------------------- walks


@torch.no_grad()
def interpolate(vae: VAE, start: Tensor, end: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The straight line between the posterior means of two examples, decoded.

    start, end [*shape] -> codes [steps, Z] and E[x|z] [steps, *shape], both ends included.
    """
    with evaluating(vae):
        first, last = vae.encode(torch.stack([start, end])).mean
        share = torch.linspace(0, 1, steps, device=first.device)[:, None]
        z = torch.lerp(first, last, share)
        return z, vae.mean(z)


@torch.no_grad()
def traverse(vae: VAE, origin: Tensor, dims: Tensor, values: Tensor) -> Tensor:
    """One dimension at a time set to each of its values, the others as in `origin`, decoded.

    origin [Z], dims [D] int64, values [D, S] -> E[x|z] [D, S, *shape].
    """
    z = origin.repeat(*values.shape, 1)  # [D, S, Z]
    for row, dim in enumerate(dims.tolist()):
        z[row, :, dim] = values[row]
    with evaluating(vae):
        decoded: Tensor = vae.mean(z.flatten(0, 1)).unflatten(0, values.shape)
    return decoded
