import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal
from torch.nn import functional as F

from vae_cli.config import losses
from vae_cli.vae.objectives import Drawn, Objective
from vae_cli.vae.posteriors import DiagonalGaussian, Point
from vae_cli.vae.priors import Examples

from .test_objectives import ELBO, close, drawn, gaussian, mixture, weight

TCVAE = losses.BetaTCVAEConfig(name="beta_tcvae", num_samples=1, estimator="batch").build(2)


def objective(name: str, **settings: object) -> Objective:
    schema = {"mmd": losses.MMDConfig, "dip": losses.DIPConfig, "factor": losses.FactorConfig}
    given = {"name": name, "num_samples": 1, "free_bits": 0.0, **settings}
    return schema.get(name, losses.AAEConfig).model_validate(given).build(2)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_total_correlation_of_a_gaussian_aggregate(rho):
    # a batch whose posterior means follow a correlated Gaussian: the aggregate is nearly that
    # Gaussian, whose total correlation is -log(1 - rho^2) / 2
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]])
    means = MultivariateNormal(torch.zeros(2), covariance).sample((2000,))
    batch = drawn(DiagonalGaussian(means, torch.full((2000, 2), -3.0)))
    spread = covariance + torch.exp(torch.tensor(-3.0)) * torch.eye(2)
    expected = -0.5 * torch.logdet(spread) + 0.5 * spread.diagonal().log().sum()
    elbo, (loss, metrics) = ELBO(batch, weight()).loss, TCVAE(batch, weight(5.0))
    close(metrics["total_correlation_of_batch"], expected, rtol=0, atol=0.06)
    close(loss, elbo + 4 * metrics["total_correlation_of_batch"])
    close(TCVAE(batch, weight()).loss, elbo)


def stratified(examples: int) -> Objective:
    config = losses.BetaTCVAEConfig(name="beta_tcvae", num_samples=1, estimator="stratified")
    objective = config.build(2)
    objective.learn_from(Examples(examples, torch.zeros))
    return objective


def correlation(objective: Objective, batch: Drawn) -> float:
    return float(objective(batch, weight(2.0)).metrics["total_correlation_of_batch"])


def by_hand(batch: Drawn, weights: torch.Tensor) -> float:
    """Mean of log q(z_b) - sum_j log q(z_bj) over codes, q(z) = sum_i weights[b, i] q(z|x_i)."""
    posterior, total = batch.posterior, 0.0
    for z, row in zip(batch.code.z[0], weights, strict=True):
        density = Normal(posterior.mean, posterior.stddev).log_prob(z).exp()  # [B, Z]
        total += float((row @ density.prod(1)).log() - (row @ density).log().sum())
    return total / len(weights)


def wide(mean: torch.Tensor, log_var: float = -1.0) -> Drawn:
    return drawn(DiagonalGaussian(mean.double(), torch.full_like(mean, log_var).double()))


def test_a_batch_that_is_all_the_data_gives_the_total_correlation_of_all_posteriors():
    batch = wide(gaussian(7).mean)
    exact = by_hand(batch, torch.full((7, 7), 1 / 7, dtype=torch.double))
    assert correlation(stratified(7), batch) == pytest.approx(exact, abs=1e-12)
    assert correlation(TCVAE, batch) == pytest.approx(exact, abs=1e-12)
    one = wide(gaussian(1).mean)
    assert correlation(stratified(7), one) == 0  # says nothing, as under `batch`


