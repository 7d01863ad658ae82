"""The mathematics, against cases whose answers are known exactly."""

import math

import pytest
import torch

from vae_cli.analysis import measures
from vae_cli.data.dataset import Data, Split
from vae_cli.training import evaluation
from vae_cli.training.evaluation import evaluate, log_likelihood
from vae_cli.vae.priors import Examples
from vae_cli.vae.vae import build_vae

SIGMA = 0.7


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layers(network: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.fixture
def linear(make_config):
    """A linear-Gaussian VAE, x = W z + b + sigma noise, with its exact posterior and evidence.

    W has orthogonal columns, so the true posterior is diagonal and the encoder can be exact.
    """
    overrides = ("model.hidden_sizes=[]", "model.latent_dim=2", "likelihood=gaussian")
    config = make_config("dataset=beta_pdf", *overrides, f"likelihood.sigma={SIGMA}")
    vae = build_vae(config, (6,))
    weight = torch.linalg.qr(torch.randn(6, 2, generator=source(1)))[0] * torch.tensor([2.0, 0.5])
    bias = torch.randn(6, generator=source(2))
    variance = 1 / (1 + (weight**2).sum(0) / SIGMA**2)  # of the true posterior
    encoder, decoder = layers(vae.model.encoder)[-1], layers(vae.model.decoder)[-1]
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(bias)
        gain = variance[:, None] * weight.T / SIGMA**2
        encoder.weight.copy_(torch.cat([gain, torch.zeros(2, 6)]))
        encoder.bias.copy_(torch.cat([-gain @ bias, variance.log()]))
    covariance = (weight @ weight.T + SIGMA**2 * torch.eye(6)).double()
    return vae, torch.distributions.MultivariateNormal(bias.double(), covariance)


def test_the_exact_posterior_gives_the_exact_evidence_from_one_code(linear):
    vae, evidence = linear
    x = evidence.sample((30,)).float()
    values, _ = log_likelihood(vae, [(x, None)], 1, source())
    torch.testing.assert_close(values, evidence.log_prob(x.double()), rtol=0, atol=1e-4)
    _, effective = log_likelihood(vae, [(x, None)], 100, source())
    torch.testing.assert_close(effective, torch.full((30,), 100.0).double())


def test_a_worse_posterior_still_finds_the_evidence_within_its_standard_error(linear):
    vae, evidence = linear
    encoder = layers(vae.model.encoder)[-1]
    with torch.no_grad():
        encoder.weight[:2] *= 0.8
        encoder.bias[:2] += 0.3
        encoder.bias[2:] += 2 * math.log(1.5)  # wider than the truth, so the weights are bounded
    x = evidence.sample((40,)).float()
    exact = evidence.log_prob(x.double())
    k = 20_000
    values, effective = log_likelihood(vae, [(x, None)], k, source())
    # delta method: the variance of log mean w is (1/ess - 1/K)
    error = (1 / effective - 1 / k).sqrt()
    assert float(((values - exact) / error).abs().max()) < 4.5
    assert abs(float((values - exact).mean())) < 3 * float(error.norm()) / len(x)


def affine_flow(prior):
    """Make a flow of two layers shift and scale each dimension, whatever the other one is."""
    for layer, bias in zip(prior.layers, ([0, 0.4, 0, -0.5], [-0.3, 0, 0.3, 0]), strict=True):
        layer[-1].bias.data = torch.tensor(bias, dtype=torch.float32)  # shifts, raw log-scales
    return torch.tensor([[-0.3, 0.4]]), torch.tensor([[0.3, -0.5]]).tanh().exp()


@pytest.mark.parametrize(
    "name", ["standard_normal", "mixture", "vamp", "exemplar", "flow", "affine flow"]
)
@torch.no_grad()
def test_the_estimate_converges_to_the_evidence_under_every_prior(linear, make_config, name):
    torch.manual_seed(0)
    vae, evidence = linear
    encoder, decoder = layers(vae.model.encoder)[-1], layers(vae.model.decoder)[-1]
    config = make_config("dataset=beta_pdf", f"prior={name.split()[-1]}").prior
    sizes = {k: v for k, v in {"components": 3, "layers": 2}.items() if hasattr(config, k)}
    vae.prior = config.model_copy(update=sizes).build(2, (6,))
    some = 2 * evidence.sample((1000,)).float()
    vae.learn_from(Examples(len(some), lambda count: (some[:count], None)))
    weights, means, scales = torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2)
    encoder.bias[2:] += 2 * math.log(2)  # wider than any true posterior: bounded weights
    if name == "mixture":
        vae.prior.logits.copy_(torch.tensor([0.3, -0.5, 0.1]))
        means, scales = vae.prior.means, vae.prior.log_scales.exp()
        weights = vae.prior.logits.exp()
    elif name == "vamp":
        components = vae.encode(vae.prior.pseudo_inputs())
        weights, means, scales = torch.ones(3), components.mean, components.stddev
    elif name == "exemplar":
        vae.prior.log_scale.fill_(-0.4)
        means, weights = vae.encode(some[:3]).mean, torch.ones(3)
        scales = torch.full_like(means, math.exp(-0.4))
    elif name == "affine flow":
        means, scales = affine_flow(vae.prior)
    # p(x) = sum_c w_c N(W m_c + b, W S_c W^T + sigma^2 I)
    weight, means, scales = decoder.weight.detach().double(), means.double(), scales.double()
    covariance = (weight * scales[:, None] ** 2) @ weight.T + SIGMA**2 * torch.eye(6)
    components = torch.distributions.MultivariateNormal(
        means @ weight.T + decoder.bias.detach(), covariance
    )
    chosen = torch.distributions.Categorical(weights.double())
    exact = torch.distributions.MixtureSameFamily(chosen, components)
    x, k = exact.sample((20,)).float(), 20_000
    values, effective = log_likelihood(vae, [(x, None)], k, source())
    error = (1 / effective - 1 / k).sqrt()
    assert float(effective.min()) > 300
    assert float(((values - exact.log_prob(x.double())) / error).abs().max()) < 4.5
    assert float((values - exact.log_prob(x.double())).abs().max()) < 0.15


