"""Whole searches of the real command."""

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
import yaml

from vae_cli.run import read_metrics, read_summary

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # SQLAlchemy's
QUICK = ("dataset=digits", "figures=none", "batch_size=128")
SEARCH = (
    "-m",
    "hydra/sweeper=optuna",
    "optimizer.lr=tag(log,interval(1e-4,1e-2))",
    "model.latent_dim=int(interval(2,8))",
    "hydra.sweeper.startup_trials=2",
    "hydra.sweep.dir=all",
    *QUICK,
)


def trials(folder):
    storage = f"sqlite:///{folder / 'study.db'}"
    return optuna.load_study(study_name="vae-train", storage=storage).trials


def test_a_killed_search_repeated_is_the_uninterrupted_one(vae_train_here, tmp_path):
    line = (*SEARCH, "epochs=8", "hydra.sweeper.pruner=none")
    whole = vae_train_here(*line, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr

    folder = tmp_path / "all"
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_cli", *line, "hydra.sweeper.n_trials=4"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(read_metrics(folder / "trial-001")) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(30)

    done = vae_train_here(*line, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert "1 of 4 trials are done" in done.stderr
    for one, other in zip(trials(tmp_path / "whole"), trials(folder), strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["trials"] == {"complete": 4}
    (winner,) = best["best"]
    assert winner["values"]["val/elbo"] == max(trial.value for trial in trials(folder))
    assert winner["command"] in done.stdout
    # the search goes on when more trials are wanted, and ends at once when they are done
    more = vae_train_here(*line, "hydra.sweeper.n_trials=5")
    assert more.returncode == 0, more.stderr
    assert len(trials(folder)) == 5
    other = vae_train_here(*line, "beta=3", "hydra.sweeper.n_trials=5")
    assert other.returncode == 2
    assert "holds another search" in other.stderr


def test_failed_and_hopeless_trials_do_not_end_a_search(vae_train_here, tmp_path):
    line = ("-m", "hydra/sweeper=optuna", *QUICK, "epochs=3", "log_every=1", "hydra.sweep.dir=all")
    lr = "optimizer.lr=tag(log,interval(1e-7,1e6))"
    early = ("hydra.sweeper.pruner_startup_trials=1", "hydra.sweeper.n_trials=8")
    done = vae_train_here(*line, lr, *early)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found = trials(tmp_path / "all")
    by_state = {trial.state.name for trial in found}
    assert by_state == {"COMPLETE", "FAIL", "PRUNED"}
    for trial in found:
        run = tmp_path / "all" / f"trial-{trial.number:03d}"
        if trial.state.name == "PRUNED":
            assert read_summary(run)["status"] == "pruned"
            assert len(read_metrics(run)) < 3
        if trial.state.name == "FAIL":
            assert trial.user_attrs["error"] == read_summary(run)["error"]


def test_a_trial_that_was_tried_already_is_not_trained_again(vae_train_here, tmp_path):
    line = ("-m", "hydra/sweeper=optuna", *QUICK, "epochs=1", "hydra.sweep.dir=all")
    done = vae_train_here(
        *line, "beta=1,2", "hydra.sweeper.n_trials=6", "hydra.sweeper.pruner=none"
    )
    assert done.returncode == 0, done.stderr
    assert "again" in done.stderr
    assert "6 complete" in done.stdout
    assert len(list(tmp_path.glob("all/trial-*"))) == 2


def test_several_objectives_in_several_processes_with_a_journal(vae_train, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    line = ("-m", "hydra/sweeper=optuna", *QUICK, "epochs=1", "model.hidden_sizes=[8],[64]")
    done = vae_train(
        *line,
        "hydra.sweep.dir=all",
        "hydra.sweeper.metric=[test/elbo,parameters]",
        "hydra.sweeper.direction=[maximize,minimize]",
        "hydra.sweeper.pruner=none",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.sampler=random",
        "hydra.sweeper.storage=journal",
        "hydra/launcher=joblib",
        PYTHONWARNINGS="ignore",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all" / "study.log").exists()
    front = yaml.safe_load((tmp_path / "all" / "best.yaml").read_text())["best"]
    assert all(set(entry["values"]) == {"test/elbo", "parameters"} for entry in front)
    assert json.dumps(front).count("vae-train ") == len(front) >= 1
