"""The tasks of vae-eval on real runs; task=export has a file of its own."""

import math

import numpy as np
import pytest
import torch

from vae_cli.analysis.settings import MetricsTask, SampleTask
from vae_cli.analysis.tasks import run_task
from vae_cli.analysis.trained import load_run
from vae_cli.console import UserError
from vae_cli.runs.saved import read_summary
from vae_cli.vae.vae import VAE


def test_metrics_are_exactly_those_of_the_run(evaluate, images):
    done = evaluate(images, "num_codes=200")
    found, saved = done.json("metrics.json"), read_summary(images)["metrics"]
    known = {k: v for k, v in saved.items() if k.startswith("test/")}
    assert {k: found[k] for k in known} == known
    assert found["summary_difference"] == 0
    assert found["mutual_information"] <= found["mutual_information_bound"] == math.log(200)
    assert 0.3 < found["linear_probe"]["test_accuracy"] <= 1
    assert found["bits_per_dimension"] is None
    codes = load_run(images).codes
    draws = codes.mean + codes.stddev * torch.randn(400, *codes.mean.shape)
    variance = draws.flatten(0, 1).var(0).tolist()
    assert found["aggregate_posterior"]["variance"] == pytest.approx(variance, rel=0.05)


def test_the_kl_falls_into_information_and_marginal_kl(evaluate, images):
    found = evaluate(images).json("metrics.json")  # all 297 test examples
    parts = found["mutual_information"] + found["marginal_kl"]
    assert parts == pytest.approx(found["test/kl"], rel=1e-5)
    parts = found["total_correlation"] + found["dimension_wise_kl"]
    assert parts == pytest.approx(found["marginal_kl"], rel=1e-9)


WARMUP = ("beta_schedule=warmup", "beta_schedule.epochs=1")


OTHERS = [("prior=mixture",), ("model=ae",), ("posterior=full_covariance",), ("posterior=iaf",)]


@pytest.mark.parametrize("more", [WARMUP, *OTHERS], ids=str)
def test_metrics_follow_the_runs_schedule_prior_and_model(evaluate, trained, more):
    done = evaluate(trained("dataset=digits", "epochs=1", *more))
    found, (name, _, choice) = done.json("metrics.json"), more[0].partition("=")
    assert found["summary_difference"] == 0
    assert (found["kl_by_dimension"] is None) == (choice in ("mixture", "full_covariance", "iaf"))
    reasons = [note for note in done.notes if "no sum over latent dimensions" in note]
    assert len(reasons) == (choice in ("mixture", "full_covariance", "iaf"))
    assert (found["mutual_information"] is None) == (choice in ("ae", "full_covariance", "iaf"))
    assert (found["aggregate_posterior"]["variance"] is None) == (choice == "iaf")
    if name == "posterior":
        assert f"no mutual information: {more[0]} is no product over dimensions" in done.notes


def test_the_likelihood_is_a_tighter_bound_the_more_codes_there_are(evaluate, images):
    few, many = (
        evaluate(images, "task=nll", f"num_samples={k}").json("nll_test.json") for k in (1, 200)
    )
    elbo, error = read_summary(images)["metrics"]["test/elbo"], few["standard_error"]
    assert few["log_likelihood"] == pytest.approx(elbo, abs=5 * error)
    assert many["log_likelihood"] > few["log_likelihood"]


def test_all_tasks_measure_one_draw_of_a_test_set(evaluate, trained, monkeypatch):
    folder = trained("dataset=digits", "epochs=1", "dataset.binarize=dynamic")
    seen: list[torch.Tensor] = []

    def encode(self, x, labels=None):
        seen.append(x)
        return real(self, x, labels)

    def inputs(*task: str) -> torch.Tensor:
        seen.clear()
        assert {"binarize": "dynamic", "binarize_seed": 0}.items() <= evaluate(folder, *task).json(
            "metrics.json" if "num_codes=9" in task else "nll_test.json"
        ).items()
        return torch.cat(seen)

    real = VAE.encode
    monkeypatch.setattr(VAE, "encode", encode)
    metrics, whole = inputs("num_codes=9"), inputs("task=nll", "num_samples=1")
    assert metrics[: len(whole)].equal(whole)
    part = inputs("task=nll", "num_samples=4", "max_examples=20")
    index = evaluate(folder, "task=nll", "max_examples=20", "num_samples=1").npz("nll_test.npz")
    assert part.equal(whole[index["index"]])
    run = load_run(folder)
    assert run.embed().mean.allclose(run.encode(whole).mean, atol=1e-6)
    assert run.examples([6]).equal(whole[6:7])
    assert run.examples(8).equal(whole[:8])