def test_the_sum_over_codes_is_the_same_in_any_portions(linear, monkeypatch):
    vae, evidence = linear
    x = evidence.sample((7,)).float()
    whole, _ = log_likelihood(vae, [(x, None)], 50, source())
    monkeypatch.setattr(evaluation, "VALUES", 6 * 7)  # one code an example at a time
    parts, _ = log_likelihood(vae, [(x, None)], 50, source())
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["vamp", "exemplar"])
def test_components_of_the_prior_are_encoded_once_for_all_examples(make_config, name):
    words = (f"prior={name}", "prior.components=3", "model.latent_dim=2")
    vae = build_vae(make_config("dataset=digits", *words), (1, 8, 8))
    x, sizes = torch.rand(120, 1, 8, 8), []
    vae.learn_from(Examples(120, lambda count: (x[:count], None)))
    vae.model.encoder.register_forward_hook(lambda module, given, code: sizes.append(len(code)))
    values, _ = log_likelihood(vae, [(x[:110], None), (x[110:], None)], 20, source())
    assert sizes == [3, 50, 50, 10, 10]
    again = source()  # as the parts one by one
    parts = [log_likelihood(vae, [(part, None)], 20, again)[0] for part in x[:110].split(50)]
    torch.testing.assert_close(values[:110], torch.cat(parts))


def test_the_information_of_a_gaussian_channel():
    # z = x + noise with x ~ N(0, 1), noise 0.5: I = log(1 + 1/0.25) / 2 (Shannon)
    mean = torch.randn(4000, 1, generator=source(5))
    (value, error), (correlation, _) = measures.information(
        mean, torch.full_like(mean, 0.5), source()
    )
    assert value == pytest.approx(0.5 * math.log(5), abs=5 * error)
    apart = 100.0 * torch.arange(64)[:, None]  # codes that never overlap carry log N
    (value, _), _ = measures.information(apart, torch.full((64, 1), 0.01), source())
    assert value == pytest.approx(math.log(64))
    assert correlation == pytest.approx(0, abs=1e-12)  # of one dimension


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_total_correlation_of_gaussian_codes(rho, monkeypatch):
    # q(z) = N(0, C) with correlation rho: TC = -log(1 - rho^2) / 2, and as much information as
    # log det C - log det of the noise leaves: (log(1 - rho^2) - 2 log 0.1) / 2
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]]).double()
    factor = torch.linalg.cholesky(covariance - 0.1 * torch.eye(2))
    mean = torch.randn(4000, 2, generator=source(5), dtype=torch.double) @ factor.T
    stddev = torch.full_like(mean, math.sqrt(0.1))
    (value, error), (correlation, spread) = measures.information(mean, stddev, source())
    exact = -0.5 * math.log(1 - rho**2)
    assert correlation == pytest.approx(exact, abs=4 * spread + 0.01)
    assert value == pytest.approx(-exact - math.log(0.1), abs=5 * error)
    monkeypatch.setattr(measures, "VALUES", 3 * 16 * 4000)  # three rows at a time
    again = measures.information(mean, stddev, source())
    assert again[1] == pytest.approx((correlation, spread), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "output", "make"),
    [
        ("gaussian", 0.3, lambda mean: torch.distributions.Normal(mean, 1.0)),
        (
            "continuous_bernoulli",
            -20,
            lambda raw: torch.distributions.ContinuousBernoulli(logits=raw),
        ),
    ],
)
def test_bits_are_those_of_the_probabilities_of_grey_levels(make_config, name, output, make):
    raw = torch.randint(0, 256, (300, 1, 4, 4), dtype=torch.uint8, generator=source())
    raw[:240] = 0  # as most pixels of MNIST
    data = Data("a", Split(raw), None, Split(raw))
    vae = build_vae(make_config("dataset=digits", f"likelihood={name}"), data.shape)
    with torch.no_grad():
        layers(vae.model.decoder)[-1].bias.fill_(output)
        layers(vae.model.decoder)[-1].weight.zero_()  # the code is ignored
        kl = vae.encode(raw.float() / 255).kl_to_standard_normal().sum(1).mean()
    bits, note = measures.bits_per_dimension(vae, data, 0)
    edges = ((torch.arange(257) - 0.5).double() / 255).clamp(0, 1)
    cdf = make(torch.tensor(float(output)).double()).cdf(edges)
    cdf[0], cdf[-1] = 0, 1
    mass = cdf.diff().log()[raw.long()]
    expected = float(kl - mass.sum((1, 2, 3)).mean()) / (16 * math.log(2))
    assert bits == pytest.approx(expected, rel=1e-6)
    assert "8-bit" in note
    if name == "continuous_bernoulli":  # density x 1/255, as earlier versions had it, is too large
        elbo = evaluate(vae, data, data.test, 1.0, 0).metrics["elbo"]
        assert -elbo / (16 * math.log(2)) + math.log2(255) < bits - 0.5


