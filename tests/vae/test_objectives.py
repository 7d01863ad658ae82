import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_cli.config import losses
from vae_cli.config.networks import MixtureConfig, StandardNormalConfig
from vae_cli.vae.objectives import Drawn, Objective, Weight
from vae_cli.vae.posteriors import DiagonalGaussian, Point, Posterior
from vae_cli.vae.priors import Prior

NORMAL = StandardNormalConfig(name="standard_normal").build(2, (4,))
ELBO = losses.ElboConfig(name="elbo", num_samples=1, free_bits=0.0).build(2)
close = torch.testing.assert_close


def iwae(**settings: object) -> Objective:
    given = {"num_samples": 1, "groups": 1, "elbo_share": 0.0, "gradient": "reparameterised"}
    return losses.IWAEConfig.model_validate({"name": "iwae", **given, **settings}).build(2)


IWAE = iwae()


def weight(beta: float = 1.0, capacity: float = 0.0) -> Weight:
    return Weight(torch.tensor(beta), torch.tensor(capacity))


def drawn(posterior: Posterior, samples: int = 1, prior: Prior = NORMAL) -> Drawn:
    """A batch with random codes and likelihoods, of priors that are not made of posteriors."""
    noise = torch.randn(samples, *posterior.mean.shape, dtype=posterior.mean.dtype)
    log_likelihood = torch.randn(noise.shape[:2])
    x = torch.zeros(len(posterior.mean), 4)
    code, generator = posterior.sample(noise), torch.Generator().manual_seed(0)
    return Drawn(x, posterior, code, log_likelihood, prior, encode=Point, generator=generator)


def gaussian(batch: int = 6) -> DiagonalGaussian:
    torch.manual_seed(0)
    return DiagonalGaussian(torch.randn(batch, 2), torch.randn(batch, 2))


def mixture(components: int) -> Prior:
    return MixtureConfig(name="mixture", components=components).build(2, (4,))


def test_elbo_is_reconstruction_plus_beta_kl_in_nats_an_example():
    batch = drawn(gaussian(), samples=3)
    loss, metrics = ELBO(batch, weight(4.0))
    plain = Normal(batch.posterior.mean, batch.posterior.stddev)
    kl = kl_divergence(plain, Normal(0.0, 1.0)).sum(1).mean()
    close(loss, -batch.log_likelihood.mean() + 4 * kl)
    # whatever beta is trained with, the elbo is that of beta = 1
    reconstruction, elbo = -batch.log_likelihood.mean(), batch.log_likelihood.mean() - kl
    close(metrics, {"loss": loss, "reconstruction": reconstruction, "kl": kl, "elbo": elbo})
    assert not any(term.requires_grad for term in metrics.values())


def test_elbo_of_a_plain_autoencoder_is_its_reconstruction_and_needs_no_density():
    batch = drawn(Point(torch.randn(5, 2)))  # its density is a TypeError
    loss, metrics = ELBO(batch, weight(7.0))
    assert metrics["kl"] == 0
    close(loss, -batch.log_likelihood.mean())


@pytest.fixture(scope="module")
def linear_gaussian():
    """p(z) = N(0, I), p(x|z) = N(W z + b, s^2 I): evidence and posterior are exact.

    With W's columns orthogonal the posterior is diagonal, so a bound can be tight.
    """
    torch.manual_seed(0)
    s = 0.7
    W = torch.linalg.qr(torch.randn(5, 2, dtype=torch.double))[0] * torch.tensor([1.5, 0.6])
    b, x = torch.randn(5, dtype=torch.double), torch.randn(4, 5, dtype=torch.double)
    evidence = MultivariateNormal(b, W @ W.T + s**2 * torch.eye(5)).log_prob(x).mean()
    precision = 1 + (W**2).sum(0) / s**2
    mean = ((x - b) @ W / s**2) / precision

    def draw(posterior: Posterior, samples: int) -> Drawn:
        batch = drawn(posterior, samples)
        batch.log_likelihood = Normal(batch.code.z @ W.T + b, s).log_prob(x).sum(-1)
        return batch

    return mean, (-precision.log()).expand_as(mean), evidence, draw


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_elbo_is_the_evidence_less_the_divergence_from_the_exact_posterior(linear_gaussian, shift):
    mean, log_var, evidence, draw = linear_gaussian
    posterior = DiagonalGaussian(mean + shift, log_var + shift)
    exact = Normal(mean, (log_var / 2).exp())
    gap = kl_divergence(Normal(posterior.mean, posterior.stddev), exact).sum(1).mean()
    batch = draw(posterior, 100_000)
    error = batch.log_likelihood.std(0).mean() / 100_000**0.5
    assert abs(evidence - ELBO(batch, weight()).metrics["elbo"] - gap) < 4 * error


