import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae_cli.config import networks
from vae_cli.vae.layered import Flow
from vae_cli.vae.posteriors import DiagonalGaussian
from vae_cli.vae.priors import Examples, Exemplar, Mixture, Prior, VampPrior
from vae_cli.vae.vae import build_vae

Z, D = 3, 4
LAYER = torch.randn(D, 2 * Z, generator=torch.Generator().manual_seed(0)).double()


def encode(x: Tensor, labels: Tensor | None = None) -> DiagonalGaussian:
    """An encoder of one linear layer."""
    return DiagonalGaussian(*(x @ LAYER.to(x.dtype)).chunk(2, -1))


def examples(x: Tensor) -> Examples:
    return Examples(len(x), lambda count: (x[:count], None))


def mixture() -> Mixture:
    """A mixture away from its symmetric start."""
    torch.manual_seed(0)
    prior = networks.MixtureConfig(name="mixture", components=4).build(Z, (D,))
    with torch.no_grad():
        prior.log_scales += 0.5 * torch.randn_like(prior.log_scales)
        prior.logits += torch.randn_like(prior.logits)
    return prior


def standard_normal() -> Prior:
    return networks.StandardNormalConfig(name="standard_normal").build(Z, (D,))


def vamp(start: str = "random", components: int = 5) -> VampPrior:
    torch.manual_seed(0)
    config = networks.VampPriorConfig(name="vamp", components=components, start=start)
    return config.build(Z, (D,))


def exemplar(components: int = 5, x: Tensor | None = None) -> Exemplar:
    torch.manual_seed(0)
    prior = networks.ExemplarConfig(name="exemplar", components=components).build(Z, (D,))
    prior.log_scale.data.fill_(-0.3)
    prior.learn_from(examples(torch.rand(9, D) if x is None else x))
    return prior.eval()


def flow(latent_dim: int = Z, size: float = 0.5) -> Flow:
    """A flow away from the identity, where its last layers are zero."""
    torch.manual_seed(0)
    prior = networks.FlowConfig(name="flow", layers=3, hidden_size=8).build(latent_dim, (D,))
    for layer in prior.layers:
        torch.nn.init.normal_(layer[-1].weight, std=size)
        torch.nn.init.normal_(layer[-1].bias, std=size)
    return prior


def reference(prior: Prior) -> MixtureSameFamily | Independent:
    """The distribution of torch that a prior is."""
    if isinstance(prior, Mixture):
        weights, mean, scale = Categorical(logits=prior.logits), prior.means, prior.log_scales.exp()
    elif isinstance(prior, VampPrior):
        posterior = encode(prior.pseudo_inputs())
        weights, mean, scale = torch.ones(5), posterior.mean, posterior.stddev
    elif isinstance(prior, Exemplar):
        mean, scale = (prior.exemplars @ LAYER.to(prior.exemplars.dtype))[:, :Z], prior.log_scale
        weights, scale = torch.ones(5), scale.exp().expand_as(mean)
    else:
        return Independent(Normal(torch.zeros(Z), 1.0), 1)
    weights = weights if isinstance(weights, Categorical) else Categorical(weights)
    return MixtureSameFamily(weights, Independent(Normal(mean, scale), 1))


@pytest.mark.parametrize("make", [standard_normal, mixture, vamp, exemplar])
def test_a_prior_is_that_of_torch_distributions(make: Callable[[], Prior], monkeypatch):
    prior, n = make(), 100_000
    draws = [prior.sample(n, torch.Generator().manual_seed(1), encode) for _ in range(2)]
    assert draws[0].equal(draws[1])  # the generator decides
    z, expected = draws[0].detach(), reference(prior)
    torch.testing.assert_close(
        prior.log_prob(z[None], encode)[0], expected.log_prob(z), rtol=1e-4, atol=1e-4
    )
    assert ((z.mean(0) - expected.mean).abs() < 4 * expected.stddev / n**0.5).all()
    torch.testing.assert_close(z.std(0), expected.stddev, rtol=0.02, atol=0)
    # two codes for each of two examples, and any portions
    four = prior.log_prob(z[:4].view(2, 2, Z), encode)
    monkeypatch.setattr("vae_cli.vae.priors.VALUES", 1)
    torch.testing.assert_close(four, prior.log_prob(z[:4].view(2, 2, Z), encode))
    torch.testing.assert_close(four.flatten(), expected.log_prob(z[:4]), rtol=1e-4, atol=1e-4)
    inputs = (z[None, :4].double().requires_grad_(), *prior.double().parameters())
    assert torch.autograd.gradcheck(lambda z, *_: prior.log_prob(z, encode), inputs)


