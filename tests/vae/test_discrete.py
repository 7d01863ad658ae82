import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Normal,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    kl_divergence,
)

from vae_cli.config import networks
from vae_cli.training.evaluation import log_likelihood
from vae_cli.vae import discrete
from vae_cli.vae.discrete import CategoricalHead, VQHead
from vae_cli.vae.objectives import Weight
from vae_cli.vae.vae import build_vae

Z, B, G = 6, 5, 3  # dimensions, examples, groups of two


def codebook(**settings: float) -> VQHead:
    """A codebook of eight vectors of two numbers, away from 0."""
    torch.manual_seed(0)
    own = {"codes": 8, "code_dim": 2, "quantizers": 1, "commitment": 0.25, "decay": 0.9}
    config = networks.VQConfig(name="vq", **own | {"revive": 0.0} | settings)
    head = config.build(Z)
    head.codes.normal_()
    head.sums.copy_(head.codes)
    return head


def vectors(code: Tensor) -> Tensor:
    """The groups of a code [B, Z]: dimensions g and g + G. -> [B * G, 2]."""
    return torch.stack([code[:, :G], code[:, G:]], -1).flatten(0, 1)


@pytest.mark.parametrize("stages", [1, 3])
def test_a_code_is_the_nearest_of_its_codebook_and_its_gradient_passes_straight(stages):
    head, code = codebook(quantizers=stages), torch.randn(B, Z, requires_grad=True)
    posterior, left = head(code), vectors(code.detach())
    for codes in head.codes:
        left = left - codes[torch.cdist(left, codes).argmin(1)]
    torch.testing.assert_close(vectors(posterior.mean), vectors(code) - left)
    weight = torch.randn(B, Z)
    (posterior.sample(torch.zeros(2, B, Z)).z * weight).sum().backward()
    torch.testing.assert_close(code.grad, 2 * weight)
    with pytest.raises(TypeError, match="no density"):
        posterior.sample(torch.zeros(2, B, Z)).log_q()


@pytest.mark.parametrize("stages", [1, 2])
def test_the_gradient_of_the_commitment_is_that_of_finite_differences(stages):
    head, code = codebook(quantizers=stages), torch.randn(B, Z, requires_grad=True)
    head(code).cost.backward()
    moves = 5e-4 * torch.eye(B * Z).view(-1, B, Z)  # inside a code's cell the cost is a square
    with torch.no_grad():
        costs = [head(code + move).cost - head(code - move).cost for move in moves]
    torch.testing.assert_close(code.grad.flatten(), torch.stack(costs) / 1e-3, rtol=0, atol=2e-2)


def test_the_codebook_follows_by_the_written_out_moving_means():
    head, smoothing = codebook(), discrete.SMOOTHING
    codes, counts, sums = head.codes[0].double(), torch.ones(8).double(), head.codes[0].double()
    for _ in range(3):
        posterior = head(code := torch.randn(B, Z))
        given = vectors(code).double()
        nearest = torch.cdist(given, codes).argmin(1)
        for number in range(8):
            mine = given[nearest == number]
            counts[number] = 0.9 * counts[number] + 0.1 * len(mine)
            sums[number] = 0.9 * sums[number] + 0.1 * mine.sum(0)
        total = counts.sum()
        codes = sums / ((counts + smoothing) / (total + 8 * smoothing) * total)[:, None]
        posterior.learn(torch.randn(1, B, Z))
        torch.testing.assert_close(head.codes[0].double(), codes)


def test_use_is_counted_and_dead_codes_start_again_as_vectors_of_the_batch():
    head = codebook(revive=0.05)
    head.counts[0, 5:] = 0.01
    code = torch.stack([head.codes[0, 0], head.codes[0, 3], head.codes[0, 0]], 1).flatten()[None]
    posterior = head(code.repeat(B, 1))  # two groups choose code 0, one code 3
    assert posterior.metrics["perplexity"].item() == pytest.approx(3 / 2 ** (2 / 3))
    assert posterior.metrics["dead_codes"] == 3
    kept = head.codes.clone()
    posterior.learn(torch.randn(1, B, Z))
    distance = torch.cdist(head.codes[0, 5:], kept[0, [0, 3]]).amin(1)
    torch.testing.assert_close(distance, torch.zeros(3))
    assert head.counts[0, 5:].eq(1).all()
    torch.testing.assert_close(head.codes[0, :5], kept[0, :5], rtol=1e-3, atol=1e-3)


def test_the_loss_holds_the_commitment_and_only_training_moves_the_codebook(make_config):
    vae = build_vae(make_config("posterior=vq", "model.latent_dim=6"), (1, 4, 4))
    x, noise, weight = torch.rand(B, 1, 4, 4), torch.randn(1, B, 6), torch.tensor([1.0, 0.0])
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    for mode in (False, True):
        loss, metrics = vae.train(mode)(x, noise, Weight(*weight))
        torch.testing.assert_close(loss, metrics["reconstruction"] + metrics["commitment"])
        assert metrics["loss"] == loss
        assert metrics["kl"] == 0
        changed = {
            name for name, value in vae.state_dict().items() if not value.equal(before[name])
        }
        assert changed == ({"head.codes", "head.counts", "head.sums"} if mode else set())