def test_iwae_reaches_the_evidence_from_a_wrong_posterior(linear_gaussian):
    mean, log_var, evidence, draw = linear_gaussian
    posterior = DiagonalGaussian(mean + 0.3, log_var + 0.5)
    means, errors = {}, {}
    for samples, repeats in ((1, 1500), (10, 1500), (100_000, 15)):
        losses = [IWAE(draw(posterior, samples), weight()).loss for _ in range(repeats)]
        bounds = -torch.stack(losses)
        means[samples], errors[samples] = float(bounds.mean()), float(bounds.std() / repeats**0.5)
    assert abs(means[100_000] - evidence) < 4 * errors[100_000]
    assert means[1] + 4 * errors[1] < means[10] < means[100_000]  # tighter with more codes
    # with one code the bound is the ELBO
    elbo = ELBO(draw(posterior, 100_000), weight()).metrics["elbo"]
    assert abs(means[1] - elbo) < 4 * errors[1]
    # from the exact posterior any number of codes reaches it
    exact = IWAE(draw(DiagonalGaussian(mean, log_var), 3), weight())
    assert float(-exact.loss) == pytest.approx(float(evidence), rel=1e-6)


def test_miwae_is_the_mean_of_the_bounds_of_groups_and_ciwae_mixes_the_elbo_in():
    batch = drawn(gaussian(), 6)
    log_weight = batch.log_likelihood + 0.5 * batch.log_ratio  # [6, B], beta = 0.5

    def bound(log_weight: torch.Tensor) -> torch.Tensor:
        return log_weight.double().exp().mean(0).log().mean().float()

    groups = torch.stack([bound(part) for part in log_weight.split(2)])
    close(iwae(groups=3)(batch, weight(0.5)).loss, -groups.mean())
    loss = iwae(elbo_share=0.3)(batch, weight(0.5)).loss
    close(loss, -(0.3 * log_weight.mean() + 0.7 * bound(log_weight)))
    # what is logged is the bound of all codes at beta = 1, for each of them
    for objective in (IWAE, iwae(groups=3), iwae(elbo_share=0.3), iwae(gradient="dreg")):
        comparable = objective(batch, weight(0.5)).metrics["bound"]
        close(comparable, bound(batch.log_likelihood + batch.log_ratio).detach())


def gradients(repeats: int, exact: bool = False, beta: float = 1.0, **settings: object) -> list:
    """The gradients of independent draws: of means, of log-variances, of a decoder's weights.

    A Gaussian VAE of one example, p(x|z) = N(W z, I) with orthogonal columns in W, repeated as a
    batch, each repeat with parameters of its own. -> three tensors [repeats, numbers].
    """
    x, W = torch.tensor([1.0, -0.5, 2.0]).double(), torch.tensor([[1.0, 0], [0, 0.5], [0, 0]])
    precision = 1 + W.square().sum(0)
    mean, log_var = W.T.double() @ x / precision, -precision.log()  # of the exact posterior
    if not exact:
        mean, log_var = mean + 0.5, log_var + 0.4
    parameters = [
        p.double().expand(repeats, *p.shape).clone().requires_grad_() for p in (mean, log_var, W)
    ]
    batch = drawn(DiagonalGaussian(*parameters[:2]), settings.get("num_samples", 1))
    decoded = (parameters[2] @ batch.code.z[..., None]).squeeze(-1)
    batch.log_likelihood = Normal(decoded, 1.0).log_prob(x).sum(-1)
    loss = iwae(**settings)(batch, weight(beta)).loss
    return [g.flatten(1) * repeats for g in torch.autograd.grad(loss, parameters)]


def standard_errors_apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    error = ((one.var(0) + other.var(0)) / len(one)).sqrt()
    return ((one.mean(0) - other.mean(0)) / error.clamp(min=1e-12)).abs()


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize(
    ("gradient", "settings"),
    [
        ("stl", {}),
        ("dreg", {"num_samples": 5}),
        ("dreg", {"num_samples": 6, "groups": 2}),
        ("dreg", {"num_samples": 4, "elbo_share": 0.5}),
    ],
)
def test_stl_and_dreg_have_the_mean_gradient_of_the_plain_one(gradient, settings, beta):
    torch.manual_seed(0)
    plain = gradients(100_000, beta=beta, **settings)
    other = gradients(100_000, beta=beta, gradient=gradient, **settings)
    for one, two in zip(plain, other, strict=True):
        assert (standard_errors_apart(one, two) < 4).all()