def test_what_has_no_probabilities_has_no_bits(make_config):
    split = Split((torch.rand(50, 1, 4, 4, generator=source()) * 255).byte())
    data, binary = (Data("a", split, None, split, binarize=b) for b in ("none", "threshold"))
    real = Data("a", split, None, Split(split.x.float() / 255))

    def bits(data: Data, *overrides: str) -> tuple[float | None, str]:
        vae = build_vae(make_config("dataset=digits", *overrides), (1, 4, 4))
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.zero_()  # logits of 0 and a KL of 0: a bit for each value
        return measures.bits_per_dimension(vae, data, 0)

    assert bits(binary)[0] == pytest.approx(1.0)
    assert bits(data)[0] is None
    for refused in ((binary, "gaussian"), (data, "squared_error"), (real, "laplace")):
        assert bits(refused[0], f"likelihood={refused[1]}")[0] is None


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("bernoulli", lambda raw: torch.distributions.Bernoulli(logits=raw)),
        ("gaussian", lambda raw: torch.distributions.Normal(raw, 1.0)),
        ("gaussian_learned", lambda raw: torch.distributions.Normal(raw, 1.0)),
        ("continuous_bernoulli", lambda raw: torch.distributions.ContinuousBernoulli(logits=raw)),
    ],
)
def test_the_likelihood_of_a_large_image_is_exact_to_a_thousandth_of_a_nat(
    make_config, monkeypatch, name, make
):
    # the code is ignored and q(z|x) = p(z), so that log p(x) is log p(x|z) of the decoder's bias
    shape = (3, 256, 256)
    config = make_config("dataset=digits", f"likelihood={name}", "model.hidden_sizes=[1]")
    vae, raw = build_vae(config, shape), 2 * torch.randn(1, 1, *shape, generator=source(1))
    with torch.no_grad():
        for parameter in vae.model.parameters():
            parameter.zero_()
        layers(vae.model.decoder)[-1].bias.copy_(raw.flatten())
    x = torch.rand(1, *shape, generator=source(2)).round()
    values, _ = log_likelihood(vae, [(x, None)], 3, source())
    exact = make(raw[0].double()).log_prob(x.double()).sum()
    assert float(values[0]) == pytest.approx(float(exact), abs=1e-3)


@pytest.fixture(params=[2, 8])
def curved(request, make_config):
    """A decoder that bends a lot, from 2 and from 8 dimensions."""
    overrides = ("model.hidden_sizes=[32]", "model.activation=tanh")
    config = make_config("dataset=beta_pdf", *overrides, f"model.latent_dim={request.param}")
    vae = build_vae(config, (20,)).requires_grad_(False)
    layers(vae.model.decoder)[0].weight.mul_(6)
    layers(vae.model.decoder)[-1].weight.mul_(3)
    return vae


def test_a_curve_that_a_code_decodes_to_is_found_again(curved):
    z = torch.randn(1, curved.latent_dim, generator=source())
    fit = measures.fit(curved, curved.mean(z)[0], 32, source())
    assert fit.residual_norm < 1e-5  # the target is in float32
    torch.testing.assert_close(fit.code.float(), z[0], rtol=0, atol=1e-3)


def test_a_linear_decoder_is_fitted_as_least_squares_would(linear):
    vae, _ = linear
    target = torch.randn(6, generator=source(9))
    decoder = layers(vae.model.decoder)[-1]
    wanted = torch.linalg.lstsq(
        decoder.weight.detach().double(), (target - decoder.bias.detach()).double()[:, None]
    ).solution[:, 0]
    fit = measures.fit(vae, target, 4, source())
    torch.testing.assert_close(fit.code, wanted, rtol=0, atol=1e-6)
    assert decoder.weight.dtype == torch.float32  # the model itself is untouched
