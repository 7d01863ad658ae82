"""What tests share: configurations, trained runs, the real command in a process."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import vae_cli.analysis.settings  # noqa: F401  (registers the tasks of vae-eval)
from vae_cli import cli
from vae_cli.config.compose import settings_of
from vae_cli.config.registry import PLUGINS, SCHEMAS
from vae_cli.config.settings import Config

torch.set_num_threads(1)  # tiny work: threads only wait for each other

Command = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("figures=none", "image_every=0")  # drawing costs more than training on tiny data


def composed(*overrides: str) -> Config:
    """The checked settings that a command line gives."""
    return settings_of("config", list(overrides))


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    return composed


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train once for all tests and workers: trained("dataset=digits", "epochs=2") -> run folder.

    Tests only read the folder. Pictures are left out unless the overrides ask for them.
    """
    from vae_cli.training.loop import train

    # pytest-xdist gives each worker a folder of its own below a common one
    common = tmp_path_factory.getbasetemp()
    common = common.parent if "PYTEST_XDIST_WORKER" in os.environ else common

    def run(*overrides: str) -> Path:
        name = hashlib.sha256(" ".join(overrides).encode()).hexdigest()[:16]
        folder = common / f"trained-{name}"
        with FileLock(common / f"trained-{name}.lock"):
            if not (folder / "model.safetensors").exists():
                train(composed(*QUICK, *overrides), folder)
        return folder

    return run


@pytest.fixture
def vae_train(tmp_path: Path) -> Command:
    """Run the real command in an empty folder: vae_train("beta=4") -> CompletedProcess."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "vae_cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def vae_train_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the command in this process, which has imported torch already."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = cli.run(list(arguments))
        output = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, output.out, output.err)

    return run


@pytest.fixture
def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Work in an empty folder; forget(), also called at the end, makes all plug-ins unknown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAE_CLI_PLUGINS", raising=False)
    schemas, path = dict(SCHEMAS), sys.path[:]

    def as_before() -> None:
        for known, kept in ((SCHEMAS, schemas), (PLUGINS, {})):
            known.clear()
            known.update(kept)
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
                del sys.modules[name]

    yield as_before
    as_before()
