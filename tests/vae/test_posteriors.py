import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vae_cli.config import networks
from vae_cli.vae.posteriors import LOG_VAR_MAX, DiagonalGaussian, Point

Z = 3


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
    ratio = code.log_q() - Normal(0.0, 1.0).log_prob(code.z).sum(-1)
    error = ratio.std(0) / len(ratio) ** 0.5
    assert (((ratio.mean(0) - kl.sum(-1)) / error).abs() < 4).all()
    inputs, noise = (mean.double(), log_var.double().requires_grad_()), torch.ones(2, 5, Z)
    assert torch.autograd.gradcheck(lambda *p: DiagonalGaussian(*p).sample(noise).z, inputs)


def test_the_full_gaussian_is_that_of_torch_distributions():
    torch.manual_seed(0)
    head = networks.FullCovarianceConfig(name="full_covariance").build(Z)
    posterior = head(torch.randn(5, head.width()).double())
    assert posterior.scale.triu(1).eq(0).all()
    plain = MultivariateNormal(posterior.mean, scale_tril=posterior.scale)
    standard = MultivariateNormal(torch.zeros(Z), torch.eye(Z))
    torch.testing.assert_close(posterior.kl_to_standard_normal(), kl_divergence(plain, standard))
    torch.testing.assert_close(posterior.stddev, plain.stddev)
    code = posterior.sample(torch.randn(100_000, 5, Z).double())
    mean, scale = posterior.mean.double(), posterior.scale.double()
    precise = MultivariateNormal(mean, scale_tril=scale).log_prob(code.z)
    assert code.log_q().dtype == torch.float64
    torch.testing.assert_close(code.log_q(), precise)
    torch.testing.assert_close(posterior.log_prob(code.z), precise)
    for example in range(5):
        found = torch.cov(code.z[:, example].T)
        expected = plain.covariance_matrix[example].double()
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


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


def test_a_stopped_posterior_has_the_density_and_learns_through_z_alone():
    mean, log_var, z = (torch.randn(5, Z, requires_grad=True) for _ in range(3))
    posterior = DiagonalGaussian(mean, log_var)
    stopped, expected = (q.log_prob(z[None]) for q in (posterior.stopped(), posterior))
    assert stopped.equal(expected)
    slopes = [torch.autograd.grad(log_q.sum(), z)[0] for log_q in (stopped, expected)]
    torch.testing.assert_close(*slopes)
    of_q = torch.autograd.grad(posterior.stopped().log_prob(z[None]).sum(), mean, allow_unused=True)
    assert of_q == (None,)
    posterior.flow = torch.nn.Linear(Z, Z)  # its weights would go on learning
    with pytest.raises(TypeError, match="flow"):
        posterior.stopped()
