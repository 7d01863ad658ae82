"""The mathematics, against cases whose answers are known exactly."""

import math

import pytest
import torch

from vae_cli import analysis, build, fitting
from vae_cli.data.interface import Data, Split
from vae_cli.evaluation import Codes
from vae_cli.schema.datasets import Binarize

SIGMA = 0.7
CPU = torch.device("cpu")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(mean: torch.Tensor, stddev: torch.Tensor) -> Codes:
    kl = 0.5 * (stddev**2 + mean**2 - 1 - 2 * stddev.log())
    return Codes(mean, stddev, kl)


@pytest.fixture(scope="module")
def linear_config(make_config):
    return make_config(
        "dataset=beta_pdf",
        "model.hidden_sizes=[]",
        "model.latent_dim=2",
        "likelihood=gaussian",
        f"likelihood.sigma={SIGMA}",
    )


@pytest.fixture
def linear(linear_config):
    """A linear-Gaussian VAE, x = W z + b + sigma noise, with its exact posterior and evidence.

    W has orthogonal columns, so the true posterior is diagonal and the encoder can be exact.
    """
    vae = build.vae(linear_config, (6,))
    weight = torch.linalg.qr(torch.randn(6, 2, generator=source(1)))[0] * torch.tensor([2.0, 0.5])
    bias = torch.randn(6, generator=source(2))
    variance = 1 / (1 + (weight**2).sum(0) / SIGMA**2)  # of the true posterior
    encoder, decoder = vae.model.encoder[-1], vae.model.decoder[-1]
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(bias)
        gain = variance[:, None] * weight.T / SIGMA**2
        encoder.weight.copy_(torch.cat([gain, torch.zeros(2, 6)]))
        encoder.bias.copy_(torch.cat([-gain @ bias, variance.log()]))
    covariance = (weight @ weight.T + SIGMA**2 * torch.eye(6)).double()
    evidence = torch.distributions.MultivariateNormal(bias.double(), covariance)
    return vae, evidence


def test_the_exact_posterior_gives_the_exact_evidence_from_one_code(linear):
    vae, evidence = linear
    x = evidence.sample((30,)).float()
    found = analysis.log_likelihood(vae, x, 1, source())
    torch.testing.assert_close(found.values, evidence.log_prob(x.double()), rtol=0, atol=1e-4)
    many = analysis.log_likelihood(vae, x, 100, source())
    torch.testing.assert_close(many.effective_samples, torch.full((30,), 100.0).double())


def test_a_worse_posterior_still_finds_the_evidence_within_its_standard_error(linear):
    vae, evidence = linear
    encoder = vae.model.encoder[-1]
    with torch.no_grad():
        encoder.weight[:2] *= 0.8
        encoder.bias[:2] += 0.3
        encoder.bias[2:] += 2 * math.log(1.5)  # wider than the truth, so the weights are bounded
    x = evidence.sample((40,)).float()
    exact = evidence.log_prob(x.double())
    k = 20_000
    found = analysis.log_likelihood(vae, x, k, source())
    # delta method: the variance of log mean w is (1/ess - 1/K)
    error = (1 / found.effective_samples - 1 / k).sqrt()
    assert float(((found.values - exact) / error).abs().max()) < 4.5
    assert abs(float((found.values - exact).mean())) < 3 * float(error.norm()) / len(x)
    # and the bound tightens from the ELBO upwards
    bounds = [
        float(analysis.log_likelihood(vae, x, k, source(3)).values.mean()) for k in (1, 10, 1000)
    ]
    assert bounds[0] < bounds[1] < bounds[2] < float(exact.mean()) + 0.05


def test_the_sum_over_codes_is_the_same_in_any_portions(linear, monkeypatch):
    vae, evidence = linear
    x = evidence.sample((7,)).float()
    whole = analysis.log_likelihood(vae, x, 50, source())
    heard = []
    monkeypatch.setattr(analysis, "VALUES", 6 * 7)  # one code an example at a time
    parts = analysis.log_likelihood(vae, x, 50, source(), advance=heard.append)
    torch.testing.assert_close(whole.values, parts.values, rtol=0, atol=1e-4)
    assert heard == [7] * 50


def test_an_autoencoder_has_no_likelihood(make_config):
    vae = build.vae(make_config("dataset=digits", "model=ae"), (1, 8, 8))
    with pytest.raises(TypeError, match="no p"):
        analysis.log_likelihood(vae, torch.rand(2, 1, 8, 8), 3, source())


