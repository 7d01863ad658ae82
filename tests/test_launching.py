"""Sweeps in processes of a launcher's. Each launcher's test skips itself without its extra."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from vae_cli import launching
from vae_cli.run import read_metrics, read_summary

QUICK = ("dataset=digits", "figures=none", "batch_size=128")
PLUGINS = {
    "joblib": "hydra_joblib_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
}


def needs(launcher: str) -> pytest.MarkDecorator:
    plugin = PLUGINS[launcher]
    missing = find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{plugin}") is None
    return pytest.mark.skipif(missing, reason=f"the extra for hydra/launcher={launcher}")


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vae_cli", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(ready, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def weights(sweep: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sweep.glob("*/model.safetensors")}


def worker_of(run: Path) -> int:
    """The process that trains in a run folder."""
    found = re.search(r"process (\d+)", (run / ".lock").read_text())
    assert found
    return int(found.group(1))


# lr=1e6 fails with SGD on curves
LINE = ("-m", "optimizer.lr=1e-4,1e6", "optimizer=sgd", *QUICK, "dataset=beta_pdf", "log_every=1")


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    """The weights that the sweep gives in one process."""
    folder = tmp_path_factory.mktemp("reference")
    sweep = start(folder, *LINE, "epochs=1", "hydra.sweep.dir=one")
    _, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 1, err
    return weights(folder / "one")


@pytest.mark.parametrize("launcher", [pytest.param(name, marks=needs(name)) for name in PLUGINS])
def test_other_processes_give_the_same_numbers(vae_train, tmp_path, launcher, reference):
    extra = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    line = (*LINE, "epochs=1", "hydra.sweep.dir=two", f"hydra/launcher={launcher}", *extra)
    # plugins' own warnings are not ours to mend
    done = vae_train(*line, PYTHONWARNINGS="ignore")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert weights(tmp_path / "two") == reference
    assert len(reference) == 1
    run = tmp_path / "two" / "optimizer.lr=1000000.0"
    assert read_summary(run)["status"] == "failed"
    assert "is not finite" in (run / "console.log").read_text()
    assert not (tmp_path / "two" / launching.STOP).exists()


@needs("joblib")
def test_ctrl_c_stops_workers_with_a_checkpoint_and_a_dead_sweep_ends_them(tmp_path):
    line = ("-m", "seed=0,1,2", *QUICK, "epochs=3000", "image_every=0", "hydra.sweep.dir=all")
    line += ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    runs = [tmp_path / "all" / f"seed={seed}" for seed in range(3)]
    sweep = start(tmp_path, *line)
    wait_for(lambda: all(len(read_metrics(run)) > 1 for run in runs[:2]), sweep)
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, err
    assert "running jobs write their checkpoints" in err
    assert "go on with the same command and hydra.sweep.dir=" in err
    assert [read_summary(run)["status"] for run in runs[:2]] == ["interrupted"] * 2
    assert read_summary(runs[2]) == {}

    sweep = start(tmp_path, *line)
    wait_for(lambda: all(read_summary(run)["status"] == "running" for run in runs[:2]), sweep)
    workers = [worker_of(run) for run in runs[:2]]
    sweep.kill()
    sweep.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [read_summary(run)["status"] for run in runs[:2]] == ["interrupted"] * 2


@needs("joblib")
def test_a_worker_that_dies_is_tried_once_more(tmp_path):
    line = ("-m", "seed=0,1", *QUICK, "epochs=60", "image_every=0", "hydra.sweep.dir=all")
    sweep = start(tmp_path, *line, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    run = tmp_path / "all" / "seed=0"
    wait_for(lambda: len(read_metrics(run)) > 2, sweep)
    os.kill(worker_of(run), signal.SIGKILL)
    _, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, err
    assert "the launcher lost a job" in err
    for seed in (0, 1):
        lines = read_metrics(tmp_path / "all" / f"seed={seed}")
        assert [line["epoch"] for line in lines] == list(range(1, 61))


@needs("submitit_local")
def test_a_requeued_job_goes_on_in_its_folder(tmp_path):
    line = ("-m", "seed=0,1", *QUICK, "epochs=60", "image_every=0", "hydra.sweep.dir=all")
    sweep = start(tmp_path, *line, "hydra/launcher=submitit_local")
    run = tmp_path / "all" / "seed=1"
    wait_for(lambda: len(read_metrics(run)) > 2, sweep)
    # as SLURM does before it takes a node away
    os.kill(worker_of(run), signal.SIGUSR2)
    _, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, err
    assert "going on after epoch" in (run / "console.log").read_text()
    assert [line["epoch"] for line in read_metrics(run)] == list(range(1, 61))
    assert read_summary(run)["status"] == "completed"


@needs("submitit_local")
def test_the_slurm_preset_asks_for_what_a_requeue_needs(tmp_path):
    from submitit.slurm.slurm import _make_sbatch_string

    arguments = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
    with launching.launcher("config", arguments, tmp_path) as launch:
        node = launch.cfg.hydra.launcher
    assert launch.kind == "SlurmLauncher"
    assert node.max_num_timeout > 0
    text = _make_sbatch_string(
        command="COMMAND",
        folder=str(tmp_path),
        partition=node.partition,
        time=node.timeout_min,
        cpus_per_task=node.cpus_per_task,
        signal_delay_s=node.signal_delay_s,
    )
    for line in ("partition=gpu", "signal=USR2@120", "time=240", "cpus-per-task=4"):
        assert f"#SBATCH --{line}\n" in text


def test_without_its_extra_a_launcher_says_what_to_install(vae_train, tmp_path):
    if find_spec("hydra_plugins.hydra_ray_launcher"):
        pytest.skip("it is installed")
    done = vae_train("-m", "seed=0,1", "hydra/launcher=ray")
    assert done.returncode == 2
    expected = "vae-train: hydra/launcher=ray needs an extra: pip install 'vae-cli[ray]'\n"
    assert done.stderr == expected
    assert list(tmp_path.iterdir()) == []


def test_cores_are_those_of_this_process():
    assert 1 <= launching.cores() <= (os.cpu_count() or 1)
