from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from vae_cli.config import networks
from vae_cli.vae.latent import LOG_VAR_MAX, DiagonalGaussian, Mixture, Point, Posterior, Prior

Z = 3


def no_encoder(x: Tensor) -> Posterior:
    raise AssertionError("these priors are not made of posteriors")


def mixture() -> Mixture:
    """A mixture away from its symmetric start."""
    torch.manual_seed(0)
    prior = networks.MixtureConfig(name="mixture", components=4).build(Z)
    with torch.no_grad():
        prior.log_scales += 0.5 * torch.randn_like(prior.log_scales)
        prior.logits += torch.randn_like(prior.logits)
    return prior


def standard_normal() -> Prior:
    return networks.StandardNormalConfig(name="standard_normal").build(Z)


def reference(prior: Prior) -> MixtureSameFamily | Independent:
    """The distribution of torch that a prior is."""
    if not isinstance(prior, Mixture):
        return Independent(Normal(torch.zeros(Z), 1.0), 1)
    components = Independent(Normal(prior.means, prior.log_scales.exp()), 1)
    return MixtureSameFamily(Categorical(logits=prior.logits), components)


def test_the_gaussian_is_that_of_torch_distributions():
    torch.manual_seed(0)
    mean, log_var = torch.randn(5, Z) * 2, torch.randn(5, Z)
    posterior, plain = DiagonalGaussian(mean, log_var), Normal(mean, (0.5 * log_var).exp())
    kl = kl_divergence(plain, Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl_to_standard_normal(), kl)
    code = posterior.sample(torch.randn(100_000, 5, Z))
    torch.testing.assert_close(posterior.log_prob(code.z), Independent(plain, 1).log_prob(code.z))
    assert code.log_q().equal(posterior.log_prob(code.z))
    # the KL is the mean log-ratio of samples
    ratio = code.log_q() - reference(standard_normal()).log_prob(code.z)
    error = ratio.std(0) / len(ratio) ** 0.5
    assert (((ratio.mean(0) - kl.sum(-1)) / error).abs() < 4).all()
    inputs, noise = (mean.double(), log_var.double().requires_grad_()), torch.ones(2, 5, Z)
    assert torch.autograd.gradcheck(lambda *p: DiagonalGaussian(*p).sample(noise).z, inputs)


def test_extreme_log_variances_stay_finite():
    log_var = torch.tensor([[-1e9, 1e9, 0.0]], requires_grad=True)
    posterior = DiagonalGaussian(torch.zeros(1, Z), log_var)
    assert posterior.log_var.max() == LOG_VAR_MAX
    total = (posterior.kl_to_standard_normal() + posterior.sample(torch.ones(1, 1, Z)).z).sum()
    total.backward()
    assert total.isfinite()
    assert log_var.grad.isfinite().all()


def test_a_point_has_no_kl_no_density_and_ignores_noise():
    point = Point(torch.randn(4, Z))
    assert point.kl_to_standard_normal().eq(0).all()
    assert point.stddev.eq(0).all()
    code = point.sample(torch.randn(2, 4, Z))
    assert code.z.eq(point.mean).all()
    with pytest.raises(TypeError, match="no density"):
        code.log_q()


def test_a_head_makes_a_raw_code_of_any_precision_a_float32_posterior():
    gaussian = networks.GaussianPosteriorConfig(name="gaussian").build(Z)
    point = networks.PointPosteriorConfig(name="point").build(Z)
    assert (gaussian.width(), point.width()) == (2 * Z, Z)
    code = torch.randn(4, 2 * Z, dtype=torch.bfloat16)
    posterior = gaussian(code)
    assert posterior.mean.equal(code[:, :Z].float())
    assert posterior.log_var.equal(code[:, Z:].float())
    assert point(code[:, :Z]).mean.equal(code[:, :Z].float())


@pytest.mark.parametrize("make", [standard_normal, mixture])
def test_a_prior_is_that_of_torch_distributions(make: Callable[[], Prior]):
    prior, n = make(), 100_000
    draws = [prior.sample(n, torch.Generator().manual_seed(1), no_encoder) for _ in range(2)]
    assert draws[0].equal(draws[1])  # the generator decides
    z, expected = draws[0].detach(), reference(prior)
    torch.testing.assert_close(prior.log_prob(z, no_encoder), expected.log_prob(z))
    assert ((z.mean(0) - expected.mean).abs() < 4 * expected.stddev / n**0.5).all()
    torch.testing.assert_close(z.std(0), expected.stddev, rtol=0.02, atol=0)
    inputs = (z[None, :4].double().requires_grad_(), *prior.double().parameters())
    assert torch.autograd.gradcheck(lambda z, *_: prior.log_prob(z, no_encoder), inputs)