@pytest.mark.parametrize("start", ["examples", "random"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-30.0, 2.0)])
def test_pseudo_inputs_start_at_examples_or_at_random_and_stay_in_the_datas_range(start, low, high):
    x = low + (high - low) * torch.rand(40, D)
    x[0], x[1] = low, high  # the ends, where pixels of an image lie
    prior, other = vamp(start), vamp()
    prior.learn_from(examples(x))
    inputs = prior.pseudo_inputs()
    near = (inputs - x[:5]).abs().max() < 0.02 * (high - low)
    assert near == (start == "examples")
    inputs.sum().backward()
    assert (prior.raw.grad != 0).all()
    prior.raw.data.mul_(100)  # whatever training makes of them
    assert low <= prior.pseudo_inputs().min() <= prior.pseudo_inputs().max() <= high
    other.load_state_dict(prior.state_dict())
    assert other.pseudo_inputs().equal(prior.pseudo_inputs())


def test_more_components_than_examples_are_said_and_do_not_stay_equal(capsys):
    prior = vamp("examples", 7)
    prior.learn_from(examples(torch.rand(5, D)))
    assert "prior.components=7: more than the 5 training examples" in capsys.readouterr().err
    first, again = prior.pseudo_inputs()[[0, 5]]
    assert not first.equal(again)
    torch.testing.assert_close(first, again, rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", ["grey", "binary", "probabilities"])
def test_an_example_does_not_count_for_its_own_density_in_training(kind):
    x = torch.rand(9, 1, 8, 8)
    x[..., :4, :] = x[..., :4, :].round()
    drawn = x.round() if kind == "binary" else x
    prior = networks.ExemplarConfig(name="exemplar", components=5).build(Z, (1, 8, 8))
    prior.learn_from(examples(drawn)._replace(drawn=kind == "probabilities"))
    # one draw of an example under dynamic binarisation, whose probabilities the exemplars are
    seen = torch.bernoulli(drawn) if kind == "probabilities" else drawn
    z, layer = torch.randn(2, 9, Z), torch.randn(64, Z)

    def simple(x: Tensor, labels: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(x.flatten(1) @ layer, torch.zeros(()))

    found, means = prior.log_prob(z, simple, seen), simple(prior.exemplars, prior.labels).mean
    for i in range(9):  # the first five are the exemplars
        others = means[[c for c in range(5) if c != i]]
        each = Normal(others, 1.0).log_prob(z[:, i, None]).sum(-1)  # [2, 4 or 5]
        expected = each.logsumexp(1) - math.log(len(others))
        torch.testing.assert_close(found[:, i], expected, rtol=1e-4, atol=1e-3)
    whole = prior.eval().log_prob(z, simple, seen)
    assert (whole[:, :5] != found[:, :5]).all()
    torch.testing.assert_close(whole, prior.log_prob(z, simple))


def test_of_draws_the_likeliest_exemplar_is_left_out_and_never_all():
    # greys without a 0 or 1: each of the five exemplars could give any picture
    grey = 0.05 + 0.9 * torch.rand(5, 1, 8, 8)
    prior = networks.ExemplarConfig(name="exemplar", components=5).build(Z, (1, 8, 8))
    prior.learn_from(examples(grey)._replace(drawn=True))
    x = torch.bernoulli(grey)
    flat, p = x.flatten(1), grey.flatten(1)
    log_p = torch.distributions.Bernoulli(p).log_prob(flat[:, None]).sum(-1)  # [x, exemplar]
    assert prior.made_of(x).equal(log_p == log_p.amax(1, keepdim=True))
    alike = networks.ExemplarConfig(name="exemplar", components=2).build(Z, (1, 8, 8))
    alike.learn_from(examples(torch.full((2, 1, 8, 8), 0.5)))
    z, same = torch.randn(1, 2, Z), torch.full((2, 1, 8, 8), 0.5)
    first = lambda x, labels: DiagonalGaussian(x.flatten(1)[:, :Z], x.new_zeros(()))  # noqa: E731
    assert alike.log_prob(z, first, same).isfinite().all()


def test_the_volume_of_a_flow_is_that_of_its_jacobian_and_its_inverse_is_exact():
    prior = flow().double()

    def forward(noise: Tensor) -> Tensor:
        for number in range(len(prior.layers)):
            shift, log_scale = prior._change(number, noise)
            noise = noise * log_scale.exp() + shift
        return noise

    for noise in torch.randn(5, Z, dtype=torch.double):
        jacobian = torch.autograd.functional.jacobian(forward, noise)
        density = Normal(0.0, 1.0).log_prob(noise).sum() - jacobian.slogdet().logabsdet
        # log p(z) = log N(u) - log |dz/du|, u found by the inverse
        found = prior.log_prob(forward(noise)[None, None], encode)[0, 0]
        torch.testing.assert_close(found, density, rtol=0, atol=1e-12)


def test_a_flow_starts_as_the_standard_normal_and_integrates_to_one():
    z = torch.randn(2, 7, Z)
    start = networks.FlowConfig(name="flow", layers=3, hidden_size=8).build(Z, (D,))
    torch.testing.assert_close(
        start.log_prob(z, encode), standard_normal().log_prob(z, encode), rtol=0, atol=1e-6
    )
    prior = flow(2)
    axis = torch.linspace(-25, 25, 2001)
    plane = torch.cartesian_prod(axis, axis).view(1, -1, 2)
    with torch.no_grad():
        mass = prior.log_prob(plane, encode).double().exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-3)
    draws = prior.sample(100_000, torch.Generator().manual_seed(0), encode).detach()
    weight = prior.log_prob(plane, encode).detach().exp()[0, :, None] * (axis[1] - axis[0]) ** 2
    mean = (weight * plane[0]).sum(0)
    assert ((draws.mean(0) - mean).abs() < 5 * draws.std(0) / 100_000**0.5).all()


def test_a_vamp_prior_of_a_flow_is_made_of_the_gaussians_that_it_starts_from(make_config):
    small = ("posterior=iaf", "prior=vamp", "prior.components=5", "model.latent_dim=3")
    vae = build_vae(make_config("dataset=digits", *small), (1, 8, 8))
    z, base = torch.randn(2, 4, 3), vae.encode(vae.prior.pseudo_inputs()).base  # [5, 3]
    each = Independent(Normal(base.mean, base.stddev), 1)
    exact = MixtureSameFamily(Categorical(torch.ones(5)), each).log_prob(z)
    torch.testing.assert_close(vae.prior.log_prob(z, vae.encode), exact)


@pytest.mark.parametrize("name", ["vamp", "exemplar"])
def test_the_components_of_a_conditional_model_have_the_labels_of_their_examples(make_config, name):
    small = (f"prior={name}", "prior.components=5", "model.latent_dim=3")
    config = make_config("dataset=digits", "model.condition_on_labels=true", *small)
    vae, x, labels = build_vae(config, (1, 8, 8), 10), torch.rand(9, 1, 8, 8), torch.arange(9) % 4
    vae.learn_from(Examples(9, lambda count: (x[:count], labels[:count])))
    other = build_vae(config, (1, 8, 8), 10)
    other.load_state_dict(vae.state_dict())
    inputs = other.prior.pseudo_inputs() if name == "vamp" else x[:5]
    posterior = vae.encode(inputs, torch.tensor([0, 1, 2, 3, 0]))
    scale = posterior.stddev if name == "vamp" else torch.ones(5, 3)
    each = Independent(Normal(posterior.mean, scale), 1)
    z = torch.randn(2, 4, 3)
    exact = MixtureSameFamily(Categorical(torch.ones(5)), each).log_prob(z)
    torch.testing.assert_close(other.prior.log_prob(z, other.encode), exact)
    torch.testing.assert_close(other.prior.density(other.encode)(z), exact)
    draws = other.draw_prior(50_000, torch.Generator().manual_seed(0))
    assert ((draws.mean(0) - each.mean.mean(0)).abs() < 5 * draws.std(0) / 50_000**0.5).all()
