"""How codes and their densities become a loss, in nats an example.

Shapes: B examples, K codes for an example, Z latent dimensions.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.config import losses
from vae_cli.vae.posteriors import Code, DiagonalGaussian, Encode, Posterior
from vae_cli.vae.priors import KL, Examples, Prior


@dataclass
class Drawn:
    """A batch as an objective sees it. Densities and KL are computed only when asked for."""

    x: Tensor  # [B, *shape]
    posterior: Posterior
    code: Code
    log_likelihood: Tensor  # [K, B] log p(x|z) in nats
    prior: Prior
    encode: Encode
    generator: torch.Generator | None = None  # for an objective that draws more
    _log_ratio: Tensor | None = None  # cached by hand: torch.compile takes no cached_property

    @property
    def log_ratio(self) -> Tensor:
        """log p(z) - log q(z|x) in nats. [K, B]."""
        if self._log_ratio is None:
            log_p = self.prior.log_prob(self.code.z, self.encode, self.x)
            self._log_ratio = log_p - self.code.log_q()
        return self._log_ratio

    @property
    def kl(self) -> KL:
        """KL(q(z|x) || p(z)), in closed form or as the mean over K codes of log q - log p."""
        return self.prior.exact_kl(self.posterior) or KL(None, -self.log_ratio.mean(0))


class Weight(NamedTuple):
    """How the KL counts at a step: beta |KL - capacity|. Scalars on the device."""

    beta: Tensor
    capacity: Tensor  # nats; 0 except in the capacity schedule


class Terms(NamedTuple):
    """A loss and the numbers that are logged with it."""

    loss: Tensor  # scalar, to minimise
    metrics: dict[str, Tensor]  # loss, reconstruction, kl, elbo …: scalars, detached


class Objective(nn.Module, ABC):
    """A rule for the loss, without randomness or a step of its own: both are arguments.

    A module, so that an objective with networks of its own trains them with the others.
    """

    def __init__(self, config: losses.ObjectiveConfig) -> None:
        super().__init__()
        self.num_samples = config.num_samples  # K

    def learn_from(self, examples: Examples) -> None:
        """Take what the objective needs of the training set, before the first update."""

    @abstractmethod
    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        """Compute the loss of a batch whose codes have been drawn."""


class ELBO(Objective):
    """-E_q[log p(x|z)] + beta KL(q(z|x) || p(z)) (Kingma & Welling 2014).

    The expectation is a mean over K codes an example, the KL is exact where it can be; a beta other
    than 1 makes it the beta-VAE (Higgins et al. 2017), a capacity C the loss with beta |KL - C|
    (Burgess et al. 2018). free_bits: a dimension's mean KL below it costs as much as free_bits, so
    there is no gain in emptying it (Kingma et al. 2016, equation 15).
    """

    def __init__(self, config: losses.ElboConfig) -> None:
        super().__init__(config)
        self.free_bits = config.free_bits

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        reconstruction = -drawn.log_likelihood.mean()  # over K codes and B examples
        divergence = drawn.kl
        if divergence.by_dimension is not None:
            by_dimension = divergence.by_dimension.mean(0)  # [Z]
            kl = by_dimension.sum()
            charged = by_dimension.clamp(min=self.free_bits).sum() if self.free_bits else kl
            cost = (charged - weight.capacity).abs()
        else:
            kl = divergence.total.mean()
            # an estimate may be negative: without a capacity |KL| would push it up there
            excess = kl - weight.capacity
            cost = torch.where(weight.capacity > 0, excess.abs(), excess)
        return terms(reconstruction + weight.beta * cost, reconstruction, kl)


class IWAE(Objective):
    """-log (1/K) sum_k p(x|z_k) (p(z_k) / q(z_k|x))^beta (Burda et al. 2016 for beta = 1).

    With K = 1 a one-sample estimate of the ELBO; the larger K is, the tighter the bound.
    """

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        log_likelihood, log_ratio = drawn.log_likelihood, drawn.log_ratio  # [K, B]

        def bound(log_weight: Tensor) -> Tensor:
            return (torch.logsumexp(log_weight, 0) - math.log(len(log_weight))).mean()

        loss = -bound(log_likelihood + weight.beta * log_ratio)
        # at beta = 1, as the elbo is, so that runs compare; only logged, so without a gradient
        comparable = bound((log_likelihood + log_ratio).detach())
        return terms(loss, -log_likelihood.mean(), drawn.kl.total.mean(), bound=comparable)


class BetaTCVAE(Objective):
    """-E_q[log p(x|z)] + KL + (beta - 1) TC: beta weighs the total correlation alone.

    TC = KL(q(z) || prod_j q(z_j)) with q(z) the mean of all posteriors, estimated from B of the N
    training examples (Chen et al. 2018). `batch`: q(z) is the mean of the batch's posteriors
    (section 3.1), far too large an estimate in many dimensions. `stratified` (appendix C.2): an
    example's own posterior counts 1/N, each other one (N - 1) / (N (B - 1)). This is the paper's
    weighting, averaged over which of the others it takes for its last. q(z) has no bias then, and
    B = N gives the exact mean; the logarithm of q(z) has a smaller bias than under `batch`, of
    either sign. Both depend on B: compare between equal batch sizes only. A batch of one gives 0.
    """

    examples: Tensor  # N

    def __init__(self, config: losses.BetaTCVAEConfig) -> None:
        super().__init__(config)
        self.stratified = config.estimator == "stratified"
        if self.stratified:  # kept with the weights: evaluation takes the N of the training
            self.register_buffer("examples", torch.tensor(math.nan))

    def learn_from(self, examples: Examples) -> None:
        if self.stratified:
            self.examples.fill_(examples.size)

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        assert isinstance(drawn.posterior, DiagonalGaussian)
        reconstruction, kl = -drawn.log_likelihood.mean(), drawn.kl.total.mean()
        # log q(z_j | x_i) for every code and every example i of the batch: [K, B, B, Z]
        densities = drawn.posterior.log_prob_by_dimension(drawn.code.z[:, :, None, :])
        joint, batch = densities.sum(-1), densities.shape[2]
        if self.stratified and batch > 1:
            total, own = self.examples.to(joint.dtype), torch.eye(batch, device=joint.device)
            weights = torch.where(own > 0, 1 / total, (1 - 1 / total) / (batch - 1))  # [B, B]
            log_weights = weights.log() + math.log(batch)
            densities, joint = densities + log_weights[..., None], joint + log_weights
        log_joint = torch.logsumexp(joint, 2) - math.log(batch)  # [K, B]
        log_marginals = torch.logsumexp(densities, 2) - math.log(batch)  # [K, B, Z]
        correlation = (log_joint - log_marginals.sum(-1)).mean()
        loss = reconstruction + kl + (weight.beta - 1) * correlation
        return terms(loss, reconstruction, kl, total_correlation_of_batch=correlation)


def terms(loss: Tensor, reconstruction: Tensor, kl: Tensor, **others: Tensor) -> Terms:
    """Name the four numbers that every objective logs, and others; elbo is that of beta = 1."""
    numbers = {"loss": loss, "reconstruction": reconstruction, "kl": kl}
    metrics = {name: number.detach() for name, number in numbers.items()}
    metrics["elbo"] = -(metrics["reconstruction"] + metrics["kl"])
    return Terms(loss, metrics | {name: number.detach() for name, number in others.items()})
