"""Engines: a recording, or a compiled graph, makes the updates of a run as `Engine` does."""

import shutil
from functools import partial

import pytest
import torch

from vae_cli.training import engines, loop
from vae_cli.training.build import load_data
from vae_cli.training.engines import WARM_UP, Compiled, Recorder, engine_for
from vae_cli.training.loop import train
from vae_cli.training.state import TrainState
from vae_cli.training.step import Engine

from .conftest import DIGITS, assert_equal_runs, curve, last_checkpoint

CPU = torch.device("cpu")

SETTINGS = (*DIGITS, "epochs=3", "log_every=4")
# what makes a step depend on randomness, on the schedules and on state beside the weights
KINDS = [
    ("dataset.binarize=dynamic", "beta_schedule=warmup", "beta_schedule.epochs=2"),
    ("model=conv_vae", "model.channels=[4,8]", "grad_clip=10", "scheduler=cosine"),
    ("optimizer=sgd", "ema=0.9", "corruption=gaussian", "on_nonfinite=skip", "scheduler=plateau"),
    ("objective=mmd", "prior=mixture"),
    ("objective=factor", "ema=0.9", "on_nonfinite=skip"),  # draws, and a second optimiser
    ("posterior=vq", "posterior.revive=0.5", "ema=0.9", "on_nonfinite=skip"),
    ("posterior=categorical", "objective=iwae"),
    ("posterior=iaf",),
]


@pytest.mark.parametrize("overrides", KINDS)
def test_the_recorded_step_finds_its_batch_and_schedule(
    make_config, tmp_path, monkeypatch, overrides
):
    # without CUDA nothing is recorded, but all that a recording would do is done at every step
    config = make_config(*SETTINGS, *overrides)
    train(config, tmp_path / "plain")
    recorders = []

    def recorder(state, data, config):
        recorders.append(Recorder(state, data, config, state.vae.forward))
        return recorders[0]

    monkeypatch.setattr(loop, "engine_for", recorder)
    train(config, tmp_path / "recorded")
    assert recorders[0].made == WARM_UP + 3  # and the smaller batch at the end of each epoch
    assert_equal_runs(tmp_path / "plain", tmp_path / "recorded")


