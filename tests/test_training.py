import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_cli import build, checkpoint, training
from vae_cli.config import Config
from vae_cli.errors import RunFailed, UserError
from vae_cli.objectives import Weight
from vae_cli.run import read_metrics, read_summary
from vae_cli.step import Now, train_step
from vae_cli.stopping import Interrupted

WEIGHT = Weight(torch.tensor(1.0), torch.tensor(0.0))


def now(lr: float) -> Now:
    return Now(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(lr))


DIGITS = ("dataset=digits", "figures=none", "batch_size=256")


def curve(folder: Path) -> list[dict[str, float]]:
    """The epochs' numbers, without those that depend on the clock."""
    return [
        {k: v for k, v in line.items() if not k.startswith("perf/")}
        for line in read_metrics(folder)
    ]


def resume(config: Config, folder: Path, **changes: object) -> Config:
    return replace(config, resume=str(folder), **changes)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mlp_vae",),
        ("model=conv_vae", "model.channels=[4,8]", "precision=bf16"),
        ("model=ae", "optimizer=sgd", "scheduler=cosine"),
        ("dataset.binarize=dynamic", "optimizer=adamw", "grad_clip=10"),
        ("model=conv_ae", "model.channels=[4,8]", "ema=0.9", "corruption=masking"),
        ("likelihood=gaussian_optimal", "objective=iwae", "beta_schedule=cyclical"),
        ("scheduler=plateau", "scheduler.patience=0", "beta_schedule=warmup", "optimizer=rmsprop"),
    ],
)
def test_resuming_is_exact(make_config, tmp_path, overrides):
    # the schedules must see the same number of epochs in both runs
    config = make_config(*DIGITS, "epochs=6", *overrides)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.train(config, whole)

    class Stop(Exception):
        pass

    def stop_after_three(self: object, record: dict[str, float]) -> None:
        if record["epoch"] == 3:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(training.console.Progress, "epoch", stop_after_three)
        training.train(config, parts)
    assert read_summary(parts)["status"] == "failed"
    training.train(resume(config, parts), parts)

    assert curve(parts) == curve(whole)
    first, second = (checkpoint.load_weights(f / "model.safetensors")[0] for f in (whole, parts))
    assert all(first[name].equal(second[name]) for name in first)
    optimizers = [checkpoint.load(f / "checkpoints/last.ckpt")["optimizer"] for f in (whole, parts)]
    for states in zip(*(o["state"].values() for o in optimizers), strict=True):
        for key in states[0]:
            assert torch.equal(torch.as_tensor(states[0][key]), torch.as_tensor(states[1][key]))
    metrics = [read_summary(f)["metrics"] for f in (whole, parts)]
    assert metrics[0] == metrics[1]


def test_more_epochs_go_on_and_a_finished_run_changes_nothing(make_config, tmp_path, capsys):
    config = make_config(*DIGITS, "epochs=2")
    training.train(config, tmp_path / "a")
    training.train(resume(config, tmp_path / "a", epochs=4), tmp_path / "a")
    training.train(replace(config, epochs=4), tmp_path / "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")

    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    training.train(resume(config, tmp_path / "a", epochs=4), tmp_path / "a")
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before
    assert "is finished: 4 epochs" in capsys.readouterr().err


