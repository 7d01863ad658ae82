"""Tiny runs in this process, and what to compare of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vae_cli.runs import checkpoint
from vae_cli.runs.saved import read_metrics
from vae_cli.training import step as step_module

# 1,300 examples: 6 steps an epoch, the last one smaller
DIGITS = ("dataset=digits", "figures=none", "image_every=0", "batch_size=256")
SMALL = {
    "mlp_vae": ("model=mlp_vae",),
    "conv_vae": ("model=conv_vae", "model.channels=[4,8]"),
}


def curve(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = read_metrics(folder)
    return [{k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines]


def last_checkpoint(folder: Path) -> dict[str, Any]:
    return checkpoint.load(folder / "checkpoints" / "last.ckpt")


def assert_equal_runs(one: Path, other: Path) -> None:
    """Check that two runs have equal numbers, weights and optimiser states, bit for bit."""
    assert curve(one) == curve(other)
    first, second = last_checkpoint(one), last_checkpoint(other)
    assert all(value.equal(second["vae"][name]) for name, value in first["vae"].items())
    optimizers = [[ckpt["optimizer"], *ckpt["rivals"]] for ckpt in (first, second)]
    for one_state, other_state in zip(*optimizers, strict=True):
        for key, state in one_state["state"].items():
            for name, value in state.items():
                wanted = torch.as_tensor(other_state["state"][key][name])
                assert torch.equal(torch.as_tensor(value), wanted)


@pytest.fixture
def before_step(monkeypatch) -> Callable[..., None]:
    """Do something before a train step: before_step(lambda state, x: ...) may return another x."""

    def patch(action: Callable[..., Any]) -> None:
        def step(state, loss, x, *rest):
            changed = action(state, x)
            return real(state, loss, changed if torch.is_tensor(changed) else x, *rest)

        monkeypatch.setattr(step_module, "train_step", step)

    real = step_module.train_step
    return patch
