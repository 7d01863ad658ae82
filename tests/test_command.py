"""The real command in processes, for the promises that only a process can keep."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from vae_cli.runs.saved import read_metrics, read_summary

QUICK = ("dataset=digits", "figures=none", "image_every=0")
# enough epochs for two signals to come between them
LONG = (*QUICK, "batch_size=64", "epochs=40", "model.latent_dim=3")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a folder, without waiting for its end."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "vae_cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_epochs(process: subprocess.Popen[str], run: Path, epochs: int) -> None:
    deadline = time.monotonic() + 200
    while len(read_metrics(run)) < epochs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def numbers(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what depends on the machine's speed."""
    return [
        {key: value for key, value in line.items() if "perf/" not in key}
        for line in read_metrics(run)
    ]


def test_a_run_prints_its_table_and_leaves_its_folder(vae_train, tmp_path):
    done = vae_train("dataset=digits", "epochs=2")
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in tmp_path.glob("outputs/*/summary.json"))
    name = r"digits_mlp_vae_epochs=2_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}"
    assert re.fullmatch(name, folder.name)
    for text in ("best epoch", "test elbo", "of 8", f"tensorboard --logdir {folder}"):
        assert text in done.stdout
    assert re.search(r"epoch 2/2  train loss [\d.]+ \(reconstruction", done.stderr)
    assert "Traceback" not in (folder / "train.log").read_text()
    assert (folder / ".hydra" / "overrides.yaml").exists()
    assert len(list((folder / "figures").glob("*.png"))) >= 3
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["versions"]["torch"]
    assert summary["metrics"]["test/elbo"] < 0


def test_ctrl_c_a_kill_and_a_reader_that_goes_away_change_nothing(vae_train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "p a r t s"
    process = start(tmp_path, *LONG, "hydra.run.dir=whole")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(200) == 0

    line = (*LONG, "hydra.run.dir=p a r t s")
    process = start(tmp_path, *line)
    wait_for_epochs(process, parts, 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"vae-train resume='{parts}'" in err
    assert "Traceback" not in err
    assert read_summary(parts)["status"] == "interrupted"
    done = len(read_metrics(parts))
    assert 3 <= done < 37

    process = start(tmp_path, f"resume={parts}")
    wait_for_epochs(process, parts, done + 2)
    process.kill()
    process.communicate(timeout=60)
    assert len(read_metrics(parts)) < 40

    last = vae_train(*line, "resume=auto")
    assert last.returncode == 0, last.stderr
    assert "going on" in last.stderr
    assert numbers(parts) == numbers(whole)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_vae_eval_and_vae_report_are_commands(trained, tmp_path):
    run = trained("dataset=digits", "epochs=1")
    for name, arguments in {"eval": [f"run={run}", f"out={tmp_path}"], "report": [run]}.items():
        code = f"import vae_cli.cli; vae_cli.cli.{name}_main()"
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        command += ["--out", str(tmp_path), "--no-figures"] * (name == "report")
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.json").exists()
    assert (tmp_path / "sweep.csv").exists()
