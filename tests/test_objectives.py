import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_cli import build
from vae_cli.objectives import Weight, log_prior, total_correlation
from vae_cli.posteriors import DiagonalGaussian, Point


@pytest.fixture(scope="session")
def objective(make_config):
    def make(name: str, **settings: object):
        given = [f"objective.{key}={value}" for key, value in settings.items()]
        config = make_config(f"objective={name}", *given).objective
        return build.target(config)(config)

    return make


def weight(beta: float = 1.0, capacity: float = 0.0) -> Weight:
    return Weight(torch.tensor(beta), torch.tensor(capacity))


def test_elbo_is_reconstruction_plus_beta_kl_in_nats_an_example(objective):
    torch.manual_seed(0)
    mean, log_var = torch.randn(6, 2), torch.randn(6, 2)
    log_likelihood = torch.randn(3, 6)
    posterior = DiagonalGaussian(mean, log_var)
    loss, metrics = objective("elbo")(posterior, torch.randn(3, 6, 2), log_likelihood, weight(4.0))
    kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(metrics["kl"], kl)
    torch.testing.assert_close(metrics["reconstruction"], -log_likelihood.mean())
    torch.testing.assert_close(loss, metrics["reconstruction"] + 4 * kl)
    torch.testing.assert_close(metrics["loss"], loss)
    # whatever beta is trained with, the elbo is that of beta = 1
    torch.testing.assert_close(metrics["elbo"], log_likelihood.mean() - kl)
    assert list(metrics) == ["loss", "reconstruction", "kl", "elbo"]


def test_elbo_of_a_plain_autoencoder_is_its_reconstruction(objective):
    log_likelihood = torch.randn(1, 5)
    loss, metrics = objective("elbo")(
        Point(torch.randn(5, 2)), torch.randn(1, 5, 2), log_likelihood, weight(7.0)
    )
    assert metrics["kl"] == 0
    torch.testing.assert_close(loss, -log_likelihood.mean())


@pytest.fixture(scope="module")
def linear_gaussian():
    """p(z) = N(0, I), p(x|z) = N(W z + b, s^2 I): evidence and posterior are exact.

    With W's columns orthogonal the posterior is diagonal, so a bound can be tight.
    """
    torch.manual_seed(0)
    s = 0.7
    W = torch.linalg.qr(torch.randn(5, 2, dtype=torch.double))[0] * torch.tensor([1.5, 0.6])
    b = torch.randn(5, dtype=torch.double)
    x = torch.randn(4, 5, dtype=torch.double)
    evidence = MultivariateNormal(b, W @ W.T + s**2 * torch.eye(5)).log_prob(x)
    precision = 1 + (W**2).sum(0) / s**2
    mean = ((x - b) @ W / s**2) / precision

    def terms(posterior, samples):
        z = posterior.sample(torch.randn(samples, 4, 2, dtype=torch.double))
        return z, Normal(z @ W.T + b, s).log_prob(x).sum(-1)

    return mean, (-precision.log()).expand_as(mean), evidence, terms


def test_elbo_equals_the_evidence_at_the_exact_posterior(objective, linear_gaussian):
    mean, log_var, evidence, terms = linear_gaussian
    posterior = DiagonalGaussian(mean, log_var)
    z, log_likelihood = terms(posterior, 100_000)
    _, metrics = objective("elbo")(posterior, z, log_likelihood, weight())
    error = log_likelihood.std(0).mean() / 100_000**0.5
    assert abs(metrics["elbo"] - evidence.mean()) < 4 * error


def test_elbo_of_another_posterior_is_lower_by_its_divergence(objective, linear_gaussian):
    mean, log_var, evidence, terms = linear_gaussian
    posterior = DiagonalGaussian(mean + 0.3, log_var + 0.5)
    z, log_likelihood = terms(posterior, 200_000)
    _, metrics = objective("elbo")(posterior, z, log_likelihood, weight())
    exact = Normal(mean, (log_var / 2).exp())
    gap = kl_divergence(Normal(mean + 0.3, ((log_var + 0.5) / 2).exp()), exact).sum(1).mean()
    error = log_likelihood.std(0).mean() / 200_000**0.5
    assert abs(evidence.mean() - metrics["elbo"] - gap) < 4 * error