def test_a_run_stopped_in_its_first_epoch_can_be_resumed(make_config, tmp_path, monkeypatch):
    config = make_config(*DIGITS, "epochs=1")
    training.train(config, tmp_path / "whole")
    real = training.train_step

    def interrupt(*args: object) -> object:
        monkeypatch.setattr(training, "train_step", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_step", interrupt)
    with pytest.raises(Interrupted, match=r"0 of 1 epochs \(0 steps\) are kept.*resume="):
        training.train(config, tmp_path / "parts")
    assert read_summary(tmp_path / "parts")["status"] == "interrupted"
    training.train(resume(config, tmp_path / "parts"), tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_a_signal_while_a_picture_is_drawn_ends_the_run(make_config, tmp_path, monkeypatch):
    def stopped(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training.Progressive, "_draw", stopped)
    with pytest.raises(Interrupted) as stop:
        training.train(make_config("dataset=digits", "epochs=1"), tmp_path)
    assert stop.value.by_signal
    assert read_summary(tmp_path)["status"] == "interrupted"


# loss, reconstruction and KL of the first epochs: they move only when the mathematics does
GOLDEN = {
    "model=mlp_vae": [
        [43.5065, 43.4371, 0.0694],
        [40.6064, 40.4537, 0.1528],
        [38.0519, 37.6647, 0.3872],
    ],
    "model=ae": [[43.6944, 43.6944, 0.0], [41.6402, 41.6402, 0.0], [38.7454, 38.7454, 0.0]],
    # one epoch: BatchNorm over few values makes rounding grow to a twentieth of the KL by the third
    "model=conv_vae": [[40.8703, 40.1526, 0.7177]],
    "dataset=beta_pdf": [
        [526.8221, 517.1964, 9.6256],
        [329.2276, 314.6201, 14.6074],
        [149.0722, 132.6132, 16.4589],
    ],
}


@pytest.mark.parametrize("choice", GOLDEN)
def test_golden_first_losses(make_config, tmp_path, choice):
    config = make_config(*DIGITS, choice, f"epochs={len(GOLDEN[choice])}", "image_every=0")
    training.train(config, tmp_path)
    found = [
        [line[f"train/{name}"] for name in ("loss", "reconstruction", "kl")]
        for line in read_metrics(tmp_path)
    ]
    # rounding differs between processors and thread counts
    torch.testing.assert_close(
        torch.tensor(found), torch.tensor(GOLDEN[choice]), rtol=2e-3, atol=2e-3
    )


def test_the_first_loss_of_untrained_networks_is_near_its_closed_form(make_config):
    # logits near 0 cost log 2 a pixel; an untrained posterior is near the prior
    config = make_config("dataset=digits")
    data = build.data(config)
    vae = build.vae(config, data.shape)
    x = data.train.x[:100]
    loss, metrics = vae(x, torch.randn(1, 100, 8), WEIGHT)
    assert metrics["reconstruction"].item() == pytest.approx(64 * math.log(2), rel=0.02)
    assert 0 < metrics["kl"] < 0.5
    assert loss.item() == pytest.approx(float(metrics["reconstruction"] + metrics["kl"]), rel=1e-6)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_compiled_training_is_the_same_mathematics(make_config, tmp_path):
    plain = make_config(*DIGITS, "epochs=2", "dataset.val_size=0", "batch_size=650")
    training.train(plain, tmp_path / "plain")
    training.train(replace(plain, compile=True), tmp_path / "compiled")
    losses = [
        torch.tensor([line["train/loss"] for line in read_metrics(tmp_path / name)])
        for name in ("plain", "compiled")
    ]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def test_every_example_is_trained_on_once_an_epoch(make_config, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []
    real = training.train_step

    def record(state: object, x: torch.Tensor, *rest: object) -> object:
        seen.append(x)
        return real(state, x, *rest)

    monkeypatch.setattr(training, "train_step", record)
    config = make_config(*DIGITS, "epochs=2")
    training.train(config, tmp_path)
    assert [len(x) for x in seen] == 2 * [256, 256, 256, 256, 256, 20]
    expected = build.data(config).train.x.flatten(1).sum(1).sort().values
    epochs = [torch.cat(part).flatten(1).sum(1) for part in (seen[:6], seen[6:])]
    assert all(epoch.sort().values.equal(expected) for epoch in epochs)
    assert not epochs[0].equal(epochs[1])


def test_patience_waits_for_the_warmup(make_config, tmp_path):
    warm = ("beta=20", "beta_schedule=warmup", "beta_schedule.epochs=6", "optimizer.lr=0.01")
    # elbo at beta=1 gets worse while beta rises beyond 1; nothing may stop before the rise ends
    config = make_config(*DIGITS, "epochs=12", "patience=2", *warm)
    training.train(config, tmp_path)
    summary = read_summary(tmp_path)
    assert summary["best_epoch"] >= 6
    assert summary["epochs"] >= 7


def test_early_stopping_keeps_the_best_weights(make_config, tmp_path):
    config = make_config(*DIGITS, "epochs=40", "patience=1", "optimizer.lr=0.03", "monitor=val/kl")
    training.train(config, tmp_path)  # KL rises from 0, so the first epoch is the best
    summary = read_summary(tmp_path)
    assert (summary["best_epoch"], summary["epochs"]) == (1, 2)
    best = checkpoint.load(tmp_path / "checkpoints/best.ckpt")
    assert best["epoch"] == 1
    weights = checkpoint.load_weights(tmp_path / "model.safetensors")[0]
    assert all(weights[name].equal(best["vae"][name]) for name in weights)


def test_without_validation_the_last_epoch_is_the_best(make_config, tmp_path):
    training.train(make_config(*DIGITS, "epochs=2", "dataset.val_size=0"), tmp_path)
    summary = read_summary(tmp_path)
    assert summary["best_epoch"] == 2
    assert not any(key.startswith("val/") for key in summary["metrics"])
    assert (tmp_path / "checkpoints/best.ckpt").exists()


def test_a_diverging_run_fails_with_remedies_and_keeps_its_checkpoint(make_config, tmp_path):
    config = make_config("dataset=beta_pdf", "figures=none", "optimizer=sgd", "optimizer.lr=10")
    with pytest.raises(
        RunFailed, match=r"not finite at step \d+ \(epoch 1, batch.*lower optimizer.lr"
    ):
        training.train(config, tmp_path)
    assert read_summary(tmp_path)["status"] == "failed"
    assert checkpoint.load(tmp_path / "checkpoints/last.ckpt")["epoch"] == 0


def test_a_batch_of_one_that_batchnorm_cannot_take_is_refused(make_config, tmp_path):
    config = make_config("dataset=digits", "model=conv_vae", "batch_size=433")  # 1300 = 3 * 433 + 1
    with pytest.raises(UserError, match=r"batch_size=433: leaves a batch of one"):
        training.train(config, tmp_path)


def test_gradient_clipping_bounds_the_update(make_config, tmp_path):
    def movement(*overrides: str) -> float:
        config = make_config(
            "dataset=digits", "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=1", *overrides
        )
        data = build.data(config)
        state = training.new_state(config, data, torch.device("cpu"))
        before = [p.detach().clone() for p in state.vae.parameters()]
        generator = torch.Generator().manual_seed(0)
        train_step(state, data.train.x[:64], generator, now(1.0), config)
        moved = [p.detach() - b for p, b in zip(state.vae.parameters(), before, strict=True)]
        return float(torch.cat([m.flatten() for m in moved]).norm())

    assert movement() > 0.5
    assert movement("grad_clip=0.5") == pytest.approx(0.5, rel=1e-3)


def test_ema_measures_and_keeps_a_running_average(make_config, tmp_path):
    config = make_config(*DIGITS, "epochs=2", "dataset.val_size=0", "ema=0.9")
    data = build.data(config)
    state = training.new_state(config, data, torch.device("cpu"))
    expected = [p.detach().clone() for p in state.vae.parameters()]
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        train_step(state, data.train.x[:64], generator, now(1e-2), config)
        state.step += 1
        for average, weight in zip(expected, state.vae.parameters(), strict=True):
            average.lerp_(weight.detach(), 0.1 if step else 1.0)  # the first update is a copy
    for average, kept in zip(expected, state.measured.parameters(), strict=True):
        torch.testing.assert_close(kept, average)
    training.train(config, tmp_path)
    last = checkpoint.load(tmp_path / "checkpoints/last.ckpt")
    weights = checkpoint.load_weights(tmp_path / "model.safetensors")[0]
    assert all(weights[name].equal(last["vae"][name]) for name in weights)
    assert not all(weights[name].equal(last["trained"][name]) for name in weights)


def test_denoising_corrupts_the_input_and_keeps_the_target(make_config, monkeypatch):
    config = make_config(*DIGITS, "corruption=masking", "corruption.probability=0.9")
    data = build.data(config)
    state = training.new_state(config, data, torch.device("cpu"))
    seen = []
    monkeypatch.setattr(
        state.vae, "encode", lambda x: seen.append(x) or type(state.vae).encode(state.vae, x)
    )
    targets = []
    real = state.vae.likelihood.log_prob
    monkeypatch.setattr(
        state.vae.likelihood, "log_prob", lambda x, p: targets.append(x) or real(x, p)
    )
    x = data.train.x[:64]
    train_step(state, x, torch.Generator().manual_seed(0), now(1e-3), config)
    assert targets[0].equal(x)
    assert seen[0].count_nonzero() < 0.2 * x.count_nonzero()


def test_the_run_folder_is_complete(make_config, tmp_path):
    config = make_config("dataset=digits", "epochs=2", "model.latent_dim=2", "batch_size=256")
    training.train(config, tmp_path)
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "summary.json",
        "model.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "figures/reconstructions.png",
        "figures/samples.png",
        "figures/loss_curves.png",
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for split in ("train", "val"):
        for name in ("loss", "reconstruction", "kl", "elbo"):
            assert math.isfinite(lines[1][f"{split}/{name}"])
    assert {
        "schedule/beta",
        "schedule/lr",
        "perf/examples_per_second",
        "val/active_units",
    } <= set(lines[0])
    summary = read_summary(tmp_path)
    assert summary["status"] == "completed"
    assert summary["metrics"]["test/elbo"] == pytest.approx(
        -summary["metrics"]["test/reconstruction"] - summary["metrics"]["test/kl"]
    )
    assert {"seconds", "examples_per_second", "parameters", "versions", "device"} <= set(summary)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's points but for the clock's."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("perf/")
    }


SMALL_NETWORKS = {
    "mlp_vae": ("model=mlp_vae",),
    "conv_vae": ("model=conv_vae", "model.channels=[4,8]"),
}


# inside an epoch, inside a reading of the meter; at its end; at an epoch's last step; in the last
@pytest.mark.parametrize("stops", [(1,), (7, 8), (12,), (6, 14), (17,)])
@pytest.mark.parametrize("model", ["mlp_vae", "conv_vae"])
def test_a_run_stopped_inside_an_epoch_goes_on_exactly(make_config, tmp_path, stops, model):
    config = make_config(
        *DIGITS, *SMALL_NETWORKS[model], "epochs=3", "log_every=4", "dataset.binarize=dynamic"
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.train(config, whole)
    real, folder = training.train_step, None
    for stop in stops:

        def stopping(state, *rest, stop=stop):
            if state.step + 1 == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(state, *rest)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(training, "train_step", stopping)
            training.train(resume(config, folder) if folder else config, parts)
        folder = parts
        last = checkpoint.load(parts / "checkpoints" / "last.ckpt")
        assert last["step"] == (stop if stop % 6 else stop + 1)  # 6 steps an epoch
    training.train(resume(config, parts), parts)
    assert curve(parts) == curve(whole)
    assert scalars(parts) == scalars(whole)
    ends = [checkpoint.load(f / "checkpoints" / "last.ckpt") for f in (whole, parts)]
    for name, value in ends[0]["vae"].items():
        assert value.equal(ends[1]["vae"][name]), name


def test_checkpoints_are_written_inside_an_epoch_by_the_clock(make_config, tmp_path, monkeypatch):
    kept = []
    real = training.save

    def record(path: Path, state: object, *rest: object) -> None:
        kept.append((path.name, state.step))
        real(path, state, *rest)

    monkeypatch.setattr(training, "save", record)
    config = make_config(*DIGITS, "epochs=1", "dataset.val_size=0", "checkpoint_minutes=1e-9")
    training.train(config, tmp_path / "often")
    last = [step for name, step in kept if name == "last.ckpt"]
    assert last == [0, 1, 2, 3, 4, 5, 6]
    kept.clear()
    training.train(replace(config, checkpoint_minutes=None), tmp_path / "seldom")
    assert [step for name, step in kept if name == "last.ckpt"] == [0, 6]
    assert curve(tmp_path / "often") == curve(tmp_path / "seldom")


def broken_at(step: int):
    """A train step that makes the batch's first value infinite at some step."""
    real = training.train_step

    def broken(state, x, *rest):
        if state.step == step:
            x = x.clone()
            x.flatten()[0] = torch.inf
        return real(state, x, *rest)

    return broken


@pytest.mark.parametrize("model", ["mlp_vae", "conv_vae"])
def test_a_number_that_is_not_finite_is_named(make_config, tmp_path, monkeypatch, model):
    config = make_config(*DIGITS, *SMALL_NETWORKS[model], "epochs=3", "checkpoint_minutes=1e-9")
    monkeypatch.setattr(training, "train_step", broken_at(7))
    with pytest.raises(
        RunFailed,
        match=r"(loss|reconstruction) is not finite at step 8 \(epoch 2, batch 2, training examples"
        r" \d+, \d+, .*on_nonfinite=skip.*the last checkpoint is of step 7",
    ):
        training.train(config, tmp_path)
    last = checkpoint.load(tmp_path / "checkpoints" / "last.ckpt")
    assert last["step"] == 7
    assert all(value.isfinite().all() for value in last["vae"].values())


@pytest.mark.parametrize(
    "overrides", [SMALL_NETWORKS["conv_vae"], ("optimizer=sgd",), ("ema=0.9",)]
)
def test_an_update_that_is_not_finite_is_left_out(make_config, tmp_path, monkeypatch, overrides):
    config = make_config(*DIGITS, *overrides, "epochs=2", "on_nonfinite=skip")
    monkeypatch.setattr(training, "train_step", broken_at(7))
    training.train(config, tmp_path)
    first, second = read_metrics(tmp_path)
    assert "train/skipped" not in first
    assert second["train/skipped"] == 1
    assert math.isfinite(second["train/loss"])
    assert math.isfinite(second["val/elbo"])


def test_a_run_that_skips_everything_fails(make_config, tmp_path):
    config = make_config(*DIGITS, "epochs=3", "on_nonfinite=skip", "optimizer=sgd")
    with pytest.raises(RunFailed, match="not finite at step"):
        training.train(replace(config, optimizer=replace(config.optimizer, lr=1e30)), tmp_path)


def test_memory_that_runs_out_is_answered_with_what_to_lower(make_config, tmp_path, monkeypatch):
    def greedy(*args: object) -> None:
        torch.empty(1 << 50)

    config = make_config(*DIGITS, "epochs=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_step", greedy)
        with pytest.raises(RunFailed, match=r"batch_size=256 and examples of shape 1x8x8.*lower"):
            training.train(config, tmp_path)
    assert read_summary(tmp_path)["status"] == "failed"
    monkeypatch.setattr(training, "new_state", greedy)
    with pytest.raises(UserError, match="out of memory while model=mlp_vae"):
        training.train(config, tmp_path / "b")
