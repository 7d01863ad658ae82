import math

import pytest
import torch
from torch import distributions
from torch.nn import functional as F

from vae_cli import build
from vae_cli.likelihoods import Likelihood

K, B, SHAPE = 3, 4, (2, 5, 3)


@pytest.fixture
def params() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(K, B, *SHAPE) * 3


@pytest.fixture(scope="session")
def likelihood(make_config):
    def make(name: str, **settings: object) -> Likelihood:
        given = [f"likelihood.{key}={value}" for key, value in settings.items()]
        config = make_config(f"likelihood={name}", *given).likelihood
        return build.target(config)(config)

    return make


def summed(log_prob: torch.Tensor) -> torch.Tensor:
    return log_prob.flatten(2).sum(2)


def test_bernoulli_on_binary_data(params, likelihood):
    x = torch.randint(0, 2, (B, *SHAPE)).float()
    expected = summed(distributions.Bernoulli(logits=params).log_prob(x))
    torch.testing.assert_close(likelihood("bernoulli").log_prob(x, params), expected)


def test_bernoulli_on_grey_data_is_the_cross_entropy(params, likelihood):
    x = torch.rand(B, *SHAPE)
    loss = F.binary_cross_entropy_with_logits(params, x.expand_as(params), reduction="none")
    density = likelihood("bernoulli")
    torch.testing.assert_close(density.log_prob(x, params), -summed(loss))
    torch.testing.assert_close(density.mean(params), params.sigmoid())


def test_bernoulli_gradient_by_finite_differences(params, likelihood):
    x = torch.rand(B, *SHAPE, dtype=torch.double)
    density = likelihood("bernoulli")
    logits = params.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: density.log_prob(x, p), (logits,))


def test_bernoulli_at_extreme_logits(likelihood):
    logits = torch.tensor([[[-200.0, 200.0, -200.0, 200.0]]], requires_grad=True)
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    value = likelihood("bernoulli").log_prob(x, logits)
    value.sum().backward()
    assert value.item() == pytest.approx(-400)
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([0, 0, 1, -1])


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_gaussian(params, sigma, likelihood):
    x = torch.randn(B, *SHAPE)
    expected = summed(distributions.Normal(params, sigma).log_prob(x))
    density = likelihood("gaussian", sigma=sigma)
    torch.testing.assert_close(density.log_prob(x, params), expected)
    assert density.mean(params) is params


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_laplace(params, scale, likelihood):
    x = torch.randn(B, *SHAPE)
    expected = summed(distributions.Laplace(params, scale).log_prob(x))
    torch.testing.assert_close(likelihood("laplace", scale=scale).log_prob(x, params), expected)


def test_squared_error_is_a_gaussian_of_variance_one_half_less_its_constant(params, likelihood):
    x = torch.randn(B, *SHAPE)
    gaussian = summed(distributions.Normal(params, math.sqrt(0.5)).log_prob(x))
    constant = 0.5 * math.log(math.pi) * math.prod(SHAPE)
    found = likelihood("squared_error").log_prob(x, params)
    torch.testing.assert_close(found, gaussian + constant)
    torch.testing.assert_close(found, -((x - params) ** 2).flatten(2).sum(2))


@pytest.mark.parametrize("scale", [1e-3, 0.1, 3.0, 8.0])
def test_continuous_bernoulli(scale, likelihood):
    torch.manual_seed(0)
    x, logits = torch.rand(B, *SHAPE), scale * torch.randn(K, B, *SHAPE)
    reference = distributions.ContinuousBernoulli(logits=logits.double())
    density = likelihood("continuous_bernoulli")
    expected = summed(reference.log_prob(x.double())).float()
    torch.testing.assert_close(density.log_prob(x, logits), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(density.mean(logits), reference.mean.float(), rtol=1e-3, atol=1e-4)


def test_continuous_bernoulli_gradient_by_finite_differences(likelihood):
    x = torch.rand(1, 7, dtype=torch.double)
    logits = torch.tensor([[[-9.0, -1.0, -0.02, 0.0, 0.02, 1.0, 9.0]]], dtype=torch.double)
    density = likelihood("continuous_bernoulli")
    assert torch.autograd.gradcheck(
        lambda p: density.log_prob(x, p), (logits.requires_grad_(),), eps=1e-6, atol=1e-5
    )


def test_continuous_bernoulli_is_normalised(likelihood):
    x = torch.linspace(0, 1, 100_001).reshape(-1, 1)
    density = likelihood("continuous_bernoulli").log_prob(x, torch.full((1, 100_001, 1), 3.0)).exp()
    assert torch.trapezoid(density[0], x[:, 0]).item() == pytest.approx(1, abs=1e-5)


def test_the_mean_can_be_a_sigmoid(params, likelihood):
    x = torch.rand(B, *SHAPE)
    for name in ("gaussian", "laplace", "squared_error", "gaussian_learned", "gaussian_optimal"):
        density, plain = likelihood(name, output="sigmoid"), likelihood(name)
        assert density.mean(params).equal(params.sigmoid())
        assert density.log_prob(x, params).equal(plain.log_prob(x, params.sigmoid()))


def test_learned_sigma_goes_to_the_root_mean_square_error(likelihood):
    torch.manual_seed(0)
    x, params = torch.randn(50, 20) * 0.3, torch.zeros(1, 50, 20)
    density = likelihood("gaussian_learned")
    expected = summed(distributions.Normal(params, 1.0).log_prob(x)[..., None])
    torch.testing.assert_close(density.log_prob(x, params), expected)
    optimizer = torch.optim.Adam(density.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-density.log_prob(x, params).mean()).backward()
        optimizer.step()
    assert density.log_sigma.exp().item() == pytest.approx(
        x.square().mean().sqrt().item(), rel=1e-3
    )


def test_optimal_sigma_is_the_best_there_is_and_is_kept_for_measuring(likelihood):
    torch.manual_seed(0)
    x, params = torch.randn(50, 20) * 0.3, torch.zeros(1, 50, 20)
    sigma = x.square().mean().sqrt()
    density = likelihood("gaussian_optimal", momentum=1)
    found = density.log_prob(x, params).mean()
    for other in (0.9, 1.0, 1.1):
        log_prob = distributions.Normal(params, other * sigma).log_prob(x)
        assert found >= log_prob.sum(-1).mean() - 1e-4
    # measured with the variance that training left, whatever is measured
    half = 0.5 * x
    expected = distributions.Normal(params, sigma).log_prob(half).sum(-1)
    torch.testing.assert_close(density.eval().log_prob(half, params), expected)


def test_optimal_sigma_has_a_floor(likelihood):
    density = likelihood("gaussian_optimal", min_sigma=0.1)
    params = torch.zeros(1, 2, 3)
    assert density.log_prob(torch.zeros(2, 3), params).isfinite().all()
