"""Densities of codes that are fitted after training, against a mixture that is known exactly."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from vae_cli.analysis import samplers
from vae_cli.analysis.trained import load_run
from vae_cli.console import UserError

from .conftest import task_of

# two Gaussians with correlations of their own, far from N(0, I)
WEIGHTS = torch.tensor([0.7, 0.3]).double()
MEANS = torch.tensor([[3.0, 1.0], [-1.0, 5.0]]).double()
COVARIANCES = torch.tensor([[[1.0, 0.6], [0.6, 0.5]], [[0.3, -0.2], [-0.2, 0.8]]]).double()
TRUTH = MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(MEANS, COVARIANCES))


@pytest.fixture
def codes():
    torch.manual_seed(0)
    return TRUTH.sample((4000,)).float()


@pytest.mark.parametrize(
    ("sampler", "gap", "far"),  # nats below the true log-density, and of covariances, allowed
    [("gmm", 0.02, 0.2), ("flow", 0.2, 0.6), ("two_stage", 0.6, 1.2)],
)
def test_a_sampler_recovers_a_known_mixture(codes, sampler, gap, far):
    train, test = codes[:3000], codes[3000:]
    task = task_of("task=sample", f"sampler={sampler}", "components=2", "steps=500")
    fitted = samplers.fitted(task, train, 0)
    truth, found = TRUTH.log_prob(test.double()), fitted.log_prob(test)
    assert found.dtype == torch.float64
    assert truth.mean() + 0.05 > found.mean() > truth.mean() - gap
    assert found.mean() > Normal(0.0, 1.0).log_prob(test).sum(1).mean() + 5  # than N(0, I)
    draws, mean = fitted.draw(5000), (WEIGHTS[:, None] * MEANS).sum(0).float()
    apart = MEANS - mean
    spread = COVARIANCES + apart[:, :, None] * apart[:, None]
    covariance = (WEIGHTS[:, None, None] * spread).sum(0).float()
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=far / 2)
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0, atol=far)
    # a picture of the first draws shows all components in their shares
    assert 0.5 < (draws[:200, 0] > 1).float().mean() < 0.9


@pytest.mark.parametrize("sampler", ["gmm", "flow", "two_stage"])
def test_a_density_integrates_to_one_and_the_seed_decides_it(codes, sampler):
    task = task_of("task=sample", f"sampler={sampler}", "steps=50")
    axis = torch.linspace(-12, 14, 131)
    plane = torch.cartesian_prod(axis, axis)
    fitted, again, other = (samplers.fitted(task, codes, seed) for seed in (0, 0, 1))
    mass = fitted.log_prob(plane).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=0.03)
    draws = fitted.draw(50)
    assert again.log_prob(draws).equal(fitted.log_prob(draws))
    assert again.draw(50).equal(draws)
    assert not other.draw(50).equal(draws)


@pytest.mark.parametrize("sampler", ["gmm", "flow", "two_stage"])
@pytest.mark.parametrize("model", ["ae", "mlp_vae"])
def test_every_run_can_be_sampled_from(evaluate, trained, model, sampler):
    folder = trained("dataset=digits", "epochs=1", f"model={model}")
    done = evaluate(folder, "task=sample", "n=9", f"sampler={sampler}", "steps=20")
    arrays, run = done.npz("samples.npz"), load_run(folder)
    assert done.files == {"samples.png", "samples.npz"}
    assert str(arrays["sampler"]) == sampler
    assert np.allclose(arrays["x"], run.decode(arrays["z"]), atol=1e-6)
    assert arrays["log_density"].shape == (297,)
    assert np.isfinite(arrays["log_density"]).all()
    assert f"sampler={sampler}, fitted to 1,300 training codes" in done.rows["draws"]
    assert ("prior=standard_normal" in done.rows["log-density"]) == (model == "mlp_vae")


def test_an_autoencoder_has_no_prior_and_gaussians_need_codes(evaluate, trained, codes):
    folder = trained("dataset=digits", "epochs=1", "model=ae")
    with pytest.raises(UserError, match=r"sampler=prior.*sampler=gmm"):
        evaluate(folder, "task=sample")
    with pytest.raises(UserError, match="sampler=gmm"):
        load_run(folder).sample(3)
    task = task_of("task=sample", "sampler=gmm", "components=7")
    with pytest.raises(UserError, match=r"components=7: .* 6 codes"):
        samplers.fitted(task, codes[:6], 0)


@pytest.mark.parametrize("posterior", ["vq", "fsq"])
def test_codes_of_finitely_many_values_are_drawn_as_such(evaluate, trained, posterior):
    folder = trained("dataset=digits", f"posterior={posterior}", "epochs=2")
    done = evaluate(folder, "task=sample", "sampler=gmm", "components=2", "n=20")
    head = load_run(folder).vae.head
    z = torch.from_numpy(done.npz("samples.npz")["z"])
    torch.testing.assert_close(head.nearest(z), z)
    assert "log_density" not in done.npz("samples.npz")
    with pytest.raises(UserError, match="has no prior to draw from"):
        evaluate(folder, "task=sample")


def test_one_hot_codes_have_no_density_to_fit(evaluate, trained):
    folder = trained("dataset=digits", "posterior=categorical", "epochs=1")
    z = evaluate(folder, "task=sample", "n=6").npz("samples.npz")["z"]
    assert (z.reshape(6, 2, -1).sum(1) == 1).all()
    with pytest.raises(UserError, match="sampler=gmm: the one-hot codes"):
        evaluate(folder, "task=sample", "sampler=gmm")
