import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vae_cli.vae.objectives import Weight
from vae_cli.vae.posteriors import Encode
from vae_cli.vae.priors import Prior
from vae_cli.vae.regularizers import Penalty
from vae_cli.vae.vae import VAE, build_vae

WEIGHT = Weight(torch.tensor(2.0), torch.tensor(0.0))
CONV = ("model=conv_vae",)
X = torch.rand(5, 1, 8, 8)


@pytest.fixture
def build(make_config):
    def make(*overrides: str) -> VAE:
        sizes = "model.channels=[4,8]" if CONV[0] in overrides else "model.hidden_sizes=[16]"
        return build_vae(make_config(sizes, "model.latent_dim=2", *overrides), X.shape[1:])

    return make


def test_the_seed_decides_the_weights_of_the_networks_whatever_the_prior(build):
    def weights(*overrides: str) -> Tensor:
        return torch.cat([p.detach().flatten() for p in build(*overrides).model.parameters()])

    assert weights("seed=1").equal(weights("seed=1", "prior=mixture"))
    assert not weights("seed=1").equal(weights("seed=2"))


def test_codes_and_examples_have_their_shapes(build):
    vae = build("objective.num_samples=3").eval()
    assert vae.noise_shape(5) == (3, 5, 2)
    assert vae.decode(torch.randn(3, 5, 2)).shape == (3, *X.shape)
    assert vae.mean(vae.encode(X).mean).shape == X.shape


@pytest.mark.parametrize("overrides", [(), CONV])
def test_the_networks_alone_run_in_bfloat16(build, overrides):
    vae, noise = build("precision=bf16", *overrides), torch.randn(1, 5, 2)
    loss, metrics = vae(X, noise, WEIGHT)
    loss.backward()
    assert {tensor.dtype for tensor in metrics.values()} == {torch.float32}
    assert {p.grad.dtype for p in vae.parameters()} == {torch.float32}
    precise = build(*overrides)(X, noise, WEIGHT).metrics["loss"]
    torch.testing.assert_close(metrics["loss"], precise, rtol=0.1, atol=0)
    assert not metrics["loss"].equal(precise)


def test_a_denoising_autoencoder_encodes_what_it_sees_and_decodes_the_rest(build):
    vae, noise, seen = build("model=ae"), torch.zeros(1, 5, 2), torch.rand(X.shape)
    expected = vae.terms(vae.encode(seen), X, noise, WEIGHT, seen).loss
    assert vae(X, noise, WEIGHT, seen).loss.equal(expected)
    assert not vae(X, noise, WEIGHT).loss.equal(expected)


@pytest.mark.parametrize("name", ["gradient", "contractive"])
def test_a_penalty_does_not_count_the_batch_again(build, name):
    noise, weight = torch.zeros(1, 5, 2), Weight(*torch.tensor([1.0, 0.0]))
    found = []
    for words in ((), (f"penalty={name}",)):
        vae = build(*CONV, "posterior=point", *words).train()
        vae(X, noise, weight, generator=torch.Generator().manual_seed(0))
        found.append(dict(vae.model.named_buffers()))
    assert found[0]
    assert all(v.equal(found[1][k]) for k, v in found[0].items())


def test_a_slope_of_the_encoder_is_that_of_one_example_alone(build):
    vae, x, seen = build(*CONV).train(), X.clone().requires_grad_(), []
    vae.penalty = Penalty(1.0, lambda at: seen.append(at.encode(x).mean) or x.sum())
    vae(X, torch.zeros(1, 5, 2), WEIGHT)
    (slope,) = torch.autograd.grad(seen[0][0].sum(), x)
    assert slope[0].abs().max() > 0
    assert slope[1:].eq(0).all()


def test_a_penalty_is_part_of_the_loss_and_has_its_metric(build):
    vae, noise = build("model=ae", "penalty=sparse", "penalty.weight=0.5"), torch.zeros(1, 5, 2)
    loss, metrics = vae(X, noise, WEIGHT)
    penalty = vae.encode(X).mean.abs().sum(1).mean()
    torch.testing.assert_close(metrics["penalty"], penalty.detach())
    torch.testing.assert_close(loss, metrics["reconstruction"] + 0.5 * penalty)
    assert metrics["loss"] == loss
    assert "penalty" not in build("model=ae")(X, noise, WEIGHT).metrics


class MadeOfPosteriors(Prior):
    """A VampPrior of two fixed pseudo-inputs: what the interface of priors must carry."""

    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        posterior = encode(X[:2])
        components = Normal(posterior.mean, posterior.stddev)  # of each dimension, [2, Z]
        return components.log_prob(z[..., None, :]).sum(-1).logsumexp(-1) - torch.tensor(2.0).log()

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        return encode(X[:2]).mean[torch.arange(n) % 2]


@pytest.mark.parametrize("objective", ["elbo", "iwae", "iwae objective.gradient=dreg"])
def test_a_prior_can_be_made_of_posteriors(build, objective):
    vae = build(*f"objective={objective}".split(), *CONV)
    vae.prior = MadeOfPosteriors(vae.prior, 2, X.shape[1:])
    loss, metrics = vae(X, torch.randn(1, 5, 2), WEIGHT)
    loss.backward()
    assert metrics["elbo"].isfinite()
    # BatchNorm counts x's batch alone: pseudo-inputs are normalised by its running statistics
    assert vae.model.encoder[1].num_batches_tracked == 1
    assert vae.model.encoder[1].training
    z = vae.draw_prior(3, torch.Generator())
    assert z.shape == (3, 2)
    assert not z.requires_grad
