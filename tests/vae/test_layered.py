import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from vae_cli.config import networks
from vae_cli.vae.layered import FORGET_BIAS, Conditional, Ladder, LadderPrior
from vae_cli.vae.posteriors import DiagonalGaussian, Posterior
from vae_cli.vae.vae import build_vae

Z, B = 4, 3


def no_encoder(x: Tensor) -> Posterior:
    raise AssertionError("this prior is not made of posteriors")


def iaf(flows: int = 3, trained: bool = True) -> Posterior:
    """A flow of three examples in float64; trained: its last layers are not 0."""
    torch.manual_seed(0)
    config = networks.IAFConfig(name="iaf", flows=flows, hidden_sizes=[9, 7], context=2)
    head = config.build(Z).double()
    if trained:
        for step in head.steps:
            torch.nn.init.normal_(step.last.weight)
    posterior = head(torch.randn(B, head.width()))
    posterior.context = posterior.context.double()
    posterior.base.mean = posterior.base.mean.double()
    return posterior


def jacobian(posterior: Posterior, noise: Tensor) -> Tensor:
    """dz / d noise of each example by central differences. noise [B, Z] -> [B, Z, Z]."""
    steps = 1e-5 * torch.eye(Z).double()[:, None]  # [Z, 1, Z]
    columns = posterior.sample(noise + steps).z - posterior.sample(noise - steps).z
    return (columns / 2e-5).permute(1, 2, 0)


@pytest.mark.parametrize("flows", [1, 2, 3])
def test_the_log_density_of_a_flow_is_that_of_its_numerical_jacobian(flows):
    posterior, noise = iaf(flows), torch.randn(1, B, Z).double()
    code, slopes = posterior.sample(noise), jacobian(posterior, noise[0])
    normal = Normal(0.0, 1.0).log_prob(noise[0]).sum(-1)
    torch.testing.assert_close(code.log_q()[0], normal - slopes.slogdet().logabsdet)
    # every step depends on the dimensions before, so the last one sees all others
    seen = (slopes[0].abs() > 1e-9).sum()
    assert seen == (Z * (Z + 1) // 2 if flows == 1 else Z * Z)
    # not a diagonal Gaussian, and the context counts
    posterior.context = posterior.context + 1
    assert ((posterior.sample(noise).z - code.z).abs() > 1e-6).all()


def test_a_flow_starts_as_its_base_drawn_together_by_the_forget_gates():
    posterior, noise = iaf(flows=2, trained=False), torch.randn(5, B, Z).double()
    kept = 1 / (1 + math.exp(-FORGET_BIAS))
    base = posterior.base
    expected = Normal(kept**2 * base.mean, kept**2 * base.stddev)
    code = posterior.sample(noise)
    torch.testing.assert_close(code.log_q(), expected.log_prob(code.z.flip(-1)).sum(-1))
    torch.testing.assert_close(posterior.mean.flip(-1), expected.mean)
    torch.testing.assert_close(posterior.stddev.flip(-1).float(), expected.stddev, rtol=0.3, atol=0)


def test_a_flow_has_no_density_where_it_did_not_draw():
    with pytest.raises(TypeError, match="only at the codes that it draws"):
        iaf().log_prob(torch.zeros(1, B, Z))


def linear(given: int, weight: Tensor, bias: Tensor, variance: Tensor) -> Conditional:
    """N(weight given + bias, variance) as a network without hidden layers."""
    config = networks.LadderPriorConfig(name="ladder", top=1, hidden_sizes=[], activation="tanh")
    network = Conditional(given, config, len(bias)).double()
    (layer,) = network.network
    with torch.no_grad():
        layer.weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
        layer.bias.copy_(torch.cat([bias, variance.log()]))
    return network


@pytest.mark.parametrize(("off", "count", "far"), [(0.0, 1, 1e-9), (0.3, 100_000, 0.02)])
def test_two_linear_layers_have_the_known_evidence(off, count, far):
    # z2 = N(0, 1), z1 = w z2 + b + N(0, s), x = a z1 + c + N(0, t) of three dimensions
    torch.manual_seed(0)
    w, b, s, t = (torch.tensor([value]).double() for value in (0.7, 0.3, 0.5, 0.2))
    a, c, total = torch.randn(3).double(), torch.randn(3).double(), w**2 + s  # variance of z1
    evidence = MultivariateNormal(a * b + c, total * torch.outer(a, a) + t * torch.eye(3))
    x = evidence.sample((B,))
    schema = networks.LadderPriorConfig(name="ladder", top=1, hidden_sizes=[], activation="tanh")
    prior = LadderPrior(schema, 2, (3,))
    prior.below = linear(1, w[None], b, s)
    variance = 1 / (1 / total + (a @ a) / t)
    mean = variance * (b / total + (x - c) @ a[:, None] / t)  # of z1 given x, [B, 1]
    above = linear(1, (w / total)[None], -w * b / total + off, s / total)  # of z2 given z1
    posterior = Ladder(DiagonalGaussian(mean + off, variance.log().expand(B, 1)), above, 2)
    code = posterior.sample(torch.randn(count, B, 2).double())
    log_likelihood = Normal(code.z[..., :1] * a + c, t.sqrt()).log_prob(x).sum(-1)
    weights = log_likelihood + prior.log_prob(code.z, no_encoder) - code.log_q()  # [K, B]
    # where q is the posterior itself, one code is enough
    estimate = weights.logsumexp(0) - math.log(count)
    torch.testing.assert_close(estimate, evidence.log_prob(x), rtol=0, atol=far)


def test_the_prior_of_two_layers_draws_what_its_density_says():
    torch.manual_seed(0)
    w, b = torch.tensor([[0.7], [-1.2]]).double(), torch.tensor([0.3, 0.1]).double()
    config = networks.LadderPriorConfig(name="ladder", top=1, hidden_sizes=[], activation="tanh")
    prior = LadderPrior(config, 3, (4,))
    prior.below = linear(1, w, b, torch.tensor([0.5, 0.2]).double())
    drawn = prior.sample(
        100_000, torch.Generator().manual_seed(0), None
    )  # encode: not of posteriors
    covariance = torch.eye(3).double()
    covariance[:2, :2] = w @ w.T + torch.tensor([0.5, 0.2]).diag()
    covariance[:2, 2:], covariance[2:, :2] = w, w.T
    joint = MultivariateNormal(torch.cat([b, torch.zeros(1).double()]), covariance)
    torch.testing.assert_close(prior.log_prob(drawn, no_encoder), joint.log_prob(drawn.double()))
    torch.testing.assert_close(torch.cov(drawn.T).double(), covariance, rtol=0.02, atol=0.02)


def test_the_decoder_reads_the_first_layer_alone(make_config):
    config = make_config("posterior=ladder", "posterior.top=3", "prior.top=3", "model.latent_dim=5")
    vae = build_vae(config, (1, 4, 4))
    assert (vae.latent_dim, vae.noise_shape(2)) == (5, (1, 2, 5))
    z = torch.randn(2, 7, 5)
    changed = torch.cat([z[..., :2], torch.randn(2, 7, 3)], -1)
    assert vae.decode(z).equal(vae.decode(changed))
    assert vae.encode(torch.rand(7, 1, 4, 4)).mean.shape == (7, 5)
    assert vae.draw_prior(6, torch.Generator()).shape == (6, 5)
