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
from vae_cli.vae.posteriors import KL, Code, Encode, Posterior
from vae_cli.vae.priors import Examples, Prior


@dataclass
class Drawn:
    """A batch as an objective sees it. Densities and KL are computed only when asked for."""

    x: Tensor  # [B, *shape]
    posterior: Posterior
    code: Code
    log_likelihood: Tensor  # [K, B] log p(x|z) in nats
    prior: Prior
    encode: Encode
    labels: Tensor | None = None  # [B] int64, where the dataset has classes
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

    loss: Tensor  # scalar, to minimise; with an adversary the sum of its loss and the networks'
    metrics: dict[str, Tensor]  # loss, reconstruction, kl, elbo …: scalars, detached


class Objective(nn.Module, ABC):
    """A rule for the loss, without randomness or a step of its own: both are arguments.

    A module, so that an objective with networks of its own trains them with the others. Or
    against them: the parameters of `adversary` have an optimiser of their own. The loss then holds
    theirs too, a term whose gradient reaches them alone; metrics["loss"] is without it.
    """

    def __init__(self, config: losses.ObjectiveConfig, latent_dim: int) -> None:
        super().__init__()
        self.num_samples = config.num_samples  # K
        self.adversary: nn.Module | None = None

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

    def __init__(self, config: losses.ElboConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
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
    """Bounds from importance weights w_k = p(x|z_k) (p(z_k) / q(z_k|x))^beta of K codes.

    -log (1/K) sum_k w_k (Burda et al. 2016 for beta = 1): with K = 1 a one-sample estimate of the
    ELBO; the larger K is, the tighter the bound. groups: the mean of the bounds of so many equal
    parts of the codes (MIWAE), elbo_share: the part of the mean of log w_k in the loss, the rest
    is the bound's (CIWAE; both Rainforth et al. 2018).

    gradient, of the encoder alone: `stl` leaves out the score d log q / d parameters (Roeder et al.
    2017), which has mean 0 for one code to a group and otherwise not. `dreg` puts in its place what
    has an equal mean and less variance (Tucker et al. 2019; there for beta = 1).
    """

    def __init__(self, config: losses.IWAEConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.groups, self.elbo_share = config.groups, config.elbo_share
        self.gradient = config.gradient

    def forward(self, drawn: Drawn, weight: Weight) -> Terms:
        z, beta = drawn.code.z, weight.beta
        if self.gradient != "reparameterised":
            drawn.code = Code(z, lambda: drawn.posterior.stopped().log_prob(z))
        log_ratio = drawn.log_ratio  # [K, B], below [groups, K / groups, B]
        log_weight = (drawn.log_likelihood + beta * log_ratio).unflatten(0, (self.groups, -1))
        share = log_weight.detach().softmax(1)  # of each code in the gradient of its group's bound
        codes, rest = log_weight.shape[1], 1 - self.elbo_share
        if self.gradient == "dreg" and z.requires_grad:
            # with a = d loss / d log w, the score of q has the mean of beta (da/dz) (dz/dphi)
            whole = self.elbo_share / codes + rest * share
            change = rest * share * (1 - share) / whole.clamp(min=1e-30)
            factor = (1 - beta * change).flatten(0, 1)[..., None]  # [K, B, 1]
            z.register_hook(lambda gradient: gradient * factor)
        bound = (torch.logsumexp(log_weight, 1) - math.log(codes)).mean()
        loss = -(self.elbo_share * log_weight.mean() + rest * bound)
        # whatever the loss is made of, the bound of all K codes at beta = 1, so that runs compare
        log_weight = (drawn.log_likelihood + log_ratio).detach()
        comparable = (torch.logsumexp(log_weight, 0) - math.log(len(log_weight))).mean()
        kl = drawn.kl.total.mean()
        return terms(loss, -drawn.log_likelihood.mean(), kl, bound=comparable)


def terms(loss: Tensor, reconstruction: Tensor, kl: Tensor, **others: Tensor) -> Terms:
    """Name the four numbers that every objective logs, and others; elbo is that of beta = 1."""
    numbers = {"loss": loss, "reconstruction": reconstruction, "kl": kl}
    metrics = {name: number.detach() for name, number in numbers.items()}
    metrics["elbo"] = -(metrics["reconstruction"] + metrics["kl"])
    return Terms(loss, metrics | {name: number.detach() for name, number in others.items()})
