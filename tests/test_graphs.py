import itertools
from pathlib import Path

import pytest
import torch

from vae_cli import checkpoint, graphs, training
from vae_cli.config import Config
from vae_cli.run import read_metrics

DIGITS = ("dataset=digits", "figures=none", "batch_size=256", "epochs=3", "log_every=4")
# what makes a step depend on randomness, on the schedules and on state beside the weights
KINDS = [
    ("model=mlp_vae", "dataset.binarize=dynamic", "beta_schedule=warmup", "beta_schedule.epochs=2"),
    ("model=conv_vae", "model.channels=[4,8]", "grad_clip=10", "scheduler=cosine"),
    (
        "optimizer=sgd",
        "ema=0.9",
        "corruption=gaussian",
        "beta_schedule=capacity",
        "beta_schedule.epochs=2",
    ),
    ("likelihood=gaussian_optimal", "on_nonfinite=skip", "scheduler=plateau"),
]
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def trained(config: Config, folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The epochs' numbers and the last weights."""
    training.train(config, folder)
    numbers = [
        {k: v for k, v in line.items() if not k.startswith("perf/")}
        for line in read_metrics(folder)
    ]
    return numbers, checkpoint.load(folder / "checkpoints" / "last.ckpt")["vae"]


@pytest.mark.parametrize("overrides", KINDS)
def test_the_recorded_step_finds_its_batch_and_schedule(
    make_config, tmp_path, monkeypatch, overrides
):
    # without CUDA nothing is recorded, but all that a recording would do is done at every step
    config = make_config(*DIGITS, *overrides)
    usual = trained(config, tmp_path / "usual")
    made = []

    def recorder(*args: object) -> graphs.Recorder:
        made.append(graphs.Recorder(*args))
        return made[0]

    monkeypatch.setattr(graphs, "recorder", recorder)
    recorded = trained(config, tmp_path / "recorded")
    assert made[0].replay is not None
    assert made[0].made == graphs.WARM_UP + 3  # and the smaller batch at the end of each epoch
    assert recorded[0] == usual[0]
    assert all(recorded[1][name].equal(value) for name, value in usual[1].items())


def test_only_a_cuda_device_records(make_config):
    config = make_config(*DIGITS)
    data = training.build.data(config)
    state = training.new_state(config, data, torch.device("cpu"))
    assert graphs.recorder(state, data, config) is None


def test_a_counter_is_set_only_when_it_differs(monkeypatch):
    counter = graphs.Counter(torch.device("cpu"))
    counter.set(5)
    counter.value.add_(1)
    counter.known += 1
    with monkeypatch.context() as patch:
        patch.setattr(counter, "value", None)  # would fail if it were touched
        counter.set(6)
    assert counter.value.tolist() == [6]
    counter.set(0)
    assert counter.value.tolist() == [0]


@pytest.mark.parametrize("overrides", [pytest.param(kind, marks=GPU) for kind in KINDS])
def test_a_replayed_step_is_the_same_mathematics(make_config, tmp_path, overrides):
    config = make_config(*DIGITS, *overrides, "device=cuda", "deterministic=true")
    found = [
        trained(make_config(*DIGITS, *overrides, "device=cuda", "deterministic=true", graph), place)
        for graph, place in (
            ("cuda_graph=true", tmp_path / "replayed"),
            ("cuda_graph=false", tmp_path / "usual"),
        )
    ]
    assert config.cuda_graph
    for one, other in itertools.zip_longest(*(numbers for numbers, _ in found)):
        assert one == pytest.approx(other, rel=1e-4)