def test_dreg_has_a_smaller_variance_and_stl_another_mean_with_several_codes():
    torch.manual_seed(0)
    plain, stl, dreg = (
        gradients(20_000, num_samples=50, gradient=kind)
        for kind in ("reparameterised", "stl", "dreg")
    )
    for of_encoder in (0, 1):
        assert (dreg[of_encoder].var(0) < plain[of_encoder].var(0) / 4).all()
    close(dreg[2].var(0), plain[2].var(0), rtol=0.1, atol=1e-9)  # the decoder's gradient is plain
    # the score that stl leaves out has a mean (Tucker et al. 2019)
    assert (standard_errors_apart(plain[0], stl[0]) > 10).all()
    assert (standard_errors_apart(plain[2], stl[2])[[0, 3]] < 4).all()


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_without_the_score_every_draw_from_the_exact_posterior_has_no_gradient(gradient):
    # Roeder et al. 2017: the weights are then constant, and so is each draw's gradient
    mean, log_var, _ = gradients(20, exact=True, num_samples=3, gradient=gradient)
    close(torch.cat([mean, log_var]), torch.zeros(40, 2).double(), rtol=0, atol=1e-6)
    mean, log_var, _ = gradients(20, exact=True, num_samples=3)
    assert torch.cat([mean, log_var]).abs().max() > 0.1


def test_free_bits_charge_no_less_than_their_sum():
    mean = torch.tensor([[2.0, 0.0], [2.0, 0.0]], requires_grad=True)
    batch = drawn(DiagonalGaussian(mean, torch.zeros(2, 2)))  # KL of the dimensions: 2 and 0
    elbo = losses.ElboConfig(name="elbo", num_samples=1, free_bits=0.5).build(2)
    loss, metrics = elbo(batch, weight(3.0))
    close(loss - metrics["reconstruction"], torch.tensor(3 * (2 + 0.5)))
    assert metrics["kl"].item() == pytest.approx(2)  # reported as it is
    assert torch.autograd.grad(loss, mean)[0][:, 1].eq(0).all()


@pytest.mark.parametrize(("capacity", "cost"), [(0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (5.0, 3.0)])
def test_capacity_asks_for_an_amount_of_kl(capacity, cost):
    batch = drawn(DiagonalGaussian(torch.full((2, 2), 2**0.5), torch.zeros(2, 2)))  # KL 2
    loss, metrics = ELBO(batch, weight(10.0, capacity))
    close(loss - metrics["reconstruction"], torch.tensor(10 * cost))
    close(metrics["elbo"], batch.log_likelihood.mean() - 2)


def test_a_kl_without_a_closed_form_is_estimated():
    class Unknown(DiagonalGaussian):
        def kl_to_standard_normal(self) -> None:
            return None

    batch = drawn(Unknown(gaussian().mean, gaussian().log_var), 100_000)
    exact, error = NORMAL.exact_kl(gaussian()), batch.log_ratio.std(0) / 100_000**0.5
    assert batch.kl.by_dimension is None
    assert ((batch.kl.total - exact.by_dimension.sum(-1)).abs() < 4 * error).all()


def test_under_a_mixture_the_elbo_has_the_mean_log_ratio_for_a_kl():
    batch = drawn(gaussian(), 4, mixture(3))
    loss, metrics = ELBO(batch, weight(2.0))
    log_p = batch.prior.log_prob(batch.code.z, batch.encode)
    kl = (batch.posterior.log_prob(batch.code.z) - log_p).mean()
    close(metrics["kl"], kl.detach())
    close(loss, metrics["reconstruction"] + 2 * kl)
    assert torch.autograd.grad(loss, batch.prior.means)[0].ne(0).any()
    one = drawn(gaussian(), 1, mixture(3))  # with one code IWAE is the ELBO
    loss, metrics = IWAE(one, weight())
    close(metrics.pop("bound"), -loss.detach())
    close((loss, metrics), tuple(ELBO(one, weight())))


def test_an_estimated_kl_below_zero_is_not_turned_around():
    batch = drawn(gaussian(), 1, mixture(3))
    batch._log_ratio = torch.full((1, 6), 0.25)  # the codes happen to suit p(z)
    free = ELBO(batch, weight(0.0)).loss
    close(ELBO(batch, weight(2.0)).loss - free, torch.tensor(-0.5))
    close(ELBO(batch, weight(2.0, capacity=1.0)).loss - free, torch.tensor(2 * 1.25))
