"""Objectives: how (posterior, z, log p(x|z)) become a loss and its terms, in nats an example.

Shapes: B examples, K codes an example, Z latent dimensions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from vae_cli.posteriors import DiagonalGaussian, Posterior
from vae_cli.schema.losses import ElboConfig, ObjectiveConfig


class Weight(NamedTuple):
    """How the KL counts at a step: beta |KL - capacity|. Scalars on the device."""

    beta: Tensor
    capacity: Tensor  # nats; 0 but for the capacity schedule


class Terms(NamedTuple):
    """What an objective returns."""

    loss: Tensor  # scalar, to minimise
    metrics: dict[str, Tensor]  # loss, reconstruction, kl, elbo …: scalars, detached


class Objective(ABC):
    """A rule for the loss. No state, no randomness: both are arguments."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.num_samples = config.num_samples

    @abstractmethod
    def __call__(
        self, posterior: Posterior, z: Tensor, log_likelihood: Tensor, weight: Weight
    ) -> Terms:
        """z [K, B, Z], log_likelihood [K, B] = log p(x|z)."""


class ELBO(Objective):
    """-E_q[log p(x|z)] + beta KL(q(z|x) || p(z)) (Kingma & Welling 2014).

    The expectation is a mean over K codes an example, the KL is exact; a beta other than 1 makes
    it the beta-VAE (Higgins et al. 2017), a capacity C the loss with beta |KL - C| (Burgess et al.
    2018). free_bits: a dimension's mean KL below it costs as much as free_bits, so there is no gain
    in emptying it (Kingma et al. 2016, equation 15).
    """

    def __init__(self, config: ElboConfig) -> None:
        super().__init__(config)
        self.free_bits = config.free_bits

    def __call__(
        self, posterior: Posterior, z: Tensor, log_likelihood: Tensor, weight: Weight
    ) -> Terms:
        reconstruction = -log_likelihood.mean()  # over K codes and B examples
        by_dimension = posterior.kl().mean(0)  # [Z]
        kl = by_dimension.sum()
        charged = by_dimension.clamp(min=self.free_bits).sum() if self.free_bits else kl
        loss = reconstruction + weight.beta * (charged - weight.capacity).abs()
        return Terms(loss, standard_metrics(loss, reconstruction, kl))


class IWAE(Objective):
    """-log (1/K) sum_k p(x|z_k) (p(z_k) / q(z_k|x))^beta (Burda et al. 2016 for beta = 1).

    With K = 1 a one-sample estimate of the ELBO; the larger K is, the tighter the bound.
    """

    def __call__(
        self, posterior: Posterior, z: Tensor, log_likelihood: Tensor, weight: Weight
    ) -> Terms:
        log_ratio = log_prior(z) - posterior.log_prob(z)  # [K, B]
        log_weight = log_likelihood + weight.beta * log_ratio
        bound = torch.logsumexp(log_weight, 0) - math.log(len(z))  # [B]
        loss = -bound.mean()
        kl = posterior.kl().sum(-1).mean()
        return Terms(loss, standard_metrics(loss, -log_likelihood.mean(), kl))


class BetaTCVAE(Objective):
    """-E_q[log p(x|z)] + KL + (beta - 1) TC: beta weighs the total correlation alone.

    TC = KL(q(z) || prod_j q(z_j)), with q(z) the mean of the batch's posteriors (Chen et al. 2018,
    section 3.1; their log N terms are constants without a gradient and are left out). The estimate
    depends on the batch it is made from, so compare it between equal batch sizes only.
    """

    def __call__(
        self, posterior: Posterior, z: Tensor, log_likelihood: Tensor, weight: Weight
    ) -> Terms:
        assert isinstance(posterior, DiagonalGaussian)
        reconstruction = -log_likelihood.mean()
        kl = posterior.kl().sum(-1).mean()
        correlation = total_correlation(posterior, z)
        loss = reconstruction + kl + (weight.beta - 1) * correlation
        metrics = standard_metrics(loss, reconstruction, kl)
        return Terms(loss, metrics | {"total_correlation": correlation.detach()})


def total_correlation(posterior: DiagonalGaussian, z: Tensor) -> Tensor:
    """KL(q(z) || prod_j q(z_j)) in nats, q being the mixture of the batch's posteriors.

    z [K, B, Z], drawn from them -> scalar.
    """
    # log q(z_j | x_i) for every code and every example i of the batch: [K, B, B, Z]
    densities = posterior.log_prob_by_dimension(z[:, :, None, :])
    log_batch = math.log(densities.shape[2])
    log_joint = torch.logsumexp(densities.sum(-1), 2) - log_batch  # [K, B]
    log_marginals = torch.logsumexp(densities, 2) - log_batch  # [K, B, Z]
    return (log_joint - log_marginals.sum(-1)).mean()


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats. [..., Z] -> [...]."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)


def standard_metrics(loss: Tensor, reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """The four numbers that are logged whatever the objective: elbo is always that of beta = 1."""
    metrics = {
        "loss": loss,
        "reconstruction": reconstruction,
        "kl": kl,
        "elbo": -(reconstruction + kl),
    }
    return {name: term.detach() for name, term in metrics.items()}
