"""Small trained runs, and a task done with one of them in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vae_cli.analysis.settings import EvalConfig
from vae_cli.config.check import validated
from vae_cli.config.compose import plain_settings
from vae_cli.config.registry import SCHEMAS


@pytest.fixture
def images(trained: Callable[..., Path]) -> Path:
    return trained("dataset=digits", "epochs=2")


@pytest.fixture
def curves(trained: Callable[..., Path]) -> Path:
    return trained("dataset=beta_pdf", "dataset.num_curves=1500", "epochs=8", "dataset.val_size=0")


def task_of(*overrides: str) -> EvalConfig:
    """The checked settings that a command line of vae-eval gives."""
    plain = plain_settings("eval", ["run=a", *overrides])
    task = validated(SCHEMAS["task", plain["task"]], plain)
    assert isinstance(task, EvalConfig)
    return task


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., Any]:
    """evaluate(run, "task=nll", …) -> what the task said, and functions that read its files."""
    from vae_cli.analysis.tasks import run_task

    def run(folder: Path, *overrides: str) -> SimpleNamespace:
        out = tmp_path / "out"
        report = run_task(task_of(f"out={out}", *overrides), folder)
        return SimpleNamespace(
            rows=report.rows,
            notes=report.notes,
            folder=out,
            files={str(path.relative_to(out)) for path in report.files},
            json=lambda name: json.loads((out / name).read_text()),
            npz=lambda name: np.load(out / name),
        )

    return run
