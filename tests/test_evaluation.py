import pytest
import torch

from vae_cli import build
from vae_cli.evaluation import ACTIVE_VARIANCE, evaluate, evaluating


@pytest.fixture
def setting(make_config):
    config = make_config("dataset=digits", "model.latent_dim=3", "objective.num_samples=2")
    data = build.data(config)
    return build.vae(config, data.shape), data


def test_evaluation_is_the_mean_over_all_examples(setting):
    vae, data = setting
    found = evaluate(vae, data, data.test, beta=2.0, seed=0)  # 297: two batches of unequal size
    posterior = vae.encode(data.test.x)
    kl = posterior.kl().mean(0).detach()
    torch.testing.assert_close(found.kl, kl)
    assert found.metrics["kl"] == pytest.approx(kl.sum().item(), rel=1e-5)
    m = found.metrics
    assert m["loss"] == pytest.approx(m["reconstruction"] + 2 * m["kl"], rel=1e-6)
    assert m["elbo"] == pytest.approx(-m["reconstruction"] - m["kl"], rel=1e-6)
    variance = posterior.mean.detach().var(0, unbiased=False)
    torch.testing.assert_close(found.mean_variance, variance)
    assert found.active.equal(variance > ACTIVE_VARIANCE)
    assert found.active_units == int((variance > ACTIVE_VARIANCE).sum())


def test_the_seed_decides_the_noise(setting):
    vae, data = setting
    first, again, other = (evaluate(vae, data, data.val, 1.0, s).metrics for s in (0, 0, 1))
    assert first == again
    assert first["reconstruction"] != other["reconstruction"]
    assert first["kl"] == other["kl"]


def test_the_mode_comes_back(setting):
    vae, _ = setting
    vae.train()
    with pytest.raises(RuntimeError), evaluating(vae):
        assert not vae.training
        raise RuntimeError
    assert vae.training