def test_embeddings_are_the_posteriors_with_what_is_known_of_each(evaluate, images, curves):
    done, run = evaluate(images, "task=embed"), load_run(images)
    assert done.files == {"codes_train.npz", "codes_val.npz", "codes_test.npz"}
    arrays, codes = done.npz("codes_val.npz"), run.embed("val")
    for key in ("mean", "stddev", "kl"):
        assert np.array_equal(arrays[key], getattr(codes, key))
    assert np.array_equal(arrays["labels"], run.data().val.labels)
    done, test = evaluate(curves, "task=embed"), load_run(curves).data().test
    assert done.files == {"codes_train.npz", "codes_test.npz"}
    assert np.array_equal(done.npz("codes_test.npz")["parameter_a"], test.parameters["a"])


@pytest.mark.parametrize(
    "choices", [("prior=standard_normal",), ("prior=mixture",), ("model=ae", "objective=mmd")]
)
def test_samples_are_the_runs_own(evaluate, trained, choices):
    folder = trained("dataset=digits", *choices, "epochs=1")
    done, run = evaluate(folder, "task=sample", "n=5", "seed=3"), load_run(folder)
    assert done.files == {"samples.png", "samples.npz"}
    assert np.array_equal(done.npz("samples.npz")["x"], run.sample(5, seed=3))
    wanted = run.vae.draw_prior(5, torch.Generator().manual_seed(3))
    assert np.array_equal(done.npz("samples.npz")["z"], wanted)


def test_interpolation_goes_from_a_class_to_a_class(evaluate, images, curves):
    done, test = evaluate(images, "task=interpolate", "from=3", "to=8", "steps=7"), load_run(images)
    name = "interpolation_3_8"
    assert done.files == {f"{name}.png", f"{name}.gif", f"{name}.npz"}
    arrays, data = done.npz(f"{name}.npz"), test.data().test
    assert data.labels[torch.from_numpy(arrays["examples"])].tolist() == [3, 8]
    start, end = data.x[torch.from_numpy(arrays["examples"])]
    assert np.allclose(arrays["x"], test.interpolate(start, end, 7), atol=1e-6)
    assert np.allclose(np.diff(arrays["z"], 2, axis=0), 0, atol=1e-5)  # a straight line
    for end in ("to=cat", "to=-1", "to=297"):
        with pytest.raises(UserError, match=end):
            evaluate(images, "task=interpolate", "from=3", end)
    done = evaluate(curves, "task=interpolate", "from=3", "to=8", "steps=4")
    assert done.files == {"interpolation_3_8.png", "interpolation_3_8.npz"}
    done = evaluate(images, "task=interpolate")
    examples = torch.from_numpy(done.npz("interpolation_0_1.npz")["examples"])
    assert data.labels[examples].tolist() == [0, 1]


def test_traversals_put_the_most_active_dimension_first(evaluate, images):
    done, run = evaluate(images, "task=traverse", "num_dims=3", "steps=5"), load_run(images)
    arrays, kl = done.npz("traversals.npz"), run.embed("test").kl.mean(0)
    assert arrays["dims"].tolist() == kl.argsort(descending=True)[:3].tolist()
    assert np.allclose(arrays["x"], run.traverse(arrays["dims"], torch.linspace(-3, 3, 5)))
    code = run.encode(run.data().test.x[4:5]).mean[0]
    origin = evaluate(images, "task=traverse", "example=4").npz("traversals.npz")["origin"]
    assert np.allclose(origin, code, atol=1e-6)


@pytest.mark.parametrize("override", ["model=ae", "prior=mixture"])
def test_other_traversals_are_measured_by_the_codes_or_the_prior(evaluate, trained, override):
    folder = trained("dataset=digits", "epochs=1", override)
    arrays = evaluate(folder, "task=traverse", "limit=2", "steps=3").npz("traversals.npz")
    run, first = load_run(folder), arrays["dims"][0]
    mean, stddev, error = run.codes.mean.mean(0), run.codes.mean.std(0, unbiased=False), 1e-6
    if override == "prior=mixture":  # the law of total variance; the run has 10,000 draws
        weights, prior = run.vae.prior.logits.softmax(0)[:, None], run.vae.prior
        mean = (weights * prior.means).sum(0)
        second = (weights * (prior.means**2 + (2 * prior.log_scales).exp())).sum(0)
        stddev, error = (second - mean**2).sqrt(), 0.06
    assert np.allclose(arrays["origin"], mean, atol=error)
    wanted = mean[first] + 2 * stddev[first]
    assert arrays["values"][0, -1] == pytest.approx(float(wanted), abs=3 * error)
    x = run.traverse([first], arrays["values"][:1])  # in Python around the same origin
    assert np.allclose(arrays["x"][:1], x, atol=1e-6)


