"""Densities that are fitted to the codes of a trained run, to draw from: `task=sample sampler=…`.

N codes of Z dimensions, one draw from q(z|x) for each training example: the decoder was trained on
such draws. (Of a plain autoencoder they are the codes themselves, as in Ghosh et al. 2020.)
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.analysis import pictures
from vae_cli.analysis.export import Report, drawn
from vae_cli.analysis.settings import DrawingTask, SampleTask
from vae_cli.analysis.trained import TrainedRun
from vae_cli.config.compose import settings_of
from vae_cli.console import UserError, say
from vae_cli.data.dataset import generator
from vae_cli.training.evaluation import log_likelihood
from vae_cli.vae.objectives import Terms, Weight
from vae_cli.vae.vae import build_vae


class Sampler(NamedTuple):
    """A density of codes."""

    draw: Callable[[int], Tensor]  # n -> codes [n, Z]
    log_prob: Callable[[Tensor], Tensor]  # codes [N, Z] -> nats [N], float64 on the CPU


def sample(task: SampleTask, run: TrainedRun, out: Path) -> Report:
    """Decode n draws from the prior or from a density that is fitted to the training codes.

    samples.png and samples.npz: z [n, Z], x [n, *shape], the sampler and, of a fitted one, its
    log-density of test codes.
    """
    rows, more, name = {}, dict[str, Any](sampler=task.sampler), f"sampler={task.sampler}"
    sampler = sampler_of(task, run)
    z = sampler.draw(task.n)
    if task.sampler == "prior":
        name = "the prior"
        rows["draws"] = f"{task.n:,} from prior={run.config.prior.name}"
    else:
        codes = f"{len(run.data().train):,} training codes"
        rows["draws"] = f"{task.n:,} from {name}, fitted to {codes}"
        if run.config.posterior.quantised:  # such codes have no density
            rows["draws"] += ", moved to the nearest code"
        else:
            test = run.codes.drawn[:1000].to(run.device)
            more["log_density"] = log_density = sampler.log_prob(test)
            rows["log-density"] = f"{float(log_density.mean()):.3f} nats a test code"
            if run.config.is_generative:
                prior = run.vae.prior.log_prob(test[None], run.vae.encode).mean()
                rows["log-density"] += f"; of prior={run.config.prior.name}: {float(prior):.3f}"
    label = find_class(run, task.label)
    walk, figure = pictures.samples(run, z, name, label)
    return drawn(run, out / "samples", walk | more, figure, rows)


def find_class(run: TrainedRun, text: str | None) -> int | None:
    """The number of a conditional model's class, given by its name. Raises UserError."""
    names = run.class_names if run.vae.classes else ()
    if text is not None and text not in names:
        known = f"give one of {', '.join(names)}" if names else "the model is not conditional"
        raise UserError(f"label={text}: no such class; {known}")
    return None if text is None else names.index(text)


def sampler_of(task: DrawingTask, run: TrainedRun) -> Sampler:
    """Return the density that `task` draws codes from: the prior, or one that is fitted."""
    vae, seed = run.vae, run.config.seed
    if task.sampler == "prior":
        draw = partial(run.draw_codes, seed=seed)
        return Sampler(draw, lambda z: vae.prior.log_prob(z[None], vae.encode)[0])
    codes = fitted(task, run.embed("train").drawn.to(run.device), seed)
    return codes._replace(draw=lambda n: vae.head.nearest(codes.draw(n)))


def fitted(task: DrawingTask, codes: Tensor, seed: int) -> Sampler:
    """Fit the density that `task` names to codes [N, Z], on their device; the seed decides all."""
    source = generator(codes.device, seed, "sampler")
    if task.sampler == "gmm":
        return _gmm(task.components, codes, seed)
    centre, scale = codes.mean(0), codes.std(0).clamp(min=1e-6)
    make = {"flow": _flow, "two_stage": _two_stage}[task.sampler]
    inner = make(task.steps, (codes - centre) / scale, seed, source)
    return Sampler(
        lambda n: centre + scale * inner.draw(n),
        lambda z: inner.log_prob((z - centre) / scale) - float(scale.double().log().sum()),
    )


def _gmm(components: int, codes: Tensor, seed: int) -> Sampler:
    """Fit Gaussians with full covariances by EM (scikit-learn; Ghosh et al. 2020 take ten)."""
    from sklearn.mixture import GaussianMixture

    if components > len(codes):
        raise UserError(f"components={components}: must be at most the {len(codes):,} codes")
    mixture = GaussianMixture(components, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # said below
        mixture.fit(codes.double().cpu().numpy())
    if not mixture.converged_:
        say(f"warning: sampler=gmm: not converged after {mixture.n_iter_} iterations")

    def draw(n: int) -> Tensor:
        z = torch.from_numpy(mixture.sample(n)[0]).to(codes)  # component by component
        return z[torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(z.device)]

    return Sampler(
        draw, lambda z: torch.from_numpy(mixture.score_samples(z.double().cpu().numpy()))
    )


def _flow(steps: int, codes: Tensor, seed: int, source: torch.Generator) -> Sampler:
    """Fit the RealNVP of `prior=flow` by maximum likelihood."""
    torch.manual_seed(seed)
    flow = settings_of("config", ["prior=flow"]).prior.build(codes.shape[1], codes.shape[1:])
    _learn(flow, lambda z: -flow.log_prob(z[None], None).mean(), codes, steps, source)
    return Sampler(
        lambda n: flow.sample(n, source, None),
        lambda z: flow.log_prob(z[None].double(), None)[0].cpu(),
    )


def _two_stage(steps: int, codes: Tensor, seed: int, source: torch.Generator) -> Sampler:
    """Fit a second VAE of as many dimensions: u ~ N(0, I), z ~ p(z|u) (Dai & Wipf 2019).

    p(z|u) has one variance for all dimensions, the best one for each batch. Its density is the
    importance-weighted estimate from 100 draws of u, in expectation a lower bound.
    """
    words = (f"model.latent_dim={codes.shape[1]}", "likelihood=gaussian_optimal", f"seed={seed}")
    vae = build_vae(settings_of("config", words), tuple(codes.shape[1:]))
    weight = Weight(*torch.tensor([1.0, 0.0], device=codes.device))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, device=codes.device)

    def loss(z: Tensor) -> Tensor:
        terms: Terms = vae(z, normal(*vae.noise_shape(len(z))), weight)
        return terms.loss

    _learn(vae, loss, codes, steps, source)
    sigma = vae.likelihood.get_buffer("variance").sqrt()
    fresh = partial(generator, codes.device, seed, "second likelihood")
    return Sampler(
        lambda n: vae.mean(vae.draw_prior(n, source)) + sigma * normal(n, codes.shape[1]),
        lambda z: log_likelihood(vae, [(z, None)], 100, fresh())[0],
    )


def _learn(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    codes: Tensor,
    steps: int,
    source: torch.Generator,
) -> None:
    """Make `steps` updates by vae-train's own optimiser and batch size; the rate falls to 0."""
    config = settings_of("config", [])
    optimizer = config.optimizer.build(list(module.to(codes.device).train().parameters()))
    for step in range(steps):
        size = (config.batch_size,)
        index = torch.randint(len(codes), size, generator=source, device=codes.device)
        optimizer.param_groups[0]["lr"] = config.optimizer.lr * (1 - step / steps)
        optimizer.zero_grad()
        loss(codes[index]).backward()
        optimizer.step()
    module.eval().requires_grad_(False)
