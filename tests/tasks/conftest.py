"""Small trained runs, and the command in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vae_cli import eval_cli, training


@pytest.fixture(scope="session")
def train(tmp_path_factory, make_config):
    """Train once for each set of overrides and return the run folder."""
    done: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in done:
            folder = tmp_path_factory.mktemp("runs") / "a run"
            training.train(make_config("figures=none", *overrides), folder)
            done[overrides] = folder
        return done[overrides]

    return run


@pytest.fixture
def images(train):
    return train("dataset=digits", "epochs=2")


@pytest.fixture
def autoencoder(train):
    return train("dataset=digits", "model=ae", "epochs=1")


@pytest.fixture
def curves(train):
    return train("dataset=beta_pdf", "dataset.num_curves=1500", "epochs=8", "dataset.val_size=0")


class Result:
    """What a call of the command left and said."""

    def __init__(self, code: int, out: str, err: str, folder: Path) -> None:
        self.code, self.out, self.err, self.folder = code, out, err, folder

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def npz(self, name: str):
        return np.load(self.folder / name, allow_pickle=False)

    @property
    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}


@pytest.fixture
def evaluate(tmp_path, capsys):
    """evaluate(run, "task=nll", …) -> Result; results go to an empty folder."""

    def run(folder: Path, *arguments: str) -> Result:
        out = tmp_path / "out"
        capsys.readouterr()
        code = eval_cli.run([f"run={folder}", f"out={out}", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err, out)

    return run