def test_a_posterior_that_is_the_prior_carries_no_information():
    found = analysis.mutual_information(codes(torch.zeros(500, 4), torch.ones(500, 4)), source())
    assert found.value == pytest.approx(0, abs=1e-9)


def test_codes_that_never_overlap_carry_log_n_and_none_carries_more():
    apart = codes(100.0 * torch.arange(64)[:, None], torch.full((64, 1), 0.01))
    assert analysis.mutual_information(apart, source()).value == pytest.approx(math.log(64))
    for scale in (0.01, 0.1, 1.0, 10.0):
        some = codes(scale * torch.randn(200, 3, generator=source()), torch.full((200, 3), 0.3))
        assert -0.05 < analysis.mutual_information(some, source()).value <= math.log(200) + 1e-9


def test_the_information_of_a_gaussian_channel():
    # z = x + noise with x ~ N(0, 1), noise 0.5: I = log(1 + 1/0.25) / 2 (Shannon)
    mean = torch.randn(4000, 1, generator=source(5))
    found = analysis.mutual_information(codes(mean, torch.full_like(mean, 0.5)), source())
    assert found.value == pytest.approx(0.5 * math.log(5), abs=5 * found.standard_error)
    assert found.standard_error < 0.02


def test_deterministic_codes_have_no_finite_information():
    with pytest.raises(TypeError, match="no density"):
        analysis.mutual_information(
            Codes(torch.randn(5, 2), torch.zeros(5, 2), torch.zeros(5, 2)), source()
        )


def test_moments_of_the_aggregate_posterior_are_those_of_draws_from_it():
    some = codes(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.5], [2.0, 0.5]]))
    mean, variance = analysis.aggregate_moments(some)
    assert mean.tolist() == [1.0, 1.0]
    assert variance.tolist() == [1.0 + 2.5, 0.25]


def test_the_most_active_dimension_comes_first():
    some = codes(torch.tensor([[0.0, 3.0, 1.0]]), torch.ones(1, 3))
    assert analysis.most_active(some).tolist() == [1, 2, 0]
    point = Codes(torch.tensor([[0.0, 5.0], [1.0, 5.0]]), torch.zeros(2, 2), torch.zeros(2, 2))
    assert analysis.most_active(point).tolist() == [0, 1]


def test_the_linear_probe_separates_what_is_linear_and_no_more():
    z = torch.randn(2000, 3, generator=source())
    labels = (z[:, 0] > 0).long() + 2 * (z[:, 1] > 0).long()
    noise = torch.randint(0, 4, (2000,), generator=source(1))
    half = [codes(part, torch.ones_like(part)) for part in (z[:1000], z[1000:])]
    found = analysis.linear_probe(half[0], labels[:1000], half[1], labels[1000:])
    assert found.test_accuracy > 0.97
    assert found.converged
    chance = analysis.linear_probe(half[0], noise[:1000], half[1], noise[1000:])
    assert 0.2 < chance.test_accuracy < 0.3
    scale = torch.tensor([1e4, 1e-4, 1.0])  # standardised, so a dimension's scale is no matter
    scaled = [codes(part.mean * scale, part.stddev) for part in half]
    again = analysis.linear_probe(scaled[0], labels[:1000], scaled[1], labels[1000:])
    assert again.test_accuracy == pytest.approx(found.test_accuracy, abs=0.002)


def eight_bit(binarize: Binarize = Binarize.none) -> Data:
    split = Split((torch.rand(50, 1, 4, 4, generator=source()) * 255).byte())
    return Data("random", split, None, split, binarize=binarize)


def likelihood(make_config, *overrides: str):
    return build.vae(make_config("dataset=digits", *overrides), (1, 4, 4)).likelihood


def test_bits_of_eight_bit_data_are_those_of_its_cells(make_config):
    data, sigma = eight_bit(), 0.1
    gaussian = likelihood(make_config, "likelihood=gaussian", f"likelihood.sigma={sigma}")
    x = data.prepare(data.test.x, source())
    mean = x + sigma * torch.randn(x.shape, generator=source(3))
    log_density = float(gaussian.log_prob(x, mean[None]).mean())
    bits, note = analysis.bits_per_dimension(log_density, data, gaussian)
    normal = torch.distributions.Normal(mean.double(), sigma)
    mass = normal.cdf(x.double() + 1 / 510) - normal.cdf(x.double() - 1 / 510)
    assert bits == pytest.approx(float(-mass.log2().mean()), abs=1e-3)
    assert "1/255" in note


