"""Run folders as vae-train leaves them, written by hand: no training, no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SETTINGS: dict[str, Any] = {
    "beta": 1.0,
    "seed": 0,
    "epochs": 4,
    "device": "auto",
    "monitor": "val/elbo",
    "model": {"name": "mlp_vae", "latent_dim": 8, "hidden_sizes": [128]},
    "dataset": {"name": "digits", "val_size": 200, "suggested": {"latent_dim": 8}},
    "likelihood": {"name": "bernoulli"},
    "optimizer": {"name": "adam", "lr": 0.001},
}


def _measured(kl: float, reconstruction: float, active: float = 8) -> dict[str, float]:
    """Final metrics."""
    return {
        "train/loss": reconstruction + kl,
        "val/elbo": -reconstruction - kl,
        "test/loss": reconstruction + kl,
        "test/reconstruction": reconstruction,
        "test/kl": kl,
        "test/elbo": -reconstruction - kl,
        "test/active_units": active,
    }


def _write_run(
    folder: Path,
    metrics: dict[str, float] | None = None,
    status: str = "completed",
    overrides: tuple[str, ...] = (),
    epochs: int = 4,
    error: str | None = None,
    **settings: Any,
) -> Path:
    """A run folder; settings by their flat names, `__` for the dot: model__latent_dim=2."""
    config = json.loads(json.dumps(SETTINGS))
    for name, item in settings.items():
        *groups, last = name.split("__")
        node = config
        for group in groups:
            node = node[group]
        node[last] = item
    (folder / ".hydra").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    summary: dict[str, Any] = {"status": status, "epochs": epochs, "seconds": 1.5}
    summary |= {"versions": {"torch": "2.15.0"}, "device": "cpu", "git_commit": "abc"}
    summary |= {"metrics": metrics} if metrics is not None else {}
    summary |= {"error": error} if error is not None else {}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def write_run() -> Callable[..., Path]:
    return _write_run


@pytest.fixture
def measured() -> Callable[..., dict[str, float]]:
    return _measured


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    """Three betas, two seeds; of beta=4 one seed failed and one was interrupted."""
    numbers = {(0.5, 0): (6.0, 20.0), (0.5, 1): (7.0, 19.0), (1.0, 0): (3.0, 21.0),
               (1.0, 1): (3.5, 21.5)}  # fmt: skip
    folder = tmp_path / "sweep"
    for (beta, seed), (kl, reconstruction) in numbers.items():
        name = f"beta={beta:g},seed={seed}"
        given = (f"beta={beta:g}", f"seed={seed}")
        _write_run(folder / name, _measured(kl, reconstruction), overrides=given, beta=beta,
                  seed=seed)  # fmt: skip
    _write_run(folder / "beta=4,seed=0", None, "failed", ("beta=4", "seed=0"), 1,
              "RunFailed: loss is not finite", beta=4.0, seed=0)  # fmt: skip
    interrupted = _write_run(folder / "beta=4,seed=1", None, "interrupted", ("beta=4", "seed=1"), 2,
                            beta=4.0, seed=1)  # fmt: skip
    lines = [{"epoch": 1, "step": 9, "val/elbo": -30.0}, {"epoch": 2, "step": 18, "val/elbo": -29}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 3, "st'
    (interrupted / "metrics.jsonl").write_text(text)
    given = {"hydra": ["hydra.mode=MULTIRUN"], "task": ["beta=0.5,1,4", "seed=0,1"]}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": given}}))
    return folder
