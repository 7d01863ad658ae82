"""task=metrics and task=nll on real runs."""

import json
import math

import numpy as np
import pytest
import torch

from vae_cli import load_run
from vae_cli.run import read_summary


def test_metrics_are_exactly_those_of_the_run(evaluate, images):
    done = evaluate(images, "num_codes=200")
    assert done.code == 0, done.err
    assert done.files == {"metrics.json"}
    found, saved = done.json("metrics.json"), read_summary(images)["metrics"]
    known = {k: v for k, v in saved.items() if k.startswith("test/")}
    assert {k: found[k] for k in known} == known
    assert len(known) >= 4
    assert found["summary_difference"] == 0
    assert "exactly those of summary.json" in done.out
    assert found["mutual_information"] <= found["mutual_information_bound"] == math.log(200)
    assert 0.1 < found["linear_probe"]["test_accuracy"] <= 1
    assert len(found["aggregate_posterior"]["variance"]) == 8
    assert found["bits_per_dimension"] is None
    assert "no bits per dimension: bernoulli gives no probability of grey values" in done.out


def test_the_kl_falls_into_information_and_marginal_kl(evaluate, images):
    found = evaluate(images).json("metrics.json")  # all 297 test examples
    parts = found["mutual_information"] + found["marginal_kl"]
    assert parts == pytest.approx(found["test/kl"], rel=1e-5)


def test_another_seed_measures_with_other_noise_and_says_so(evaluate, images):
    done = evaluate(images, "seed=5")
    assert done.json("metrics.json")["summary_difference"] > 0
    assert "differ from summary.json" in done.out


@pytest.mark.parametrize(
    "more", [("beta_schedule=warmup", "beta_schedule.epochs=1"), ("objective=iwae",)], ids=str
)
def test_metrics_follow_the_runs_schedule_and_objective(evaluate, train, more):
    done = evaluate(train("dataset=digits", "epochs=1", "beta=3", *more))
    assert done.code == 0, done.err
    assert done.json("metrics.json")["summary_difference"] == 0


def test_metrics_of_an_autoencoder_leave_out_what_has_no_meaning(evaluate, autoencoder):
    done = evaluate(autoencoder)
    found = done.json("metrics.json")
    assert found["mutual_information"] is None
    assert "no mutual information: a deterministic code" in done.out
    assert found["linear_probe"]["test_accuracy"] > 0.1


def test_metrics_of_curves_have_no_classifier(evaluate, curves):
    done = evaluate(curves)
    assert done.json("metrics.json")["linear_probe"] is None
    assert "no linear classifier: the data has no labels" in done.out


def test_bits_per_dimension_of_binarised_images(evaluate, train):
    folder = train("dataset=digits", "dataset.binarize=threshold", "epochs=1")
    found = evaluate(folder).json("metrics.json")
    assert found["bits_per_dimension"] == pytest.approx(-found["test/elbo"] / 64 / math.log(2))


def test_nll_is_between_the_elbo_and_nothing(evaluate, images):
    done = evaluate(images, "task=nll", "num_samples=100")
    assert done.code == 0, done.err
    assert done.files == {"nll_test.json", "nll_test.npz"}
    found, arrays = done.json("nll_test.json"), done.npz("nll_test.npz")
    values = arrays["log_likelihood"]
    assert values.shape == (297,)
    assert found["log_likelihood"] == pytest.approx(values.mean())
    assert found["standard_error"] == pytest.approx(values.std(ddof=1) / math.sqrt(297))
    assert found["log_likelihood"] > read_summary(images)["metrics"]["test/elbo"]
    assert (arrays["effective_samples"] >= 1 - 1e-9).all()
    assert (arrays["effective_samples"] <= 100 + 1e-6).all()
    assert "not a likelihood of the data" in done.out


def test_nll_of_some_examples_repeats_with_its_seed(evaluate, images):
    line = ("task=nll", "num_samples=20", "split=val", "max_examples=30")
    first, again = (evaluate(images, *line).json("nll_val.json") for _ in range(2))
    assert first["examples"] == 30
    assert first["log_likelihood"] == again["log_likelihood"]
    arrays = evaluate(images, *line, "seed=9").npz("nll_val.npz")
    assert len(np.unique(arrays["index"])) == 30
    assert arrays["index"].max() > 30  # drawn from the whole split


def test_nll_in_python_is_the_commands(evaluate, images):
    run = load_run(images)
    x = run.data().test.x[:10]
    values = run.log_likelihood(x, num_samples=500, seed=0)
    assert values.shape == (10,)
    assert values.dtype == torch.float64
    other = run.log_likelihood(x, num_samples=500, seed=1)
    torch.testing.assert_close(values, other, rtol=0, atol=1.0)
    assert not values.equal(other)


def test_without_validation_data_there_is_no_split_val(evaluate, curves):
    done = evaluate(curves, "task=nll", "split=val")
    assert done.code == 2
    assert "split=val: the run has no validation data" in done.err
    assert not done.folder.exists()


def test_a_run_that_has_not_ended_is_measured_too(evaluate, images, tmp_path):
    folder = tmp_path / "stopped"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_bytes((images / "config.yaml").read_bytes())
    last = (images / "checkpoints" / "last.ckpt").read_bytes()
    (folder / "checkpoints" / "last.ckpt").write_bytes(last)
    (folder / "summary.json").write_text(json.dumps({"status": "running"}))
    done = evaluate(folder)
    assert done.code == 0, done.err
    assert done.json("metrics.json")["summary_difference"] is None