@pytest.mark.parametrize("levels", [2, 5, 8])
def test_finite_scalars_are_the_nearest_levels_and_their_gradient_passes_straight(levels):
    code = torch.linspace(-4, 4, 100 * Z).view(100, Z).requires_grad_()
    posterior = networks.FSQConfig(name="fsq", levels=levels).build(Z)(code)
    grid, bounded = torch.linspace(-1, 1, levels), code.detach().tanh()
    nearest = grid[(bounded[..., None] - grid).abs().argmin(-1)]
    torch.testing.assert_close(posterior.mean.detach(), nearest)
    assert len(posterior.mean.detach().mul(1000).round().unique()) == levels
    posterior.mean.sum().backward()
    torch.testing.assert_close(code.grad, 1 - bounded**2)


def categorical(**settings: float) -> CategoricalHead:
    own = {"categories": 3, "temperature": 1.0, "rate": 0.1, "min_temperature": 0.75}
    return networks.CategoricalConfig(name="categorical", **own | settings).build(Z)


def test_one_hot_codes_are_those_of_torch_distributions():
    torch.manual_seed(0)
    code, prior = (
        torch.randn(B, Z),
        networks.UniformConfig(name="uniform", categories=3).build(Z, (4,)),
    )
    posterior = categorical().eval()(code)
    logits = code.view(B, 3, 2).mT.double()  # variable v has the dimensions v, v + 2, v + 4
    plain, noise = OneHotCategorical(logits=logits), torch.randn(50_000, B, Z).double()
    drawn = posterior.sample(noise)
    z = drawn.z.view(-1, B, 3, 2).mT  # [K, B, V, C]
    assert z.sum(-1).eq(1).all()
    assert set(z.unique().tolist()) == {0, 1}
    torch.testing.assert_close(drawn.log_q(), plain.log_prob(z).sum(-1), rtol=1e-6, atol=1e-6)
    assert drawn.log_q().dtype == torch.float64
    error = (plain.probs * (1 - plain.probs) / len(z)).sqrt()
    assert ((z.mean(0) - plain.probs).abs() < 4 * error).all()
    torch.testing.assert_close(posterior.mean.view(B, 3, 2).mT.double(), plain.probs)
    kl = kl_divergence(Categorical(logits=logits), Categorical(logits=torch.zeros(3))).sum(-1)
    torch.testing.assert_close(prior.exact_kl(posterior).total, kl.float())
    log_p = prior.log_prob(drawn.z, lambda x: posterior)
    torch.testing.assert_close(log_p, torch.full_like(log_p, -2 * math.log(3)))
    draws = prior.sample(30_000, torch.Generator().manual_seed(0), lambda x: posterior)
    draws = draws.view(-1, 3, 2).mT
    assert draws.sum(-1).eq(1).all()
    assert ((draws.mean(0) - 1 / 3).abs() < 4 * (2 / 9 / 30_000) ** 0.5).all()


def test_relaxed_codes_have_the_moments_of_torch_distributions():
    torch.manual_seed(0)
    code = torch.randn(B, Z)
    posterior = categorical(temperature=0.8)(code)
    z = posterior.sample(torch.randn(50_000, B, Z)).z.view(-1, B, 3, 2).mT
    plain = RelaxedOneHotCategorical(torch.tensor(0.8), logits=code.view(B, 3, 2).mT)
    other = plain.sample((50_000,))
    for power in (1, 2):
        torch.testing.assert_close((z**power).mean(0), (other**power).mean(0), rtol=0, atol=0.01)
    assert z.sum(-1).allclose(torch.ones(()))


def test_the_temperature_falls_with_the_updates_to_its_minimum(make_config):
    settings = ("posterior.rate=0.1", "posterior.min_temperature=0.75", "model.latent_dim=6")
    vae = build_vae(make_config("posterior=categorical", *settings), (1, 4, 4))
    x, noise = torch.rand(B, 1, 4, 4), torch.randn(1, B, 6)
    weight, found = Weight(*torch.tensor([1.0, 0.0])), []
    for _ in range(5):
        found.append(float(vae(x, noise, weight).metrics["temperature"]))
        vae.eval()(x, noise, weight)  # a measurement is no update
        vae.train()
    assert found == pytest.approx([1, math.exp(-0.1), math.exp(-0.2), 0.75, 0.75])
    assert vae.state_dict()["head.updates"] == 5


def test_the_likelihood_of_one_hot_codes_is_the_sum_over_all_of_them(make_config):
    settings = ("posterior.categories=3", "model.latent_dim=6", "likelihood=gaussian")
    vae = build_vae(make_config("posterior=categorical", *settings), (1, 4, 4)).eval()
    x = torch.rand(B, 1, 4, 4)
    with torch.no_grad():
        pairs = torch.cartesian_prod(
            torch.arange(3), torch.arange(3)
        )  # categories of both variables
        z = torch.stack([(pairs == c).float() for c in range(3)], 1).flatten(1)  # [9, Z]
        params = vae.decode(z[:, None]).double()  # [9, 1, *shape]
        log_joint = Normal(params, 1.0).log_prob(x.double()).flatten(2).sum(2) - math.log(9)
    exact = log_joint.logsumexp(0)
    found, _ = log_likelihood(vae, [(x, None)], 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)
