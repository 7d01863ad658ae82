"""Objectives with a term of the aggregate posterior: q(z) = the mean of q(z|x) over all examples.

Shapes: B examples, K codes for an example, Z latent dimensions. Terms are estimated from a batch.
"""

import math
from abc import abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vae_cli.config import losses
from vae_cli.vae.objectives import ELBO, Drawn, Objective, Terms, Weight, terms
from vae_cli.vae.priors import Examples


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

    def __init__(self, config: losses.BetaTCVAEConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.stratified = config.estimator == "stratified"
        if self.stratified:  # kept with the weights: evaluation takes the N of the training
            self.register_buffer("examples", torch.tensor(math.nan))

    def learn_from(self, examples: Examples) -> None:
        if self.stratified:
            self.examples.fill_(examples.size)

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
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


class WithTerm(ELBO):
    """The loss of the ELBO, with its beta, and `weight` times a term of q(z)."""

    logged_as: str  # the term's name among the metrics
    weight = 1.0

    @abstractmethod
    def term(self, drawn: Drawn) -> Tensor:
        """Compute the term of a batch: a scalar."""

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        loss, metrics = super().forward(drawn, weight)
        term = self.term(drawn)
        loss = loss + self.weight * term
        return Terms(loss, metrics | {"loss": loss.detach(), self.logged_as: term.detach()})


class MMD(WithTerm):
    """The maximum mean discrepancy between q(z) and p(z), squared, without bias (InfoVAE).

    E k(z, z') + E k(p, p') - 2 E k(z, p) for codes z and draws p of the prior (Gretton et al. 2012,
    equation 3). `imq`: k = C / (C + |a - b|^2) (Tolstikhin et al. 2018), `rbf`: k = exp(-|a - b|^2
    / C) (Zhao et al. 2019), C = 2 Z bandwidth^2: the mean of |a - b|^2 under N(0, I) at bandwidth
    1. beta = 0 or a point posterior make it the Wasserstein autoencoder.
    """

    logged_as = "mmd"

    def __init__(self, config: losses.MMDConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.weight, self.is_rbf = config.weight, config.kernel == "rbf"
        self.scale = 2 * latent_dim * config.bandwidth**2

    def term(self, drawn: Drawn) -> Tensor:
        z = drawn.code.z
        batch, prior = z.shape[1], _of_prior(drawn)
        pairs = max(1, batch * (batch - 1))  # a batch of one has none, and k(z, z') counts 0

        def within(codes: Tensor) -> Tensor:
            return (self.kernel(codes, codes).sum((1, 2)) - batch) / pairs  # without k(z, z) = 1

        # of an example's K codes each is in another estimate: those in one are independent
        return (within(z) + within(prior) - 2 * self.kernel(z, prior).mean((1, 2))).mean()

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute k of all pairs. a, b [K, B, Z] -> [K, B, B]."""
        squared = (a[:, :, None] - b[:, None]).square().sum(-1)
        return (-squared / self.scale).exp() if self.is_rbf else self.scale / (self.scale + squared)


class DIP(WithTerm):
    """Weights on what the covariance of the codes has beside I (DIP-VAE, Kumar et al. 2018).

    off_diagonal sum_ij C_ij^2 (i != j) + diagonal sum_i (C_ii - 1)^2. Kind 1: C is the covariance
    of the posterior means; kind 2: of the codes, which adds the mean of the posterior variances.
    """

    logged_as = "dip"

    def __init__(self, config: losses.DIPConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.of_codes = config.kind == 2
        self.off_diagonal, self.diagonal = config.off_diagonal, config.diagonal

    def term(self, drawn: Drawn) -> Tensor:
        centred = drawn.posterior.mean - drawn.posterior.mean.mean(0)
        covariance = centred.T @ centred / len(centred)  # [Z, Z]
        variance = covariance.diagonal()
        others = covariance.square().sum() - variance.square().sum()
        if self.of_codes:
            variance = variance + drawn.posterior.stddev.square().mean(0)
        return self.off_diagonal * others + self.diagonal * (variance - 1).square().sum()


class Adversarial(WithTerm):
    """A term by an adversary: a network that learns to tell codes from other draws.

    Its output is the logit of one kind, so at its best log of the ratio of the two densities. Its
    LeakyReLU is that of Kim & Mnih 2018.
    """

    adversary: nn.Module

    def __init__(self, config: losses.AdversarialConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.weight = config.weight
        layers: list[nn.Module] = []
        for before, after in pairwise([latent_dim, *config.adversary_sizes]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.adversary = nn.Sequential(*layers, nn.Linear(config.adversary_sizes[-1], 1))

    @abstractmethod
    def against(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return draws of the logit's kind and of the other, from which the adversary learns."""

    def judged(self, z: Tensor) -> Tensor:
        """Compute the logit of codes, through which the codes learn but not the adversary."""
        stopped = {name: p.detach() for name, p in self.adversary.named_parameters()}
        logit: Tensor = functional_call(self.adversary, stopped, z)
        return logit

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        loss, metrics = super().forward(drawn, weight)
        one, other = (self.adversary(z.detach()) for z in self.against(drawn))
        adversary = 0.5 * (F.softplus(-one).mean() + F.softplus(other).mean())  # cross-entropy
        return Terms(loss + adversary, metrics | {"adversary": adversary.detach()})


class Factor(Adversarial):
    """The total correlation KL(q(z) || prod_j q(z_j)) as an adversary sees it (FactorVAE).

    It learns to tell codes from codes whose dimensions are permuted over the batch, each by itself
    (Kim & Mnih 2018, algorithm 2; the permuted codes are of the batch, there of a second one).
    """

    logged_as = "total_correlation_by_adversary"

    def term(self, drawn: Drawn) -> Tensor:
        return self.judged(drawn.code.z).mean()

    def against(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        z = drawn.code.z
        order = torch.rand(z.shape, generator=drawn.generator, device=z.device).argsort(1)
        return z, z.gather(1, order)


class AAE(Adversarial):
    """An adversary that tells draws of the prior from codes, which learn to look like draws.

    The adversarial autoencoder (Makhzani et al. 2016): -log of the probability that the adversary
    gives to codes being draws (the loss that does not saturate, Goodfellow et al. 2014, section 3).
    """

    logged_as = "deception"

    def term(self, drawn: Drawn) -> Tensor:
        deception: Tensor = -F.logsigmoid(self.judged(drawn.code.z)).mean()
        return deception

    def against(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        return _of_prior(drawn), drawn.code.z


def _of_prior(drawn: Drawn) -> Tensor:
    """Draw as many codes from the prior as the batch has. -> [K, B, Z]."""
    assert drawn.generator is not None
    samples, batch, _ = drawn.code.z.shape
    draws = drawn.prior.sample(samples * batch, drawn.generator, drawn.encode)
    return draws.view(samples, batch, -1)