def test_iwae_reaches_the_evidence_from_a_wrong_posterior(objective, linear_gaussian):
    mean, log_var, evidence, terms = linear_gaussian
    posterior = DiagonalGaussian(mean + 0.3, log_var + 0.5)
    iwae, bounds = objective("iwae"), {}
    for samples in (1, 10, 100_000):
        repeats = [
            -iwae(posterior, *terms(posterior, samples), weight()).loss
            for _ in range(2000 if samples < 100 else 20)
        ]
        bounds[samples] = torch.stack(repeats)
    means = {k: float(v.mean()) for k, v in bounds.items()}
    errors = {k: float(v.std() / len(v) ** 0.5) for k, v in bounds.items()}
    assert abs(means[100_000] - float(evidence.mean())) < 4 * errors[100_000]
    assert means[1] + 4 * errors[1] < means[10] < means[100_000]  # tighter with more codes
    # with one code the bound is the ELBO
    z, log_likelihood = terms(posterior, 200_000)
    elbo = objective("elbo")(posterior, z, log_likelihood, weight()).metrics["elbo"]
    assert abs(means[1] - elbo) < 4 * errors[1]


def test_iwae_is_exact_with_any_number_of_codes_at_the_exact_posterior(objective, linear_gaussian):
    mean, log_var, evidence, terms = linear_gaussian
    posterior = DiagonalGaussian(mean, log_var)
    loss = objective("iwae")(posterior, *terms(posterior, 3), weight()).loss
    assert float(-loss) == pytest.approx(float(evidence.mean()), rel=1e-6)


def test_free_bits_charge_no_less_than_their_sum(objective):
    mean = torch.tensor([[2.0, 0.0], [2.0, 0.0]], requires_grad=True)
    posterior = DiagonalGaussian(mean, torch.zeros(2, 2))  # KL of the dimensions: 2 and 0
    zeros = torch.zeros(1, 2)
    loss, metrics = objective("elbo", free_bits=0.5)(posterior, mean[None], zeros, weight(3.0))
    assert loss.item() == pytest.approx(3 * (2 + 0.5))
    assert metrics["kl"].item() == pytest.approx(2)  # reported as it is
    loss.backward()
    assert mean.grad[:, 1].eq(0).all()


def test_capacity_asks_for_an_amount_of_kl(objective):
    mean = torch.full((2, 1), 2.0)
    posterior = DiagonalGaussian(mean, torch.zeros(2, 1))  # KL 2
    zeros = torch.zeros(1, 2)
    for capacity, expected in ((0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (5.0, 3.0)):
        loss, metrics = objective("elbo")(posterior, mean[None], zeros, weight(10.0, capacity))
        assert loss.item() == pytest.approx(10 * expected)
        assert metrics["elbo"].item() == pytest.approx(-2)


def test_total_correlation_of_a_gaussian_aggregate():
    # a batch whose posterior means follow a correlated Gaussian: the aggregate is nearly that
    # Gaussian, whose total correlation is -log(1 - rho^2) / 2
    torch.manual_seed(0)
    for rho in (0.0, 0.8):
        covariance = torch.tensor([[1.0, rho], [rho, 1.0]])
        means = MultivariateNormal(torch.zeros(2), covariance).sample((2000,))
        posterior = DiagonalGaussian(means, torch.full((2000, 2), -3.0))
        z = posterior.sample(torch.randn(1, 2000, 2))
        spread = covariance + torch.exp(torch.tensor(-3.0)) * torch.eye(2)
        expected = -0.5 * torch.logdet(spread) + 0.5 * spread.diagonal().log().sum()
        assert total_correlation(posterior, z).item() == pytest.approx(expected.item(), abs=0.06)


def test_beta_tcvae_is_the_elbo_at_beta_one(objective):
    torch.manual_seed(0)
    posterior = DiagonalGaussian(torch.randn(6, 3), torch.randn(6, 3))
    z = posterior.sample(torch.randn(2, 6, 3))
    log_likelihood = torch.randn(2, 6)
    plain = objective("elbo")(posterior, z, log_likelihood, weight())
    same = objective("beta_tcvae")(posterior, z, log_likelihood, weight())
    torch.testing.assert_close(same.loss, plain.loss)
    more = objective("beta_tcvae")(posterior, z, log_likelihood, weight(5.0))
    correlation = total_correlation(posterior, z)
    torch.testing.assert_close(more.loss, plain.loss + 4 * correlation)
    torch.testing.assert_close(more.metrics["total_correlation"], correlation)


def test_log_prior_is_the_standard_normal():
    z = torch.randn(3, 4, 2)
    torch.testing.assert_close(log_prior(z), Normal(0.0, 1.0).log_prob(z).sum(-1))
