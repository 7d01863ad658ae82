"""The real command without a terminal, without a home, with streams that are closed or full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_cli import checkpoint
from vae_cli.run import read_summary

QUICK = "dataset=digits figures=none epochs=1 batch_size=256 hydra.run.dir=run"


def shell(tmp_path: Path, command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $V is vae-train. $HOME is unset."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "V": f"{sys.executable} -m vae_cli"}
    environment.pop("HOME", None)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path,
        env=environment | extra,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>&1 | head -1", "> /dev/full"])
def test_a_run_is_whole_whatever_its_streams_are(tmp_path, streams):
    done = shell(tmp_path, f"$V {QUICK} {streams}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert read_summary(tmp_path / "run")["status"] == "completed"
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert ("standard output cannot be written" in done.stderr) == ("full" in streams)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$V --help | head -1", 0),
        ("$V --cfg job | head -1", 0),
        ("$V --version >&-", 0),
        ("$V beta=-1 2>&-", 2),
        ("$V beta=-1 2> /dev/full", 2),
        ("$V --help > /dev/full", 0),
    ],
)
def test_answers_and_exit_codes_stay(tmp_path, command, code):
    done = shell(tmp_path, command)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it may not")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    done = shell(tmp_path, f"$V {QUICK}")
    assert done.returncode == 2
    assert "the run's folder cannot be written: Permission denied" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "run").touch()
    done = shell(tmp_path, f"$V {QUICK}/inside")
    assert done.returncode == 2
    assert "the run's folder cannot be written: Not a directory" in done.stderr
    assert done.stderr.count("\n") == 1
