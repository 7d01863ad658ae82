"""Whole runs of the real command: in a subprocess where the process itself matters."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_cli.run import read_metrics, read_summary

QUICK = ("dataset=digits", "figures=none", "epochs=2", "batch_size=256")


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("outputs/**/summary.json"))


def test_a_run_prints_its_table_and_leaves_its_folder(vae_train, tmp_path):
    done = vae_train("dataset=digits", "epochs=2")
    assert done.returncode == 0, done.stderr
    (folder,) = runs(tmp_path)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}", str(folder.relative_to(tmp_path / "outputs"))
    )
    for text in (
        "best epoch",
        "test elbo",
        "active units",
        "of 8",
        f"tensorboard --logdir {folder}",
    ):
        assert text in done.stdout
    assert re.search(r"epoch 2/2  train loss [\d.]+ \(reconstruction", done.stderr)
    assert "epoch 2" in (folder / "train.log").read_text()
    assert (folder / ".hydra" / "overrides.yaml").exists()
    assert len(list((folder / "figures").glob("*.png"))) >= 3


def test_a_dataset_of_curves_picks_what_fits(vae_train_here, tmp_path):
    done = vae_train_here("dataset=beta_pdf", "epochs=5", "figures=none")
    assert done.returncode == 0, done.stderr
    assert "likelihood:\n  name: squared_error" in (runs(tmp_path)[0] / "config.yaml").read_text()


def test_a_sweep_leaves_a_run_a_job(vae_train, tmp_path):
    done = vae_train("-m", "beta=1,4", "seed=0,1", *QUICK, "epochs=1")
    assert done.returncode == 0, done.stderr
    found = runs(tmp_path)
    assert len(found) == 4
    assert all("sweeps" in str(folder) for folder in found)
    assert len({folder.name for folder in found}) == 4
    assert all(",seed=" in folder.name for folder in found)
    assert all(read_summary(folder)["status"] == "completed" for folder in found)


def test_a_failed_job_does_not_stop_the_others(vae_train_here, tmp_path):
    done = vae_train_here(
        "-m", "optimizer.lr=1e6,1e-4", "optimizer=sgd", *QUICK, "dataset=beta_pdf"
    )
    assert done.returncode == 1
    assert "is not finite" in done.stderr
    assert "Traceback" not in done.stderr
    states = {folder.name: read_summary(folder)["status"] for folder in runs(tmp_path)}
    assert sorted(states.values()) == ["completed", "failed"]


def test_interrupt_and_resume_give_the_uninterrupted_run(vae_train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "p a r t s"
    long = ("dataset=digits", "figures=none", "batch_size=32", "epochs=60", "model.latent_dim=3")
    assert vae_train(*long, f"hydra.run.dir={whole}").returncode == 0

    command = [sys.executable, "-m", "vae_cli", *long, f"hydra.run.dir='{parts}'"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(read_metrics(parts)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"vae-train resume='{parts}'" in err
    assert "Traceback" not in err
    assert read_summary(parts)["status"] == "interrupted"
    assert 3 <= len(read_metrics(parts)) < 60

    done = vae_train(f"resume='{parts}'")
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stderr
    numbers = [
        [{k: v for k, v in line.items() if "perf/" not in k} for line in read_metrics(folder)]
        for folder in (whole, parts)
    ]
    assert numbers[0] == numbers[1]
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    assert not (tmp_path / "outputs").exists()


def test_what_resume_refuses_and_allows(vae_train_here, tmp_path):
    assert vae_train_here(*QUICK, "hydra.run.dir=run").returncode == 0
    refused = vae_train_here("resume=run", "beta=4", "model.latent_dim=3")
    assert refused.returncode == 2
    assert (
        "trained with other settings: beta: 1.0, now 4.0; model.latent_dim: 8, now 3"
        in refused.stderr
    )
    finished = vae_train_here("resume=run")
    assert (finished.returncode, "is finished: 2 epochs" in finished.stderr) == (0, True)
    longer = vae_train_here("resume=run", "epochs=3")
    assert longer.returncode == 0, longer.stderr
    assert [line["epoch"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / "run" / "checkpoints" / name).unlink()
    none = vae_train_here("resume=run", "epochs=4")
    assert none.returncode == 2
    assert "there is no checkpoints/last.ckpt" in none.stderr


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(vae_train_here, tmp_path):
    assert vae_train_here(*QUICK, "hydra.run.dir=run").returncode == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    done = vae_train_here("resume=run", "epochs=3")
    assert done.returncode == 0, done.stderr
    assert "last.ckpt is damaged" in done.stderr
    assert "going on after epoch 1" in done.stderr
    assert [line["epoch"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    for path in (last, last.with_name("previous.ckpt")):
        path.write_bytes(path.read_bytes()[:-100])
    done = vae_train_here("resume=run", "epochs=4")
    assert done.returncode == 2
    assert "there is no whole checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("model", "shape"), [("mlp_vae", "[128, 64]"), ("conv_vae", "[128, 1, 8, 8]")]
)
def test_a_dry_run_says_sizes_and_leaves_nothing(vae_train_here, tmp_path, model, shape):
    done = vae_train_here("dataset=digits", f"model={model}", "dry_run=true")
    assert done.returncode == 0, done.stderr
    for text in (
        "shapes, for a batch",
        shape,
        "parameters",
        "memory, about",
        "time an epoch",
    ):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_missing_data_is_explained_and_leaves_no_folder(vae_train_here, tmp_path):
    done = vae_train_here("data_dir=/dev/null/x", "hydra.run.dir=out/run")
    assert done.returncode == 2
    assert "data_dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "run").exists()


def test_summary_is_json_with_what_a_reader_needs(vae_train_here, tmp_path):
    vae_train_here(*QUICK, "hydra.run.dir=run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["versions"]["torch"]
    assert summary["metrics"]["test/elbo"] < 0


def test_sigterm_before_training_begins_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "vae_cli", *QUICK, "epochs=1000"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("outputs/*/*/.hydra")):  # the data are loaded after this
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted" in errors
    assert "Traceback" not in errors
    # on a very slow machine training has begun by then
    assert not list(tmp_path.glob("outputs/*/*/config.yaml")) or "go on with" in errors
