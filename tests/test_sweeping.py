"""Whole sweeps of the real command, killed and repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vae_cli.run import read_metrics, read_summary

QUICK = ("dataset=digits", "figures=none", "batch_size=128")


def numbers(sweep: Path) -> dict[str, object]:
    """What a sweep's runs computed, by folder: metrics, weights."""
    found: dict[str, object] = {}
    for folder in sorted(path.parent for path in sweep.glob("*/summary.json")):
        lines = [
            {key: item for key, item in line.items() if "perf/" not in key}
            for line in read_metrics(folder)
        ]
        found[folder.name] = lines, (folder / "model.safetensors").read_bytes()
    return found


def kill_when(command: list[str], folder: Path, ready) -> None:
    """Start a sweep and kill it, without a chance to tidy up, as soon as `ready()`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_cli", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def test_a_killed_sweep_repeated_is_the_uninterrupted_one(vae_train_here, tmp_path):
    command = ("-m", "seed=0,1,2", *QUICK, "epochs=12")
    assert vae_train_here(*command, "hydra.sweep.dir=whole").returncode == 0

    parts = tmp_path / "parts"
    line = [*command, "hydra.sweep.dir=parts"]
    kill_when(line, tmp_path, lambda: len(read_metrics(parts / "seed=0")) >= 3)
    kill_when(line, tmp_path, lambda: (parts / "seed=1" / "config.yaml").exists())
    assert read_summary(parts / "seed=0")["status"] == "completed"
    finished = (parts / "seed=0" / "summary.json").read_bytes()
    assert not (parts / "seed=2").exists()

    done = vae_train_here(*line)
    assert done.returncode == 0, done.stderr
    assert "3 jobs: 1 are finished" in done.stderr
    assert numbers(parts) == numbers(tmp_path / "whole")
    assert len(numbers(parts)) == 3
    assert (parts / "seed=0" / "summary.json").read_bytes() == finished

    again = vae_train_here(*line)
    assert again.returncode == 0, again.stderr
    assert "3 jobs: 3 are finished, 0 go on, 0 begin" in again.stderr
    other = vae_train_here(*line, "beta=2")
    assert other.returncode == 2
    assert "holds a run with other settings (beta: 1.0, now 2.0)" in other.stderr
    assert numbers(parts) == numbers(tmp_path / "whole")


def test_a_failed_job_is_tried_again_and_the_exit_code_says_so(vae_train_here, tmp_path):
    line = ("-m", "optimizer.lr=1e-4,1e6", "optimizer=sgd", *QUICK, "epochs=2", "log_every=1")
    for said in ("", "2 jobs: 1 are finished, 1 go on"):
        done = vae_train_here(*line, "hydra.sweep.dir=all", "dataset=beta_pdf")
        assert done.returncode == 1, done.stderr
        assert "is not finite" in done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    folders = [path.parent for path in tmp_path.glob("all/*/summary.json")]
    states = {folder.name: read_summary(folder)["status"] for folder in folders}
    assert states == {"optimizer.lr=0.0001": "completed", "optimizer.lr=1000000.0": "failed"}


def test_resume_auto_goes_on_by_itself(vae_train_here, tmp_path):
    new = vae_train_here(*QUICK, "epochs=1", "resume=auto")
    assert new.returncode == 0, new.stderr
    assert "no unfinished run with these settings below outputs" in new.stderr
    (folder,) = (path.parent for path in tmp_path.glob("outputs/*/*/summary.json"))
    path = folder / "summary.json"
    path.write_text(json.dumps(read_summary(folder) | {"status": "interrupted"}))
    going_on = vae_train_here(*QUICK, "epochs=2", "resume=auto")
    assert going_on.returncode == 0, going_on.stderr
    assert f"resume=auto: going on in outputs/{folder.parent.name}/{folder.name}" in going_on.stderr
    assert [line["epoch"] for line in read_metrics(folder)] == [1, 2]
    # finished: the same command begins a new run
    assert "a new one" in vae_train_here(*QUICK, "epochs=2", "resume=auto").stderr
    assert len(list(tmp_path.glob("outputs/*/*/summary.json"))) == 2


def test_resume_auto_in_a_folder_of_ones_own(vae_train_here, tmp_path):
    line = (*QUICK, "epochs=1", "hydra.run.dir=mine", "resume=auto")
    first = vae_train_here(*line)
    assert first.returncode == 0, first.stderr
    assert "a new run in" in first.stderr
    assert "going on in" in vae_train_here(*line, "epochs=2").stderr
    assert len(read_metrics(tmp_path / "mine")) == 2
    refused = vae_train_here(*line, "epochs=2", "beta=3")
    assert refused.returncode == 2
    assert "mine holds a run with other settings (beta: 1.0, now 3.0)" in refused.stderr


def test_a_second_process_on_the_same_folder_is_refused(vae_train_here, tmp_path):
    command = [*QUICK, "epochs=2000", "hydra.run.dir=mine", "resume=auto"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_cli", *command],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "mine" / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        refused = vae_train_here(*command)
        assert refused.returncode == 2
        assert f"in use by another process (process {process.pid} on" in refused.stderr
    finally:
        process.kill()
        process.wait(30)
