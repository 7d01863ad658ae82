"""Run folders as vae-train leaves them, written by hand: no training, no torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vae_cli.config.check import as_container
from vae_cli.config.settings import Config

SETTINGS: dict[str, Any] = {
    "beta": 1.0,
    "seed": 0,
    "epochs": 4,
    "device": "auto",
    "monitor": "val/elbo",
    "posterior": {"name": "gaussian"},
    "model": {"name": "mlp_vae", "latent_dim": 8, "hidden_sizes": [128]},
    "dataset": {"name": "digits", "val_size": 200, "suggested": {"latent_dim": 8}},
    "likelihood": {"name": "bernoulli"},
    "optimizer": {"name": "adam", "lr": 0.001},
}


def _measured(kl: float, reconstruction: float, active: float = 8) -> dict[str, float]:
    test = {"test/reconstruction": reconstruction, "test/kl": kl, "test/active_units": active}
    return {"val/elbo": -reconstruction - kl, "test/elbo": -reconstruction - kl, **test}


def _write_run(
    folder: Path,
    metrics: dict[str, float] | None = None,
    status: str = "completed",
    overrides: tuple[str, ...] = (),
    error: str | None = None,
    epochs: int = 4,
    config: Config | None = None,
    **settings: Any,
) -> Path:
    """A run folder; settings by their flat names, `__` for the dot: model__latent_dim=2."""
    plain = json.loads(json.dumps(SETTINGS)) if config is None else as_container(config)
    for name, item in settings.items():
        *groups, last = name.split("__")
        node = plain
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = item
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    summary: dict[str, Any] = {"status": status, "epochs": epochs, "seconds": 1.5}
    summary |= {"metrics": metrics, "versions": {"torch": "2.15.0"}, "git_commit": "abc"}
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
               (1.0, 1): (3.5, 21.5), (4.0, 0): None, (4.0, 1): None}  # fmt: skip
    folder = tmp_path / "sweep"
    for (beta, seed), pair in numbers.items():
        run = folder / f"beta={beta:g},seed={seed}"
        given = (f"beta={beta:g}", f"seed={seed}")
        how: dict[str, Any] = {"overrides": given, "beta": beta, "seed": seed}
        if pair is None:
            how |= {"status": ["failed", "interrupted"][seed], "epochs": 1 + seed}
            how |= {"error": ["RunFailed: loss is not finite", None][seed]}
        _write_run(run, None if pair is None else _measured(*pair), **how)
    text = '{"epoch": 1, "val/elbo": -30.0}\n{"epoch": 2, "val/elbo": -29}\n{"epoch": 3, "st'
    (folder / "beta=4,seed=1" / "metrics.jsonl").write_text(text)
    command = ["vae-train", "-m", "beta=0.5,1,4", "seed=0,1"]
    (folder / "jobs.json").write_text(json.dumps({"command": command, "jobs": []}))
    return folder