def test_a_beta_density_is_fitted(evaluate, curves):
    done = evaluate(curves, "task=fit", "alpha=1.7887", "beta=4.1733", "num_starts=8")
    assert done.files == {"fit.json", "fit.npz", "fit.png"}
    found, arrays, run = done.json("fit.json"), done.npz("fit.npz"), load_run(curves)
    # in the data's own units, which here are logarithms of the density
    target = torch.distributions.Beta(1.7887, 4.1733).log_prob(torch.from_numpy(arrays["grid"]))
    assert np.allclose(arrays["target"], target, atol=1e-4)
    norm = float((target - run.decode([found["code"]])[0]).norm())
    assert found["residual_norm"] == pytest.approx(norm, rel=1e-3)
    assert norm < float((target - run.reconstruct(target[None])[0]).norm())


def test_a_target_from_a_file(evaluate, curves, tmp_path):
    curve = load_run(curves).data().test.x[5].numpy()
    np.save(tmp_path / "a.npy", curve)
    np.savetxt(tmp_path / "a.csv", curve, delimiter=",")
    (tmp_path / "short.csv").write_text("1\n2\n3\n")
    np.save(tmp_path / "nan.npy", curve * np.nan)
    np.save(tmp_path / "words.npy", np.full(curve.shape, "a"))
    for name in ("a.npy", "a.csv"):
        done = evaluate(curves, "task=fit", f"target={tmp_path}/{name}", "num_starts=2")
        assert np.allclose(done.npz("fit.npz")["target"], curve)
    for name in ("no.npy", "short.csv", "nan.npy", "words.npy"):
        with pytest.raises(UserError, match=f"target=.*{name}"):
            evaluate(curves, "task=fit", f"target={tmp_path}/{name}")


def test_a_conditional_model_fits_in_one_class_or_in_the_nearest(evaluate, trained, tmp_path):
    x = torch.randn(60, 5) + 5 * (torch.arange(60) % 2)[:, None]
    np.savez(tmp_path / "two.npz", x=x.numpy(), y=np.array(["low", "high"] * 30))
    words = ("dataset=arrays", f"dataset.train={tmp_path / 'two.npz'}", "batch_size=20", "epochs=3")
    curves = ("likelihood=gaussian", "model.latent_dim=1", "model.condition_on_labels=true")
    folder = trained(*words, *curves)
    np.save(tmp_path / "a.npy", np.full(5, 4.5, np.float32))
    task = ("task=fit", f"target={tmp_path / 'a.npy'}", "num_starts=3")
    found = {c: evaluate(folder, *task, f"label={c}").json("fit.json") for c in ("low", "high")}
    assert {c: result["label"] for c, result in found.items()} == {"low": "low", "high": "high"}
    best = min(found, key=lambda name: found[name]["residual_norm"])
    assert evaluate(folder, *task).json("fit.json") == found[best]
    run = load_run(folder)  # the code is that of its class
    decoded = run.given(run.class_names.index("low")).decode([found["low"]["code"]])[0]
    norm = float((decoded - 4.5).norm())
    assert found["low"]["residual_norm"] == pytest.approx(norm, rel=1e-3)
    assert found["low"]["residual_norm"] != pytest.approx(found["high"]["residual_norm"])


def test_what_the_run_cannot_do_is_refused(trained, curves, evaluate):
    with pytest.raises(UserError, match="task=nll"):
        evaluate(trained("dataset=digits", "epochs=1", "model=ae"), "task=nll")
    with pytest.raises(UserError, match="split=val"):
        evaluate(curves, "task=nll", "split=val")


def test_other_data_are_measured_on_demand_only_and_samples_need_none(trained, tmp_path):
    place = tmp_path / "x.npy"
    np.save(place, np.random.default_rng(0).random((60, 5), np.float32))
    settings_ = ("dataset=arrays", f"dataset.train={place}", "batch_size=20", "epochs=1")
    folder = trained(*settings_)
    task = {"run": str(folder), "outputs": "", "device": "cpu", "seed": None, "data_dir": None}
    task |= {"out": str(tmp_path / "out"), "dataset": {}, "other_data": False, "plugins": []}
    measure = MetricsTask.model_validate({"task": "metrics", "num_codes": 10, **task})
    place.rename(tmp_path / "moved.npy")
    sampler = {"sampler": "prior", "components": 1, "steps": 1, "label": None}
    draws = SampleTask.model_validate({"task": "sample", "n": 3, **sampler, **task})
    assert run_task(draws, folder).files
    with pytest.raises(UserError, match="No such file"):
        run_task(measure, folder)
    moved = {"dataset": {"train": str(tmp_path / "moved.npy")}}
    assert run_task(measure.model_copy(update=moved), folder).rows
    np.save(place, np.ones((60, 5), np.float32))
    with pytest.raises(UserError, match="other_data=true"):
        run_task(measure, folder)
    assert run_task(measure.model_copy(update={"other_data": True}), folder).rows