def test_stratified_weights_are_those_of_the_paper_whichever_example_it_takes_for_the_last():
    # Chen et al. 2018, appendix C.2, for a code of example n* and M = B - 1 others: 1/N for n*,
    # 1/M for M - 1 of the others, (N - M)/(N M) for the last one; here the mean over all orders
    n, b = 50, 4
    m, weights = b - 1, torch.zeros(b, b).double()
    for own in range(b):
        others = [i for i in range(b) if i != own]
        weights[own, own] = 1 / n
        for last in others:
            for i in others:
                weights[own, i] += ((n - m) / (n * m) if i == last else 1 / m) / m
    assert torch.allclose(weights.sum(1), torch.ones(b).double())
    batch = wide(gaussian(b).mean)
    assert correlation(stratified(n), batch) == pytest.approx(by_hand(batch, weights), abs=1e-12)
    # without bias: over all batches of 4 of 6 examples that contain n* = 0, q(z) is the true mean
    q = torch.rand(6).double()
    estimates = [q[0] / 6 + 5 / (6 * 3) * sum(q[list(c)]) for c in combinations(range(1, 6), 3)]
    close(torch.stack(estimates).mean(), q.mean())


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_stratified_is_nearer_to_the_total_correlation_of_the_data_than_batch(rho):
    # means such that q(z) over many examples is N(0, C): the TC is -log det C / 2, 0 without rho
    torch.manual_seed(0)
    z, n, noise = 6, 10_000, 0.1
    covariance = torch.eye(z)
    covariance[0, 1] = covariance[1, 0] = rho
    means = MultivariateNormal(torch.zeros(z), covariance - noise * torch.eye(z)).sample((32, 64))
    batches = [wide(mean, math.log(noise)) for mean in means]
    exact = float(-0.5 * torch.logdet(covariance))
    few, weighted = (
        sum(correlation(objective, batch) for batch in batches) / len(batches) - exact
        for objective in (TCVAE, stratified(n))
    )
    assert abs(weighted) < few / 2


# --------------------------------------------------------------------------------- discrepancy


def mmd(kernel: str = "rbf", bandwidth: float = 1.0) -> Objective:
    return objective("mmd", weight=5.0, kernel=kernel, bandwidth=bandwidth)


def test_mmd_is_a_term_beside_the_elbos_loss():
    batch = drawn(gaussian())
    loss, metrics = mmd()(batch, weight(0.5))
    close(loss, ELBO(batch, weight(0.5)).loss + 5 * metrics["mmd"])
    assert metrics["loss"] == loss.detach()


def mean_kernel(variance: float, shift: float, c: float) -> float:
    """E exp(-|d|^2 / c) for d of N(shift, variance) in each of two dimensions."""
    one = (1 + 2 * variance / c) ** -0.5 * math.exp(-(shift**2) / (c + 2 * variance))
    return one**2


@pytest.mark.parametrize(("bandwidth", "mean", "scale"), [(1.0, 0.5, 0.3), (0.5, 0.0, 1.0)])
def test_mmd_of_two_gaussians_has_its_known_value(bandwidth, mean, scale):
    # codes N(mean, scale^2) in each dimension; the second case is the prior: exactly 0
    torch.manual_seed(0)
    c = 4 * bandwidth**2
    exact = mean_kernel(2 * scale**2, 0, c) + mean_kernel(2, 0, c)
    exact -= 2 * mean_kernel(scale**2 + 1, mean, c)
    batch = drawn(Point(mean + scale * torch.randn(5, 2)))
    batch.code = batch.code._replace(z=mean + scale * torch.randn(20_000, 5, 2))
    # batches of five: a biased estimator, with k(z, z) = 1 in it, would be far off
    found = mmd(bandwidth=bandwidth).term(batch)
    single = []
    for _ in range(400):
        batch.code = batch.code._replace(z=mean + scale * torch.randn(1, 5, 2))
        single.append(mmd(bandwidth=bandwidth).term(batch))
    error = torch.stack(single).std() / 20_000**0.5
    assert abs(found - exact) < 4 * error
    assert exact == 0 or exact > 20 * error


def test_the_kernels_are_one_for_equal_codes_and_fall_with_the_distance():
    a, b = torch.zeros(1, 1, 2), torch.tensor([[[0.0, 0], [3, 4]]])
    close(mmd("imq", 2.0).kernel(a, b), torch.tensor([[[1, 16 / (16 + 25)]]]))
    close(mmd("rbf", 2.0).kernel(a, b), torch.tensor([[[1, math.exp(-25 / 16)]]]))


def test_mmd_draws_codes_and_a_learned_prior_together():
    # q(z) = N(3, 0.1^2) of a plain autoencoder: less loss where codes and prior are nearer
    batch = drawn(Point((3 + 0.1 * torch.randn(50, 2)).requires_grad_()), 1, mixture(4))
    of_codes, of_prior = torch.autograd.grad(
        mmd("imq").term(batch), [batch.posterior.mean, batch.prior.means]
    )
    assert (
        of_codes.sum(0) > 0
    ).all()  # a step against the gradient brings the codes down to the prior
    assert (of_prior.sum(0) < 0).all()
    assert mmd().term(drawn(Point(torch.zeros(1, 2)))).isfinite()