def test_a_run_that_goes_on_begins_the_epoch_at_a_later_batch(make_config):
    config = make_config(*SETTINGS)
    data = load_data(config)
    engine = engine_for(TrainState(config, data, CPU), data, config)
    assert type(engine) is Engine  # only a CUDA device records
    batches = []
    engine.update = lambda raw, labels, now: batches.append((raw, now))
    order, schedule = torch.arange(len(data.train)), torch.arange(18.0).view(6, 3)
    assert list(engine.steps(order, schedule, first=4)) == [256, 20]
    assert batches[1][0].equal(data.train.x[1280:])
    assert [now.tolist() for _, now in batches] == [[12, 13, 14], [15, 16, 17]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("overrides", KINDS)
def test_a_replayed_step_is_the_same_mathematics(make_config, tmp_path, overrides):
    for graph in ("true", "false"):
        settings = ("device=cuda", "deterministic=true", f"cuda_graph={graph}")
        train(make_config(*SETTINGS, *overrides, *settings), tmp_path / graph)
    for one, other in zip(curve(tmp_path / "true"), curve(tmp_path / "false"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


# --------------------------------------------------------------------------------------- compiled

WARM_UP_OF_BETA = ("beta_schedule=warmup", "beta_schedule.epochs=1")
GRAPHS = [
    ("dataset.binarize=dynamic", "corruption=masking", "scheduler=cosine", *WARM_UP_OF_BETA),
    ("model=conv_vae", "model.channels=[4,8]", "grad_clip=10", "optimizer=sgd", "ema=0.9"),
    ("objective=iwae", "optimizer=adamw", "optimizer.weight_decay=0.1", "prior=mixture"),
    ("model.condition_on_labels=true", "likelihood=gaussian_optimal", "optimizer.weight_decay=1"),
    ("objective=iwae", "objective.gradient=dreg", "posterior=full_covariance"),
    ("posterior=vq", "posterior.quantizers=2", "penalty=sparse"),
]


@pytest.fixture
def graphs(monkeypatch):
    """Trace each step into a graph, and compute the graph by torch's own operations, which takes
    no C++ compiler and a second."""
    real = torch.compile
    monkeypatch.setattr(engines.torch, "compile", partial(real, backend="aot_eager"))


@pytest.mark.parametrize("overrides", GRAPHS)
def test_a_compiled_run_is_the_plain_run_but_for_rounding(
    make_config, tmp_path, graphs, capsys, overrides
):
    for compiled in ("true", "false"):
        settings = (*DIGITS, "epochs=2", "log_every=4", f"compile={compiled}")
        train(make_config(*settings, *overrides), tmp_path / compiled)
    assert "goes on without" not in capsys.readouterr().err
    for one, other in zip(curve(tmp_path / "true"), curve(tmp_path / "false"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    states = [last_checkpoint(tmp_path / name) for name in ("true", "false")]
    for name, weight in states[0]["trained"].items():
        torch.testing.assert_close(weight, states[1]["trained"][name], rtol=1e-3, atol=1e-4)
    assert [state["compiled"] for state in states] == [True, False]


def test_a_compiled_run_goes_on_exactly(make_config, tmp_path, graphs):
    settings = (*DIGITS, "log_every=4", "compile=true", *WARM_UP_OF_BETA)
    train(make_config(*settings, "epochs=2"), tmp_path / "whole")
    train(make_config(*settings, "epochs=1"), tmp_path / "parts")
    # what was chosen for a run stays
    train(make_config(*settings, "epochs=2", "compile=auto"), tmp_path / "parts")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_long_runs_are_compiled_and_others_are_not(make_config, monkeypatch, capsys):
    def kind(*overrides, before=None):
        config = make_config(*DIGITS, *overrides)  # 6 steps an epoch
        data = load_data(config)
        state = TrainState(config, data, CPU)
        state.compiled = before  # by the checkpoint
        return type(engine_for(state, data, config))

    monkeypatch.setattr(engines, "PAYS_FROM", 60)
    assert kind("epochs=10") is Compiled
    assert kind("epochs=9") is Engine
    assert kind("epochs=10", "compile=false") is Engine
    assert kind("epochs=1", "compile=true") is Compiled
    assert kind("epochs=10", "on_nonfinite=skip") is Engine
    assert kind("epochs=10", "objective=aae") is Engine
    assert kind("epochs=10", before=False) is Engine
    assert kind("epochs=1", before=True) is Compiled
    assert kind("epochs=10", "compile=false", before=True) is Engine
    assert not capsys.readouterr().err
    assert kind("compile=true", "on_nonfinite=skip") is Engine
    assert "no effect together with on_nonfinite=skip\n" in capsys.readouterr().err


def test_a_step_that_cannot_be_compiled_is_made_without(make_config, tmp_path, graphs, capsys):
    # this objective draws from its generator, which no graph can
    for compiled in ("true", "false"):
        settings = (*DIGITS, "epochs=1", "objective=mmd", f"compile={compiled}")
        train(make_config(*settings), tmp_path / compiled)
    assert "note: compile: training goes on without" in capsys.readouterr().err
    assert_equal_runs(tmp_path / "true", tmp_path / "false")
    assert last_checkpoint(tmp_path / "true")["compiled"] is False  # stays so


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_the_compiler_makes_a_program_of_a_step(make_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    for compiled in ("true", "false"):
        settings = (*DIGITS, "epochs=2", "model=ae", f"compile={compiled}")
        train(make_config(*settings), tmp_path / compiled)
    assert "goes on without" not in capsys.readouterr().err
    assert list((tmp_path / "cache").rglob("*.so"))
    for one, other in zip(curve(tmp_path / "true"), curve(tmp_path / "false"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
