"""What tests share: composed configurations, tiny data, the real command in a subprocess."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vae_cli import cli, planning
from vae_cli.checking import as_container, typed
from vae_cli.config import Config

torch.set_num_threads(1)  # tiny work: threads only wait for each other

Command = Callable[..., subprocess.CompletedProcess[str]]


def composed(*overrides: str) -> Config:
    """The configuration that these overrides give."""
    planning.register()
    with initialize_config_dir(str(planning.config_dir()), version_base="1.3"):
        return typed(compose("config", list(overrides)))


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    return composed


@pytest.fixture
def vae_train(tmp_path: Path) -> Command:
    """Run the real command in an empty folder: vae_train("beta=4") -> CompletedProcess."""

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **extra}
        environment.pop("HYDRA_FULL_ERROR", None)
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "vae_cli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def vae_train_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The same in this process, which has imported torch already."""
    monkeypatch.chdir(tmp_path)
    # Hydra closes every log handler that it finds, and absl's (jax) closes pytest's stream with it
    handlers: list[Any] = logging._handlerList  # type: ignore[attr-defined]
    others = handlers[:]
    handlers.clear()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = cli.run(list(arguments))
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    yield run
    handlers[:] = others


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Leave what a repetition looks for in a run's folder: write_run(folder, config)."""

    def write(
        folder: Path, config: Config, status: str = "running", checkpoint: bool = True
    ) -> Path:
        folder.mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(as_container(config)), folder / "config.yaml")
        (folder / "summary.json").write_text(json.dumps({"status": status}))
        if checkpoint:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "last.ckpt").touch()
        return folder

    return write


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """A run in this process flushes them for good; tests that make numbers want them back."""
    yield
    torch.set_flush_denormal(False)