@pytest.mark.parametrize("kind", [1, 2])
def test_dip_weighs_the_covariance_of_means_or_of_codes(kind):
    mean, log_var = torch.randn(40, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]), torch.randn(40, 2)
    covariance = np.cov(mean.numpy().T, bias=True)
    if kind == 2:  # the law of total variance
        covariance += np.diag(log_var.exp().mean(0).numpy())
    batch = drawn(DiagonalGaussian(mean, log_var))
    dip = objective("dip", kind=kind, off_diagonal=3.0, diagonal=7.0)
    loss, metrics = dip(batch, weight())
    expected = 3 * 2 * covariance[0, 1] ** 2
    expected += 7 * ((covariance[0, 0] - 1) ** 2 + (covariance[1, 1] - 1) ** 2)
    assert float(metrics["dip"]) == pytest.approx(expected, rel=1e-4)
    close(loss, ELBO(batch, weight()).loss + metrics["dip"])


# --------------------------------------------------------------------------------- adversaries

OF_ADVERSARY = {
    "weight": 3.0,
    "adversary_sizes": [64, 64],
    "adversary_lr": 1e-3,
    "adversary_beta1": 0.5,
    "adversary_beta2": 0.9,
}


@pytest.mark.parametrize("name", ["factor", "aae"])
def test_an_adversary_and_the_networks_learn_apart(name):
    torch.manual_seed(0)
    rival = objective(name, **OF_ADVERSARY)
    mean = torch.randn(30, 2, requires_grad=True)
    batch = drawn(Point(mean))
    loss, metrics = rival(batch, weight())
    own = list(rival.adversary.parameters())
    of_codes, *of_rival = torch.autograd.grad(loss, [mean, *own], retain_graph=True)
    # the adversary's gradient is that of its own cross-entropy, which sees the codes as given
    batch.generator.manual_seed(0)
    one, other = (rival.adversary(z.detach()) for z in rival.against(batch))
    entropy = F.binary_cross_entropy_with_logits(
        torch.cat([one, other], 1), torch.cat([torch.ones_like(one), torch.zeros_like(other)], 1)
    )
    close(metrics["adversary"], entropy.detach())
    close(of_rival, list(torch.autograd.grad(entropy, own)))
    # the codes' gradient is that of the rest of the loss, by the adversary as it is
    logit = rival.adversary(mean)
    term = logit.mean() if name == "factor" else (1 - logit.sigmoid()).neg().log1p().neg().mean()
    rest = ELBO(batch, weight()).loss + 3 * term
    close(of_codes, torch.autograd.grad(rest, mean)[0])
    close(metrics["loss"], rest.detach())


def trained(rival: Objective, codes: torch.distributions.Distribution, steps: int = 700) -> Drawn:
    """Train the adversary alone on codes of a known distribution; return a large batch of them."""
    optimizer = torch.optim.Adam(rival.adversary.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        batch = drawn(Point(codes.sample((512,))))
        batch.generator = generator
        optimizer.zero_grad()
        rival(batch, weight())[0].backward()
        optimizer.step()
    return drawn(Point(codes.sample((20_000,))))


def test_the_adversary_of_factor_finds_the_total_correlation():
    torch.manual_seed(0)
    rho = 0.8
    codes = MultivariateNormal(torch.zeros(2), torch.tensor([[1, rho], [rho, 1]]))
    rival = objective("factor", **OF_ADVERSARY)
    exact = -0.5 * math.log(1 - rho**2)  # 0.51
    assert float(rival.term(trained(rival, codes))) == pytest.approx(exact, abs=0.08)


def test_the_adversary_of_aae_finds_the_divergence_of_codes_from_the_prior():
    torch.manual_seed(0)
    prior, codes = (MultivariateNormal(torch.full((2,), mean), torch.eye(2)) for mean in (0.0, 1.0))
    rival = objective("aae", **OF_ADVERSARY)
    metrics = rival(trained(rival, codes), weight()).metrics
    # at its best its cross-entropy is log 2 - JS(q(z), p(z)) (Goodfellow et al. 2014, theorem 1)
    middle = MixtureSameFamily(
        Categorical(torch.ones(2)),
        MultivariateNormal(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.eye(2)),
    )
    parts = [
        (p.log_prob(z) - middle.log_prob(z)).mean()
        for p in (prior, codes)
        for z in [p.sample((200_000,))]
    ]
    divergence = float(sum(parts)) / 2
    assert float(metrics["adversary"]) == pytest.approx(math.log(2) - divergence, abs=0.02)
    assert divergence > 0.1
