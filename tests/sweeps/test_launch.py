"""Sweeps through Hydra's own multirun: with fake jobs, and twice with real ones."""

import sys
from functools import partial
from pathlib import Path

import pytest

from vae_cli.config.check import as_container
from vae_cli.runs.saved import read_metrics, read_summary
from vae_cli.sweeps import launch
from vae_cli.sweeps.plan import Job, plan_sweep

QUICK = ("dataset=digits", "epochs=1")


def numbers(sweep: Path) -> dict[str, object]:
    """What the runs in a folder computed: metrics and weights, by their own folders."""
    found: dict[str, object] = {}
    for folder in sorted(path.parent for path in sweep.glob("*/model.safetensors")):
        lines = [
            {key: item for key, item in line.items() if "perf/" not in key}
            for line in read_metrics(folder)
        ]
        found[folder.name] = lines, (folder / "model.safetensors").read_bytes()
    return found


@pytest.fixture
def fake_job(monkeypatch, write_run, measured):
    """Replace the training by one that leaves its folder; `codes` says how a beta's job ends."""
    trained, codes = [], {}

    def run_job(config, folder, observers=(), swept=()):
        trained.append((folder.name, list(swept)))
        code = codes.get(config.beta, 0)
        status = "failed" if code else "completed"
        write_run(folder, measured(config.beta, 1), status, config=config)
        return code

    monkeypatch.setattr(launch, "run_job", run_job)
    return trained, codes


def run(*overrides: str) -> int:
    return launch.run_sweep(plan_sweep(overrides))


def test_a_sweep_also_in_worker_processes_gives_the_numbers_of_runs_alone(
    vae_train_here, vae_train
):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    line = ("-m", *QUICK, "beta=1,4")
    here = vae_train_here(*line, "hydra.sweep.dir=one")
    assert here.returncode == 0, here.stderr
    for beta in (4, 1):
        vae_train_here(*QUICK, f"beta={beta}", "figures=none", f"hydra.run.dir=alone/beta={beta}")
    assert len(numbers(Path("one"))) == 2
    assert numbers(Path("one")) == numbers(Path("alone"))
    assert list(Path("one").glob("*/figures")) == []
    assert Path("one/figures/rate_distortion.png").exists()
    workers = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=two")
    # warnings of the plug-in are not ours to mend
    there = vae_train(*line, *workers, PYTHONWARNINGS="ignore")
    assert there.returncode == 0, there.stderr
    assert numbers(Path("two")) == numbers(Path("one"))
    assert "job 2/2 beta=4: test elbo" in there.stdout
    assert "2 of 2 runs completed" in there.stdout
    assert "1 thread" in (Path("two") / "beta=1" / "console.log").read_text()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # SQLAlchemy's connections
def test_a_search_trains_prunes_and_reports(vae_train_here):
    lr = "optimizer.lr=tag(log,interval(1e-7,1e6))"
    early = ("hydra.sweeper.pruner_startup_trials=1", "hydra.sweeper.n_trials=5", "log_every=1")
    search = ("hydra/sweeper=optuna", lr, *early, "hydra.sweep.dir=all")
    done = vae_train_here("-m", *QUICK, *search, "epochs=3")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    states = [read_summary(path)["status"] for path in sorted(Path("all").glob("trial-*"))]
    assert set(states) == {"completed", "failed", "pruned"}
    for path in Path("all").glob("trial-*"):
        if read_summary(path)["status"] == "pruned":
            assert len(read_metrics(path)) < 3
    assert "2 of 5 runs completed" in done.stdout
    assert "best: trial" in done.stdout


def test_a_line_says_how_a_job_ended(measured, make_config, tmp_path, write_run):
    job = Job(1, [], {"beta": "1"}, as_container(make_config()), tmp_path)
    assert launch.outcome(job, True) == "failed: see above"
    (tmp_path / "console.log").write_text("1 thread\nvae-train: dataset.path=x: no such folder\n")
    assert launch.outcome(job, True) == "failed: dataset.path=x: no such folder"
    write_run(tmp_path, measured(1.5, 20))
    assert launch.outcome(job, False) == "test elbo -21.500, reconstruction 20.000, kl 1.500, 1.5 s"
    write_run(tmp_path, status="failed", epochs=2, error="RunFailed: not finite")
    assert launch.outcome(job, False) == "failed, 2/20, 1.5 s: RunFailed: not finite"


@pytest.mark.usefixtures("vae_train_here")
def test_what_a_job_prints_is_kept_in_its_folder_unless_it_is_asked_for(monkeypatch, capsys):
    def run_job(config, folder, observers=(), swept=()):
        print(f"epoch 1/1 of {config.beta}")
        print("vae-train: dataset.path=x: no such folder", file=sys.stderr)
        return launch.USAGE_ERROR

    monkeypatch.setattr(launch, "run_job", run_job)
    for asked in ([], ["quiet=false"]):
        folder = f"shown={len(asked)}"
        assert run("beta=1,2", *asked, f"hydra.sweep.dir={folder}") == 1
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        if asked:
            assert lines[1] == "epoch 1/1 of 1.0"
            assert captured.err.count("no such folder") == 2
            continue
        assert lines[:2] == [
            "job 1/2 beta=1",
            "job 1/2 beta=1: failed: dataset.path=x: no such folder",
        ]
        assert "no such folder" not in captured.err
        assert "epoch 1/1 of 2.0" in Path(folder, "beta=2", "console.log").read_text()


@pytest.mark.usefixtures("vae_train_here")
def test_what_a_worker_has_to_say_is_printed_where_the_sweep_was_started(
    fake_job, capsys, monkeypatch
):
    monkeypatch.setattr(launch, "launched", partial(as_worker, launch.launched))
    assert run("beta=1,2", "hydra.sweep.dir=all") == 0
    titles = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[:4]]
    assert titles == ["job 1/2 beta=1"] * 2 + ["job 2/2 beta=2"] * 2
    assert not Path("all/lines.txt").exists()


def as_worker(launched, sweep, process, cfg):
    """Do a job as the process that a launcher starts for it."""
    return launched(sweep, process + 1, cfg)
