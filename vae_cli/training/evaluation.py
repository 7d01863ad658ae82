"""Measure a model on a whole split: the ELBO and its terms, KL by dimension, active units."""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vae_cli.data.dataset import Data, Split, generator
from vae_cli.vae.likelihoods import Likelihood
from vae_cli.vae.objectives import Weight
from vae_cli.vae.priors import VALUES
from vae_cli.vae.vae import VAE

BATCH = 250  # fixed: the noise, and with it the numbers, depend on the seed alone; a loss that is
# no mean over examples is measured in the training's batches, so that it compares with training
ACTIVE_VARIANCE = 0.01  # of a posterior mean over the data (Burda et al. 2016, section 5.2)


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a model on a split."""

    metrics: dict[str, float]  # loss, reconstruction, kl, elbo and others: nats an example
    kl: Tensor | None  # [Z] mean KL of each dimension, nats; None: only their sum is known
    mean_variance: Tensor  # [Z] variance over the data of the posterior mean

    @property
    def active_units(self) -> int:
        """How many latent dimensions have a mean that varies by more than ACTIVE_VARIANCE."""
        return int((self.mean_variance > ACTIVE_VARIANCE).sum())

    def named(self, split: str) -> dict[str, float]:
        """The numbers by their names in metrics.jsonl and summary.json, such as val/elbo."""
        numbers = self.metrics | {"active_units": self.active_units}
        return {f"{split}/{name}": number for name, number in numbers.items()}

    def rows(self, split: str, has_kl: bool) -> dict[str, str]:
        """The numbers as rows of a table, by names such as 'val elbo'; an autoencoder has no KL."""
        units = {
            "nll": " nats",
            "elbo": " nats (beta = 1)",
            "reconstruction": " nats" * (not has_kl),
        }
        names = ("nll", "bound", "elbo", "reconstruction", "kl") if has_kl else ("reconstruction",)
        terms = [name for name in names if name in self.metrics]
        rows = {f"{split} {t}": f"{self.metrics[t]:.3f}{units.get(t, '')}" for t in terms}
        return rows | {"active units": f"{self.active_units} of {len(self.mean_variance)}"}


@dataclass(frozen=True)
class Codes:
    """The posteriors of a whole split, on the CPU."""

    mean: Tensor  # [N, Z]
    stddev: Tensor  # [N, Z], 0 for a deterministic code
    drawn: Tensor  # [N, Z] one draw from each; a deterministic code itself
    kl: Tensor | None  # [N, Z] nats; None: only the sum over dimensions is known


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
        fixed = data.fixed(split, seed)
        for raw, labels in fixed.labelled(None, vae.batch_size or BATCH):
            x = data.prepare(raw, source)
            noise = torch.randn(vae.noise_shape(len(x)), generator=source, device=x.device)
            posterior = vae.encode(x, labels)
            terms = vae.terms(posterior, x, noise, weight, x, source, labels)
            for name, term in terms.metrics.items():
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
    split, data = data.fixed(split, seed), data.undrawn  # examples as they were measured
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
    draws = generator(split.x.device, seed, "codes")
    means, stddevs, drawn, kls = [], [], [], []
    with evaluating(vae):
        for raw, labels in data.fixed(split, seed).labelled(None, BATCH):
            posterior = vae.encode(data.prepare(raw, source), labels)
            noise = torch.randn((1, len(raw), vae.latent_dim), generator=draws, device=raw.device)
            means.append(posterior.mean.cpu())
            stddevs.append(posterior.stddev.cpu())
            drawn.append(posterior.sample(noise).z[0].cpu())
            if (exact := vae.prior.exact_kl(posterior)) and exact.by_dimension is not None:
                kls.append(exact.by_dimension.cpu())
    mean, stddev, draw = (torch.cat(part) for part in (means, stddevs, drawn))
    return Codes(mean, stddev, draw, torch.cat(kls) if kls else None)


def log_likelihoods(
    vae: VAE, data: Data, split: Split, count: int, seed: int, order: Tensor | None = None
) -> list[Tensor]:
    """Estimate log p(x) of a split as `log_likelihood` does, or of its examples `order` [M].

    The seed decides noise and binarisation (`Data.fixed`). -> log p(x) in nats and the effective
    number of codes, each [M] float64 on the CPU.
    """
    source, total = generator(split.x.device, seed, "nll"), len(split if order is None else order)
    batches = data.fixed(split, seed).labelled(order, BATCH)
    bar = tqdm(batches, "log p(x)", math.ceil(total / BATCH), disable=None, leave=False)
    return log_likelihood(vae, ((data.prepare(x, source), y) for x, y in bar), count, source)


class InFloat64(Likelihood):
    """A copy of a likelihood that computes in float64 (on Apple's GPUs, which lack it, in float32).

    levels: give the probability of 8-bit grey levels in place of their density.
    """

    def __init__(self, likelihood: Likelihood, levels: bool = False) -> None:
        nn.Module.__init__(self)
        self.inner, self.levels = copy.deepcopy(likelihood), levels

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        dtype = torch.float32 if params.device.type == "mps" else torch.float64
        double = self.inner.to(dtype)
        compute = double.log_mass if self.levels else double.log_prob
        parts = zip(x.to(dtype).split(10), params.split(10, 1), strict=True)  # to save memory
        return torch.cat([compute(part, raw.to(dtype)) for part, raw in parts], 1)


@torch.no_grad()
def log_likelihood(
    vae: VAE, batches: Iterable[tuple[Tensor, Tensor | None]], count: int, source: torch.Generator
) -> list[Tensor]:
    """Estimate log p(x) as log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), K = count.

    In expectation a lower bound that grows with K (Burda et al. 2016, section 5). The networks run
    in their own precision, all densities and sums in float64. Batches of x [B, *shape] and labels
    [B] or None, N examples together -> log p(x), and the effective number of codes (sum w)^2 /
    sum w^2 (Kong 1992), [N] float64 on the CPU. Raises TypeError for a plain autoencoder, whose
    codes have no density.
    """
    results, rows = [], 0
    with evaluating(vae):
        likelihood, log_prior = InFloat64(vae.likelihood), vae.prior.density(vae.encode)
        precise = torch.float32 if source.device.type == "mps" else torch.float64
        for examples, given in (part for b in batches for part in Split(*b).labelled(None, 50)):
            posterior = vae.encode(examples, given)
            first = torch.full((len(examples),), -math.inf, dtype=torch.float64)
            second = first.clone()  # log-sum-exp of the weights, and of their squares
            rows = rows or codes_at_once(vae, given)
            portion = max(1, rows // len(examples))
            for done in range(0, count, portion):
                shape = (min(portion, count - done), len(examples), vae.latent_dim)
                noise = torch.randn(shape, generator=source, device=examples.device)
                code = posterior.sample(noise.to(precise))  # so that its densities are precise too
                log_weight = likelihood.log_prob(examples, vae.decode(code.z.float(), given)).cpu()
                log_ratio = log_prior(code.z) - code.log_q()  # [K, B]
                log_weight = log_weight.double() + log_ratio.cpu().double()
                first = torch.logaddexp(first, log_weight.logsumexp(0))
                second = torch.logaddexp(second, (2 * log_weight).logsumexp(0))
            results.append((first - math.log(count), (2 * first - second).exp()))
    return [torch.cat(part) for part in zip(*results, strict=True)]


def codes_at_once(vae: VAE, labels: Tensor | None) -> int:
    """Return for how many codes the decoder's largest layer has VALUES numbers; labels [B] or None.

    With more, a convolution's images leave the processor's cache: 5,300 codes at a time took
    conv_vae twice as long as 150, and the MLP needs 2,000 to be at its fastest.
    """
    sizes = [1]

    def note(layer: nn.Module, inputs: object, output: Tensor) -> None:
        sizes.append(output.numel())

    z = next(vae.parameters()).new_zeros(1, 1, vae.latent_dim)
    with nn.modules.module.register_module_forward_hook(note):
        vae.decode(z, None if labels is None else labels[:1])
    return VALUES // max(sizes)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for the block: BatchNorm uses its running statistics."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
