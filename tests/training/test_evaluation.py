import pytest
import torch

from vae_cli.training import evaluation
from vae_cli.training.build import load_data
from vae_cli.training.evaluation import ACTIVE_VARIANCE, encode, evaluate
from vae_cli.vae.vae import build_vae


@pytest.fixture
def setting(make_config):
    config = make_config("dataset=digits")
    data = load_data(config)
    return build_vae(config, data.shape), data


def test_terms_are_means_over_the_split_and_codes_its_posteriors(setting):
    vae, data = setting
    evaluation, codes = evaluate(vae, data, data.test, 2.0, 0), encode(vae, data, data.test, 0)
    with torch.no_grad():
        posterior = vae.encode(data.test.x)
        kl = vae.prior.exact_kl(posterior).by_dimension
    torch.testing.assert_close(evaluation.kl, kl.mean(0))
    torch.testing.assert_close(codes.kl, kl)
    torch.testing.assert_close(codes.mean, posterior.mean)
    torch.testing.assert_close(codes.stddev, posterior.stddev)
    noise = (codes.drawn - codes.mean) / codes.stddev  # of 297 x 8 draws
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert float(noise.std()) == pytest.approx(1, abs=0.06)
    m = evaluation.metrics
    assert m["kl"] == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    assert m["loss"] == pytest.approx(m["reconstruction"] + 2 * m["kl"], rel=1e-6)
    assert m["elbo"] == pytest.approx(-m["reconstruction"] - m["kl"], rel=1e-6)
    variance = posterior.mean.var(0, unbiased=False)
    torch.testing.assert_close(evaluation.mean_variance, variance)
    units = int((variance > ACTIVE_VARIANCE).sum())
    assert evaluation.active_units == evaluation.named("val")["val/active_units"] == units
    assert evaluation.named("val")["val/elbo"] == m["elbo"]


def test_the_seed_decides_the_noise(setting):
    vae, data = setting
    first, again, other = (evaluate(vae, data, data.val, 1.0, s).metrics for s in (0, 0, 1))
    assert first == again
    assert first["reconstruction"] != other["reconstruction"]
    assert first["kl"] == other["kl"]


def test_a_prior_without_a_closed_form_has_no_kl_by_dimension(make_config):
    config = make_config("dataset=digits", "prior=mixture")
    data = load_data(config)
    vae = build_vae(config, data.shape)
    assert evaluate(vae, data, data.val, 1.0, 0).kl is None
    assert encode(vae, data, data.val, 0).kl is None


@pytest.mark.parametrize(
    ("override", "sizes"),
    [
        ("objective=beta_tcvae", [64, 64, 64, 8]),
        ("objective.free_bits=0.1", [64, 64, 64, 8]),
        ("beta_schedule=capacity", [64, 64, 64, 8]),
        ("objective=iwae", [200]),  # the mean over examples is one of any batches
    ],
)
def test_a_loss_that_depends_on_the_batch_is_measured_in_batches_of_the_training(
    make_config, override, sizes
):
    config = make_config("dataset=digits", "batch_size=64", override)
    data = load_data(config)
    vae, losses = build_vae(config, data.shape), []
    vae.objective.register_forward_hook(lambda _, given, terms: losses.append(terms.loss.item()))
    measured = evaluate(vae, data, data.val, 4.0, 0).metrics["loss"]
    assert len(losses) == len(sizes)
    mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / 200
    assert measured == pytest.approx(mean, rel=1e-6)


def test_as_many_codes_at_once_as_the_largest_layer_allows(make_config, monkeypatch):
    monkeypatch.setattr(evaluation, "VALUES", 100_000)

    def codes(*overrides: str) -> int:
        data = load_data(config := make_config("dataset=digits", *overrides))
        labels = data.test.labels
        return evaluation.codes_at_once(build_vae(config, data.shape, 10), labels)

    conv = ("model=conv_vae", "model.channels=[16,32]")
    assert codes("model.hidden_sizes=[50]") == 100_000 // 64  # the output is the largest
    assert codes("model.hidden_sizes=[200]", "model.condition_on_labels=true") == 500
    assert codes(*conv) == 100_000 // (16 * 8 * 8)
