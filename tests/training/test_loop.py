"""Whole runs in this process."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from vae_cli.analysis.trained import load_run
from vae_cli.console import RunFailed, UserError
from vae_cli.runs import checkpoint
from vae_cli.runs.interrupt import Interrupted
from vae_cli.runs.saved import read_metrics, read_summary
from vae_cli.training import loop, messages
from vae_cli.training.build import load_data
from vae_cli.training.evaluation import log_likelihoods
from vae_cli.training.loop import Observer, Training, train

from .conftest import DIGITS, SMALL, assert_equal_runs, curve, last_checkpoint


def test_more_epochs_go_on_and_a_finished_run_changes_nothing(make_config, tmp_path, capsys):
    short, long = (make_config(*DIGITS, f"epochs={epochs}") for epochs in (2, 4))
    train(short, tmp_path / "a")
    train(long, tmp_path / "a")
    train(long, tmp_path / "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    train(long, tmp_path / "a")
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before
    assert "is finished: 4 epochs" in capsys.readouterr().err


CONV, PLATEAU = SMALL["conv_vae"], ("scheduler=plateau", "scheduler.patience=0")


@pytest.mark.parametrize(
    ("stops", "overrides"),
    [
        ((1,), (*CONV, "precision=bf16", "grad_clip=10", "dataset.binarize=dynamic")),
        ((7, 8), ("ema=0.9", "corruption=masking", "optimizer=adamw")),  # between two reads
        ((8,), ("likelihood=gaussian_optimal", "objective=iwae", "optimizer=sgd")),  # at a read
        ((12,), (*CONV, *PLATEAU, "beta_schedule=cyclical")),  # at an epoch's last step
        ((6, 17), ("prior=mixture", "optimizer=rmsprop")),
        ((7,), ("model=ae", "objective=aae", "penalty=several", "ema=0.9")),  # a second optimiser
        ((7,), ("posterior=vq", "posterior.revive=0.5", "posterior.decay=0.5", "ema=0.9")),
        ((8,), ("posterior=categorical", "posterior.rate=0.1")),
    ],
)
def test_a_run_that_is_stopped_goes_on_exactly(
    make_config, tmp_path, before_step, stops, overrides
):
    config = make_config(*DIGITS, *overrides, "epochs=3", "log_every=4")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config, whole)
    before_step(lambda state, x: state.step + 1 in stops and signal.raise_signal(signal.SIGTERM))
    for stop in stops:
        with pytest.raises(Interrupted, match=r"of 3 epochs \(.*resume=") as interrupted:
            train(config, parts)
        assert interrupted.value.by_signal
        assert read_summary(parts)["status"] == "interrupted"
        # the end of an epoch keeps more than the signal asks for; the run stops one step later
        assert last_checkpoint(parts)["step"] == (stop if stop % 6 else stop + 1)
    train(config, parts)
    assert_equal_runs(whole, parts)
    assert read_summary(parts)["metrics"] == read_summary(whole)["metrics"]


def test_checkpoints_are_written_inside_an_epoch_by_the_clock(make_config, tmp_path, monkeypatch):
    kept, real = [], Training.keep
    monkeypatch.setattr(Training, "keep", lambda t, **k: kept.append(t.state.step) or real(t, **k))
    config = make_config(*DIGITS, "epochs=1", "checkpoint_minutes=1e-9")
    train(config, tmp_path / "often")
    train(config.model_copy(update={"checkpoint_minutes": None}), tmp_path / "seldom")
    assert kept == [0, 1, 2, 3, 4, 5, 6, 0, 6]
    assert curve(tmp_path / "often") == curve(tmp_path / "seldom")


def test_every_example_is_trained_on_once_an_epoch(make_config, tmp_path, before_step):
    batches: list[torch.Tensor] = []
    before_step(lambda state, x: batches.append(x))
    config = make_config(*DIGITS, "epochs=2")
    train(config, tmp_path)
    assert [len(x) for x in batches] == 2 * [256, 256, 256, 256, 256, 20]
    expected = load_data(config).train.x.flatten(1).sum(1).sort().values
    epochs = [torch.cat(part).flatten(1).sum(1) for part in (batches[:6], batches[6:])]
    assert all(epoch.sort().values.equal(expected) for epoch in epochs)
    assert not epochs[0].equal(epochs[1])


def test_early_stopping_keeps_the_best_weights(make_config, tmp_path, capsys):
    config = make_config(*DIGITS, "epochs=40", "patience=1", "optimizer.lr=0.03", "monitor=val/kl")
    train(config, tmp_path)  # KL rises from 0, so the first epoch is the best
    summary = read_summary(tmp_path)
    assert (summary["best_epoch"], summary["epochs"]) == (1, 2)
    best = checkpoint.load(tmp_path / "checkpoints/best.ckpt")
    assert best["epoch"] == 1
    weights = checkpoint.load_weights(tmp_path / "model.safetensors")[0]
    assert all(weights[name].equal(best["vae"][name]) for name in weights)
    train(config, tmp_path)
    assert "is finished: 2 epochs; patience=1 has ended it" in capsys.readouterr().err


def test_without_validation_the_last_epoch_is_the_best(make_config, tmp_path):
    train(make_config(*DIGITS, "epochs=2", "dataset.val_size=0", "ema=0.9"), tmp_path)
    summary, last = read_summary(tmp_path), last_checkpoint(tmp_path)
    assert summary["best_epoch"] == 2
    assert not any(key.startswith("val/") for key in summary["metrics"])
    # of a running average the measured weights are kept
    weights = checkpoint.load_weights(tmp_path / "model.safetensors")[0]
    assert all(weights[name].equal(last["vae"][name]) for name in weights)
    assert not all(weights[name].equal(last["trained"][name]) for name in weights)


def test_a_run_says_and_keeps_its_numbers(make_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(messages, "JUDGED_AFTER", 12)
    train(make_config(*DIGITS, "epochs=2", "beta=1000"), tmp_path)
    line, summary, said = curve(tmp_path)[-1], read_summary(tmp_path), capsys.readouterr()
    assert set(line) >= {"train/grad_norm", "schedule/beta", "schedule/lr", "val/active_units"}
    assert {"seconds", "examples_per_second", "parameters", "data", "device"} <= set(summary)
    assert sum(summary["kl_by_dimension"]) == pytest.approx(summary["metrics"]["test/kl"], rel=1e-5)
    assert "1,300 training + 200 validation + 297 test examples of shape 1x8x8" in said.err
    assert said.err.count("epoch 2/2") == said.err.count("collapsed") == 1
    monkeypatch.undo()
    quiet = ("epochs=1", "beta=1000", "quiet=true")
    train(make_config(*DIGITS, *quiet), tmp_path / "quiet")
    said = capsys.readouterr()
    assert not said.err  # six updates are too few to judge a posterior
    assert "test elbo" in said.out


def test_an_autoencoder_is_told_no_kl(make_config, tmp_path, capsys):
    train(make_config(*DIGITS, "model=ae", "epochs=1", "figures=none"), tmp_path)
    said = capsys.readouterr()
    assert "test reconstruction" in said.out
    assert not any(word in said.out + said.err for word in ("elbo", "KL", "kl "))


class Listens(Observer):
    """Notes what it is told, and fails or ends the run after an epoch."""

    def __init__(self) -> None:
        self.told = []

    def begin(self, training: Training) -> None:
        self.told.append(("begin", training.state.step))

    def epoch(self, training: Training, record: dict[str, float]) -> None:
        kept = last_checkpoint(training.run.folder)["epoch"]
        self.told.append(("epoch", record["epoch"], kept))
        raise ValueError("no ink")

    def end(self, training: Training, evaluation: object) -> None:
        self.told.append(("end", read_summary(training.run.folder)["status"]))


def test_observers_hear_of_everything_and_their_failures_end_no_run(make_config, tmp_path, capsys):
    one, other = Listens(), Listens()
    train(make_config(*DIGITS, "epochs=2"), tmp_path, [one, other])
    told = [("begin", 0), ("epoch", 1, 1), ("epoch", 2, 2), ("end", "running")]
    assert one.told == other.told == told
    assert "no ink" in capsys.readouterr().err
    assert read_summary(tmp_path)["status"] == "completed"


def test_an_observer_ends_a_run_without_a_test(make_config, tmp_path):
    class Prunes(Observer):
        def epoch(self, training: Training, record: dict[str, float]) -> None:
            training.stopped = "not worth it"

    config = make_config(*DIGITS, "epochs=3")
    train(config, tmp_path, [Prunes()])
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["reason"], summary["epochs"]) == (
        "pruned",
        "not worth it",
        1,
    )
    assert "metrics" not in summary
    train(config, tmp_path)  # the checkpoint is whole
    assert read_summary(tmp_path)["status"] == "completed"


def infinite_at_step_7(state, x):
    """Make the first value of a batch infinite; steps are counted from 0."""
    first = torch.zeros_like(x)
    first.view(-1)[0] = torch.inf
    return x + first if state.step == 7 else x


def test_a_number_that_is_not_finite_is_named(make_config, tmp_path, before_step):
    before_step(infinite_at_step_7)
    place = r"not finite at step 8 \(epoch 2, batch 2, training examples \d+, \d+, "
    with pytest.raises(RunFailed, match=rf"(loss|reconstruction) is {place}.*is of step 7"):
        train(make_config(*DIGITS, "epochs=3", "checkpoint_minutes=1e-9"), tmp_path)
    last = last_checkpoint(tmp_path)
    assert last["step"] == 7
    assert all(value.isfinite().all() for value in last["vae"].values())


@pytest.mark.parametrize("overrides", [SMALL["conv_vae"], ("optimizer=sgd", "ema=0.9")])
def test_an_update_that_is_not_finite_is_left_out(make_config, tmp_path, before_step, overrides):
    before_step(infinite_at_step_7)
    train(make_config(*DIGITS, *overrides, "epochs=2", "on_nonfinite=skip"), tmp_path)
    first, second = read_metrics(tmp_path)
    assert "train/skipped" not in first
    assert second["train/skipped"] == 1
    assert math.isfinite(second["train/loss"] + second["val/elbo"])


def test_a_run_that_skips_every_update_fails(make_config, tmp_path):
    settings = ("epochs=3", "on_nonfinite=skip", "optimizer=sgd", "optimizer.lr=1e30")
    with pytest.raises(RunFailed, match="not finite at step"):
        train(make_config(*DIGITS, *settings), tmp_path)


def test_memory_that_runs_out_is_answered_with_what_to_lower(make_config, tmp_path, before_step):
    before_step(lambda *args: torch.empty(1 << 50))
    with pytest.raises(RunFailed, match=r"batch_size=256.*lower"):
        train(make_config(*DIGITS, "epochs=1"), tmp_path)
    assert read_summary(tmp_path)["status"] == "failed"


def test_a_run_goes_on_only_with_the_data_that_it_was_trained_on(make_config, tmp_path):
    x = torch.rand(60, 5).numpy()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "moved.npy", x)

    def config(name, epochs):
        data = ("dataset=arrays", f"dataset.train={tmp_path}/{name}.npy", "batch_size=20")
        return make_config(*data, f"epochs={epochs}", "figures=none", "image_every=0")

    train(config("x", 1), tmp_path / "run")
    assert read_summary(tmp_path / "run")["data"]["examples"] == {"train": 49, "val": 5, "test": 6}
    np.save(tmp_path / "x.npy", x[::-1])
    with pytest.raises(UserError, match="not those that the run was trained on: digest: "):
        train(config("x", 2), tmp_path / "run")
    np.save(tmp_path / "x.npy", x[:, :4])
    with pytest.raises(UserError, match=r"shape: \[5\], now \[4\]"):
        train(config("x", 2), tmp_path / "run")
    train(config("moved", 2), tmp_path / "run")
    assert read_summary(tmp_path / "run")["epochs"] == 2


def break_validation(monkeypatch, index):
    """Let one validation example have a likelihood of 0, which makes the ELBO minus infinity."""
    real = loop.build.load_data

    def load(*arguments):
        data = real(*arguments)
        x = data.val.x.clone()
        x[index] = math.inf
        return replace(data, val=replace(data.val, x=x))

    monkeypatch.setattr(loop.build, "load_data", load)


def test_a_validation_that_is_not_finite_is_never_the_best(
    make_config, tmp_path, capsys, monkeypatch
):
    break_validation(monkeypatch, index=7)
    gaussian = (*DIGITS, "likelihood=gaussian", "epochs=2")
    with pytest.raises(RunFailed, match=r"validation .*elbo.* not finite .*\(examples 7\)"):
        train(make_config(*gaussian), tmp_path / "stop")
    assert read_summary(tmp_path / "stop")["status"] == "failed"
    train(make_config(*gaussian, "on_nonfinite=skip"), tmp_path / "skip")
    assert capsys.readouterr().err.count("(examples 7)") == 1
    text = (tmp_path / "skip" / "metrics.jsonl").read_text()
    assert '"val/elbo": null' in text
    assert "NaN" not in text
    assert "Infinity" not in text
    assert last_checkpoint(tmp_path / "skip")["best"] is None


def test_the_bound_that_is_trained_selects_the_epoch(make_config, tmp_path):
    train(make_config(*DIGITS, "objective=iwae", "epochs=4"), tmp_path)
    lines, summary = read_metrics(tmp_path), read_summary(tmp_path)
    best = max(lines, key=lambda line: line["val/bound"])
    assert summary["best_epoch"] == best["epoch"]
    assert all(line["val/bound"] > line["val/elbo"] for line in lines)
    assert summary["metrics"]["test/bound"] == pytest.approx(-summary["metrics"]["test/loss"])


def test_the_likelihood_at_the_end_is_that_of_vae_eval(make_config, tmp_path, capsys):
    small = (*DIGITS, "epochs=8", "optimizer.lr=0.01", "figures=none")
    train(make_config(*small), tmp_path / "run")
    assert "test/nll" not in read_summary(tmp_path / "run")["metrics"]
    numbers = {}
    for count in (3, 30):  # a finished run is measured, and measured again
        train(make_config(*small, f"nll_samples={count}"), tmp_path / "run")
        summary = read_summary(tmp_path / "run")
        assert summary["nll_samples"] == count
        numbers[count] = summary["metrics"].pop("test/nll")
        run = load_run(tmp_path / "run")
        values, _ = log_likelihoods(run.vae, run.data(), run.data().test, count, seed=0)
        assert numbers[count] == -float(values.mean())
    assert numbers[30] < numbers[3] < -summary["metrics"]["test/elbo"]
    assert "test nll " in capsys.readouterr().out
    train(make_config(*small, "nll_samples=30"), tmp_path / "run")
    assert "is finished: 8 epochs" in capsys.readouterr().err
    with pytest.raises(UserError, match="nll_samples=3: model=ae is a deterministic autoencoder"):
        make_config(*DIGITS, "model=ae", "nll_samples=3")


def test_a_beta_without_effect_is_said(make_config, tmp_path, capsys):
    train(make_config(*DIGITS, "model=ae", "beta=4", "epochs=1"), tmp_path)
    assert "beta=4 has no effect" in capsys.readouterr().err
