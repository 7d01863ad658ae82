"""Measuring a model on a whole split: the ELBO and its terms, KL by dimension, active units."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vae_cli.data.interface import Data, Split
from vae_cli.objectives import Weight
from vae_cli.randomness import generator
from vae_cli.vae import VAE

# fixed, so that the noise of an evaluation and with it the numbers depend on the seed alone
BATCH = 250
# a dimension is active when its posterior mean varies by more than this over the data
# (Burda et al. 2016, section 5.2)
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Evaluation:
    """A model measured on a split."""

    metrics: dict[str, float]  # loss, reconstruction, kl, elbo: nats an example
    kl: Tensor  # [Z] mean KL of each latent dimension, nats
    mean_variance: Tensor  # [Z] variance over the data of the posterior mean

    @property
    def active(self) -> Tensor:
        """Which dimensions are active. [Z] bool."""
        return self.mean_variance > ACTIVE_VARIANCE

    @property
    def active_units(self) -> int:
        """How many dimensions are active."""
        return int(self.active.sum())


@torch.no_grad()
def evaluate(
    vae: VAE, data: Data, split: Split, beta: float, seed: int, capacity: float = 0.0
) -> Evaluation:
    """The mean of every term over a split, with `beta` (and `capacity`, nats) in the loss.

    The same seed gives the same noise (and the same dynamic binarisation) at every call.
    """
    device = split.x.device
    noise_generator = generator(device, seed, "evaluation")
    weight = Weight(torch.tensor(beta, device=device), torch.tensor(capacity, device=device))
    sums: dict[str, Tensor] = {}
    means, kls = [], []
    with evaluating(vae):
        for raw in split.batches(None, BATCH):
            x = data.prepare(raw, noise_generator)
            shape = (vae.objective.num_samples, len(x), vae.model.latent_dim)
            noise = torch.randn(shape, generator=noise_generator, device=device)
            posterior = vae.encode(x)
            metrics = vae.terms(posterior, x, noise, weight, x).metrics
            for name, term in metrics.items():
                sums[name] = sums.get(name, 0) + term * len(x)
            means.append(posterior.mean)
            kls.append(posterior.kl().sum(0))
    count = len(split)
    return Evaluation(
        metrics={name: float(total) / count for name, total in sums.items()},
        kl=torch.stack(kls).sum(0).cpu() / count,
        mean_variance=torch.cat(means).var(0, unbiased=False).cpu(),
    )


@dataclass(frozen=True)
class Codes:
    """The posteriors of a whole split, on the CPU."""

    mean: Tensor  # [N, Z]
    stddev: Tensor  # [N, Z], 0 for a deterministic code
    kl: Tensor  # [N, Z] nats


@torch.no_grad()
def encode(vae: VAE, data: Data, split: Split, seed: int) -> Codes:
    """The posterior of every example, in order. The seed decides a dynamic binarisation."""
    source = generator(split.x.device, seed, "evaluation")
    means, stddevs, kls = [], [], []
    with evaluating(vae):
        for raw in split.batches(None, BATCH):
            posterior = vae.encode(data.prepare(raw, source))
            means.append(posterior.mean.cpu())
            stddevs.append(posterior.stddev.cpu())
            kls.append(posterior.kl().cpu())
    return Codes(torch.cat(means), torch.cat(stddevs), torch.cat(kls))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode (BatchNorm uses what it has learned), back to the former mode afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
