import math

import pytest
import torch
import yaml
from torch.distributions import Bernoulli, ContinuousBernoulli, Laplace, Normal

from vae_cli.config.check import schema_of
from vae_cli.config.compose import config_dir
from vae_cli.config.registry import SCHEMAS
from vae_cli.vae.likelihoods import Likelihood

K, B, SHAPE = 3, 4, (2, 5, 3)
PARAMS = 3 * torch.randn(K, B, *SHAPE, generator=torch.Generator().manual_seed(1))
LOCATIONS = ["gaussian", "laplace", "squared_error", "gaussian_learned", "gaussian_optimal"]


def likelihood(name: str, **settings: object) -> Likelihood:
    """A likelihood with the values of its YAML file but for these settings."""
    node = yaml.safe_load((config_dir() / f"likelihood/{name}.yaml").read_text()) | settings
    return schema_of("likelihood", node).model_validate(node).build()


DENSITIES = [
    ("gaussian", {"sigma": 0.1}, lambda mean: Normal(mean, 0.1)),
    ("gaussian", {"sigma": 3.0}, lambda mean: Normal(mean, 3.0)),
    ("gaussian_learned", {"sigma": 3.0}, lambda mean: Normal(mean, 3.0)),
    ("laplace", {"scale": 0.2}, lambda mean: Laplace(mean, 0.2)),
    ("bernoulli", {}, lambda logits: Bernoulli(logits=logits)),
]


@pytest.mark.parametrize(("name", "settings", "make"), DENSITIES)
def test_a_density_is_that_of_torch_distributions(name, settings, make):
    x = torch.randint(0, 2, (B, *SHAPE)).float()
    expected, density = make(PARAMS), likelihood(name, **settings)
    torch.testing.assert_close(density.log_prob(x, PARAMS), expected.log_prob(x).flatten(2).sum(2))
    assert density.mean(PARAMS).equal(expected.mean)


def test_squared_error_is_a_gaussian_of_variance_one_half_less_its_constant():
    x = torch.randn(B, *SHAPE)
    gaussian = Normal(PARAMS, math.sqrt(0.5)).log_prob(x).flatten(2).sum(2)
    expected = gaussian + 0.5 * math.log(math.pi) * math.prod(SHAPE)
    torch.testing.assert_close(likelihood("squared_error").log_prob(x, PARAMS), expected)


def test_bernoulli_at_extreme_logits():
    logits = torch.tensor([[[-200.0, 200.0, -200.0, 200.0]]], requires_grad=True)
    value = likelihood("bernoulli").log_prob(torch.tensor([[0.0, 1.0, 1.0, 0.0]]), logits)
    value.sum().backward()
    assert value.item() == pytest.approx(-400)
    assert logits.grad.flatten().tolist() == pytest.approx([0, 0, 1, -1])


@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli"])
def test_gradients_by_finite_differences(name):
    x = torch.rand(1, 7, dtype=torch.double)
    logits = torch.tensor([[[-9.0, -1.0, -0.02, 0.0, 0.02, 1.0, 9.0]]], dtype=torch.double)
    inputs = (logits.requires_grad_(),)
    assert torch.autograd.gradcheck(lambda p: likelihood(name).log_prob(x, p), inputs)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 3.0, 8.0])
def test_continuous_bernoulli(scale):
    torch.manual_seed(0)
    x, logits = torch.rand(B, *SHAPE), scale * torch.randn(K, B, *SHAPE)
    reference = ContinuousBernoulli(logits=logits.double())
    density = likelihood("continuous_bernoulli")
    expected = reference.log_prob(x.double()).flatten(2).sum(2).float()
    torch.testing.assert_close(density.log_prob(x, logits), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(density.mean(logits), reference.mean.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LOCATIONS)
def test_the_mean_can_be_a_sigmoid(name):
    x = torch.rand(B, *SHAPE)
    density, identity = likelihood(name, output="sigmoid"), likelihood(name)
    assert density.mean(PARAMS).equal(PARAMS.sigmoid())
    assert density.log_prob(x, PARAMS).equal(identity.log_prob(x, PARAMS.sigmoid()))


MEANS = torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.double)


@pytest.mark.parametrize("name", LOCATIONS)
def test_the_output_that_has_a_mean(name):
    for squashed in (likelihood(name, output="sigmoid"), likelihood("bernoulli")):
        torch.testing.assert_close(squashed.mean(squashed.raw_of_mean(MEANS, 1000)), MEANS)
        # a pixel that is always dark: one light one in n + 2
        never = squashed.raw_of_mean(torch.zeros(1, dtype=torch.double), 98)
        assert never.sigmoid().item() == pytest.approx(0.01)
    assert likelihood(name).raw_of_mean(-7 * MEANS, 5).equal(-7 * MEANS)
    continuous = likelihood("continuous_bernoulli").raw_of_mean(MEANS, 1000)
    torch.testing.assert_close(continuous.sigmoid(), MEANS)


