"""Measure a model on a whole split: the ELBO and its terms, KL by dimension, active units."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vae_cli.data.dataset import Data, Split, generator
from vae_cli.vae.objectives import Weight
from vae_cli.vae.vae import VAE

BATCH = 250  # fixed: the noise, and with it the numbers, depend on the seed alone; a loss that is
# no mean over examples is measured in the training's batches, so that it compares with training
ACTIVE_VARIANCE = 0.01  # of a posterior mean over the data (Burda et al. 2016, section 5.2)


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a model on a split."""

    metrics: dict[str, float]  # loss, reconstruction, kl, elbo: nats an example
    kl: Tensor | None  # [Z] mean KL of each dimension, nats; None: the prior has only their sum
    mean_variance: Tensor  # [Z] variance over the data of the posterior mean

    @property
    def active_units(self) -> int:
        """How many latent dimensions have a mean that varies by more than ACTIVE_VARIANCE."""
        return int((self.mean_variance > ACTIVE_VARIANCE).sum())

    def named(self, split: str) -> dict[str, float]:
        """The numbers by their names in metrics.jsonl and summary.json, such as val/elbo."""
        numbers = self.metrics | {"active_units": self.active_units}
        return {f"{split}/{name}": number for name, number in numbers.items()}


@dataclass(frozen=True)
class Codes:
    """The posteriors of a whole split, on the CPU."""

    mean: Tensor  # [N, Z]
    stddev: Tensor  # [N, Z], 0 for a deterministic code
    kl: Tensor | None  # [N, Z] nats; None: the prior has only the sum over dimensions


@torch.no_grad()
def evaluate(
    vae: VAE, data: Data, split: Split, beta: float, seed: int, capacity: float = 0.0
) -> Evaluation:
    """Average every term over a split. The seed decides noise and binarisation (`Data.fixed`)."""
    source = generator(split.x.device, seed, "evaluation")
    weight = Weight(*torch.tensor([beta, capacity], device=split.x.device))
    sums: dict[str, Tensor] = {}
    means, kls = [], []
    with evaluating(vae):
        for raw in data.fixed(split, seed).batches(None, vae.batch_size or BATCH):
            x = data.prepare(raw, source)
            noise = torch.randn(vae.noise_shape(len(x)), generator=source, device=x.device)
            posterior = vae.encode(x)
            for name, term in vae.terms(posterior, x, noise, weight, x).metrics.items():
                sums[name] = sums.get(name, 0) + term * len(x)
            means.append(posterior.mean)
            if (exact := vae.prior.exact_kl(posterior)) and exact.by_dimension is not None:
                kls.append(exact.by_dimension.sum(0))
    return Evaluation(
        metrics={name: float(total) / len(split) for name, total in sums.items()},
        kl=torch.stack(kls).sum(0).cpu() / len(split) if kls else None,
        mean_variance=torch.cat(means).var(0, unbiased=False).cpu(),
    )


def trouble(evaluation: Evaluation, vae: VAE, data: Data, split: Split, seed: int) -> str:
    """Name the numbers that are not finite and the first five examples that cause it; or ""."""
    names = [name for name, number in evaluation.metrics.items() if not math.isfinite(number)]
    if not names:
        return ""
    if data.binarize == "dynamic":  # examples as they were measured
        split, data = data.fixed(split, seed), replace(data, binarize="none")
    causes: list[int] = []
    for index in range(len(split)):
        one = split.take(torch.tensor([index], device=split.x.device))
        elbo = evaluate(vae, data, one, 1.0, seed).metrics["elbo"]
        causes += [] if math.isfinite(elbo) else [index]
        if len(causes) == 5:
            break
    examples = f" (examples {', '.join(map(str, causes))})" if causes else ""
    return f"{', '.join(names)} not finite{examples}"


@torch.no_grad()
def encode(vae: VAE, data: Data, split: Split, seed: int) -> Codes:
    """Compute the posterior of every example, in order. The seed is that of `Data.fixed`."""
    source = generator(split.x.device, seed, "evaluation")
    with evaluating(vae):
        batches = data.fixed(split, seed).batches(None, BATCH)
        parts = [vae.encode(data.prepare(x, source)) for x in batches]
    exact = [vae.prior.exact_kl(part) for part in parts]
    kls = [kl.by_dimension for kl in exact if kl and kl.by_dimension is not None]
    mean, stddev = torch.cat([p.mean for p in parts]), torch.cat([p.stddev for p in parts])
    return Codes(mean.cpu(), stddev.cpu(), torch.cat(kls).cpu() if kls else None)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for the block: BatchNorm uses its running statistics."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
