import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vae_cli.posteriors import LOG_VAR_MAX, DiagonalGaussian, Point


@pytest.fixture
def parameters() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 3) * 2, torch.randn(5, 3)


def reference(mean: torch.Tensor, log_var: torch.Tensor) -> Normal:
    return Normal(mean, (0.5 * log_var).exp())


def test_kl_is_that_of_torch_distributions(parameters):
    expected = kl_divergence(reference(*parameters), Normal(0.0, 1.0))
    torch.testing.assert_close(DiagonalGaussian(*parameters).kl(), expected)


def test_log_prob_is_that_of_torch_distributions(parameters):
    z = torch.randn(7, 5, 3)
    expected = Independent(reference(*parameters), 1).log_prob(z)
    torch.testing.assert_close(DiagonalGaussian(*parameters).log_prob(z), expected)


def test_kl_is_the_mean_log_ratio_of_samples(parameters):
    posterior = DiagonalGaussian(*parameters)
    z = posterior.sample(torch.randn(200_000, 5, 3))
    ratio = posterior.log_prob(z) - Independent(Normal(torch.zeros(3), 1.0), 1).log_prob(z)
    error = ratio.std(0) / 200_000**0.5
    assert (((ratio.mean(0) - posterior.kl().sum(-1)) / error).abs() < 4).all()


def test_samples_are_reparameterised(parameters):
    mean, log_var = (p.double().requires_grad_() for p in parameters)
    noise = torch.randn(2, 5, 3, dtype=torch.double)
    assert torch.autograd.gradcheck(
        lambda m, v: DiagonalGaussian(m, v).sample(noise), (mean, log_var)
    )


def test_extreme_log_variances_stay_finite():
    log_var = torch.tensor([[-1e9, 1e9, 0.0]], requires_grad=True)
    posterior = DiagonalGaussian(torch.zeros(1, 3), log_var)
    assert posterior.log_var.max() == LOG_VAR_MAX
    total = posterior.kl().sum() + posterior.sample(torch.ones(1, 1, 3)).sum()
    total.backward()
    assert total.isfinite()
    assert log_var.grad is not None
    assert log_var.grad.isfinite().all()


def test_a_point_has_no_kl_and_ignores_noise():
    mean = torch.randn(4, 2)
    point = Point(mean)
    assert point.kl().eq(0).all()
    assert point.kl().shape == (4, 2)
    assert point.sample(torch.randn(3, 4, 2)).eq(mean).all()
    with pytest.raises(TypeError, match="no density"):
        point.log_prob(mean)