def test_a_learned_and_an_optimal_sigma_are_the_best_there_is():
    torch.manual_seed(0)
    x, params = torch.randn(50, 20) * 0.3, torch.zeros(1, 50, 20)
    sigma = x.square().mean().sqrt()
    learned = likelihood("gaussian_learned")
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-learned.log_prob(x, params).mean()).backward()
        optimizer.step()
    assert learned.log_sigma.exp().item() == pytest.approx(sigma.item(), rel=1e-3)
    optimal = likelihood("gaussian_optimal", momentum=1.0)
    best = optimal.log_prob(x, params).mean()
    for other in (0.9, 1.0, 1.1):
        assert best >= Normal(params, other * sigma).log_prob(x).sum(-1).mean() - 1e-4
    # measured with the variance that training left, whatever is measured
    expected = Normal(params, sigma).log_prob(0.5 * x).sum(-1)
    torch.testing.assert_close(optimal.eval().log_prob(0.5 * x, params), expected)
    floor = likelihood("gaussian_optimal", min_sigma=0.1, momentum=0.05)
    assert floor.log_prob(params[0], params).isfinite().all()
    assert floor.variance.item() == pytest.approx(0.1**2)


def test_the_running_variance_is_at_first_the_mean_of_all_batches():
    density = likelihood("gaussian_optimal", momentum=0.01)
    batches = [scale * torch.randn(50, 20) for scale in (0.1, 0.2, 0.4)]
    for x in batches:
        density.log_prob(x, torch.zeros(1, 50, 20))
    expected = sum(x.square().mean().item() for x in batches) / 3
    assert density.variance.item() == pytest.approx(expected, rel=1e-5)


def test_a_likelihood_says_what_its_numbers_are():
    bernoulli = likelihood("bernoulli")
    assert bernoulli.domain == "binary"
    assert bernoulli.note(x_is_binary=True) is None
    assert "grey values" in bernoulli.note(x_is_binary=False)
    assert likelihood("continuous_bernoulli").domain == "unit"
    for name in LOCATIONS:
        density = likelihood(name)
        assert density.domain == "real"
        assert density.normalised == (name != "squared_error")
        assert (density.note(x_is_binary=False) is None) == density.normalised
        assert density.note(x_is_binary=True) is not None


LEVELS = (torch.arange(256, dtype=torch.double) / 255)[:, None]  # the values of 8 bits, as examples
OUTPUTS = torch.tensor([-500.0, -30.0, -1.0, -1e-9, 0.0, 1e-3, 0.5, 1.0, 7.0, 1000.0]).double()


def log_masses(density: Likelihood, output: torch.Tensor) -> torch.Tensor:
    """log P of each of the 256 levels, for one output of the decoder. -> [256]."""
    return density.double().log_mass(LEVELS, output.expand(1, 256, 1))[0].detach()


@pytest.mark.parametrize("name", sorted(name for group, name in SCHEMAS if group == "likelihood"))
def test_the_probabilities_of_what_a_value_can_be_sum_to_one(name):
    density = likelihood(name)
    for output in OUTPUTS:
        if density.domain == "binary":
            x = torch.tensor([[0.0], [1.0]]).double()
            log_p = density.log_prob(x, output.expand(1, 2, 1))[0]
        elif density.normalised:
            log_p = log_masses(density, output)
        else:  # a loss gives no probabilities, and says so
            with pytest.raises(NotImplementedError, match="SquaredError"):
                log_masses(density, output)
            continue
        assert log_p.isfinite().all()  # far from the mean, too
        assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "settings", "make"),
    [
        ("gaussian", {"sigma": 0.1}, lambda mean: Normal(mean, 0.1)),
        ("gaussian", {"sigma": 0.002}, lambda mean: Normal(mean, 0.002)),  # narrower than a cell
        ("gaussian_learned", {"sigma": 0.5}, lambda mean: Normal(mean, 0.5)),
        ("gaussian_optimal", {}, lambda mean: Normal(mean, 1.0)),
        ("laplace", {"scale": 0.2}, lambda mean: Laplace(mean, 0.2)),
        ("continuous_bernoulli", {}, lambda logit: ContinuousBernoulli(logits=logit)),
    ],
)
@pytest.mark.parametrize("output", [-0.3, 0.2, 0.5, 1.4])
def test_the_probability_of_a_level_is_the_difference_of_the_distribution_function(
    name, settings, make, output
):
    output = torch.tensor(output).double()
    edges = (torch.arange(257) - 0.5).double() / 255
    edges[0], edges[-1] = (0, 1) if name == "continuous_bernoulli" else (-math.inf, math.inf)
    expected = make(output).cdf(edges).diff()
    found = log_masses(likelihood(name, **settings), output).exp()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-13)


def test_far_from_the_mean_a_probability_is_that_of_the_nearer_tail():
    # below -10 sigma: log (F(b) - F(a)) = log F(b) + log (1 - exp(log F(a) - log F(b))), with
    # F(-t) = exp(-t^2 / 2) / (t sqrt(2 pi)) (1 - 1/t^2 + 3/t^4 - ...), which float64 cannot hold
    def log_tail(t: float) -> float:
        return -(t**2) / 2 - math.log(t) - 0.5 * math.log(2 * math.pi) + math.log1p(-(t**-2))

    sigma, k, mean = 0.01, 100, 1.0
    near, far = (mean - (k + 0.5) / 255) / sigma, (mean - (k - 0.5) / 255) / sigma
    exact = log_tail(near) + math.log1p(-math.exp(log_tail(far) - log_tail(near)))
    found = log_masses(likelihood("gaussian", sigma=sigma), torch.tensor(mean).double())[k]
    assert exact < -1700
    assert found.item() == pytest.approx(exact, abs=1e-5)