def test_bits_of_binary_data_are_nats_over_ln_2(make_config):
    bernoulli = likelihood(make_config, "likelihood=bernoulli")
    for how in (Binarize.threshold, Binarize.dynamic):
        bits, _ = analysis.bits_per_dimension(-16 * math.log(2), eight_bit(how), bernoulli)
        assert bits == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "binarize", "reason"),
    [
        ("bernoulli", Binarize.none, "grey values"),
        ("squared_error", Binarize.none, "not normalised"),
        ("gaussian", Binarize.dynamic, "a density at binary values"),
    ],
)
def test_bits_are_left_out_where_they_mean_nothing(make_config, name, binarize, reason):
    found, why = analysis.bits_per_dimension(
        -10.0, eight_bit(binarize), likelihood(make_config, f"likelihood={name}")
    )
    assert found is None
    assert reason in why


def test_float_data_has_no_bits(make_config):
    split = Split(torch.rand(5, 1, 4, 4))
    gaussian = likelihood(make_config, "likelihood=gaussian")
    assert analysis.bits_per_dimension(-1.0, Data("x", split, None, split), gaussian)[0] is None


def test_walks_are_straight(linear):
    vae, evidence = linear
    x = evidence.sample((2,)).float()
    z, decoded = analysis.interpolate(vae, x[0], x[1], 5)
    mean = vae.encode(x).mean
    torch.testing.assert_close(z[[0, -1]], mean)
    torch.testing.assert_close(z[2], mean.mean(0))
    torch.testing.assert_close(decoded[[0, -1]], vae.reconstruct(x))

    values = torch.tensor([[-1.0, 0.0, 2.0]])
    made = analysis.traverse(vae, torch.tensor([0.5, 7.0]), torch.tensor([1]), values)
    wanted = torch.tensor([[0.5, -1.0], [0.5, 0.0], [0.5, 2.0]])
    torch.testing.assert_close(made[0], vae.mean(wanted))


# --------------------------------------------------------------------------------------- fitting


@pytest.fixture(scope="module", params=[2, 8])
def curved(request, make_config):
    """A decoder that bends a lot, from 2 and from 8 dimensions."""
    overrides = ("model.hidden_sizes=[32]", "model.activation=tanh")
    vae = build.vae(
        make_config("dataset=beta_pdf", *overrides, f"model.latent_dim={request.param}"), (20,)
    ).requires_grad_(False)
    vae.model.decoder[0].weight.mul_(6)
    vae.model.decoder[-1].weight.mul_(3)
    return vae


def test_a_curve_that_a_code_decodes_to_is_found_again(curved):
    z = torch.randn(1, curved.model.latent_dim, generator=source())
    target = curved.mean(z)[0]
    found = fitting.fit(curved, target, 32, source()).gradient
    assert found.residual_norm < 1e-5  # the target is in float32
    torch.testing.assert_close(found.code.float(), z[0], rtol=0, atol=1e-3)


def test_the_gradient_search_is_at_least_as_good_as_nelder_mead(curved):
    for seed in range(3):
        target = torch.randn(20, generator=source(seed))
        found = fitting.fit(curved, target, 32, source())
        slack = 1e-6 if curved.model.latent_dim == 2 else -0.05  # lost in 8 dimensions
        assert found.gradient.residual_norm <= found.nelder_mead.residual_norm * (1 + slack)
        decoded = curved.mean(found.best.code.float()[None])[0]
        norm = float((target - decoded).norm())
        assert found.best.residual_norm == pytest.approx(norm, rel=1e-5)


def test_a_linear_decoder_is_fitted_as_least_squares_would(linear):
    vae, _ = linear
    target = torch.randn(6, generator=source(9))
    decoder = vae.model.decoder[-1]
    wanted = torch.linalg.lstsq(
        decoder.weight.detach().double(), (target - decoder.bias.detach()).double()[:, None]
    ).solution[:, 0]
    before = torch.get_num_threads()
    found = fitting.fit(vae, target, 4, source())
    torch.testing.assert_close(found.gradient.code, wanted, rtol=0, atol=1e-6)
    assert torch.get_num_threads() == before
    assert vae.model.decoder[-1].weight.dtype == torch.float32  # the model itself is untouched
