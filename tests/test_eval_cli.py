"""The command vae-eval: its settings, its mistakes, and whole runs of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vae_cli import checkpoint, eval_cli, eval_planning, planning
from vae_cli.checking import as_container
from vae_cli.errors import UserError
from vae_cli.eval_config import TASKS, EvalConfig, key_of
from vae_cli.files import write_json, write_text
from vae_cli.rules import rule_of

# command line, in a folder with the runs images, autoencoder and curves -> what its line must say
MISTAKES = [
    ("", "run is missing: give run=…, a run folder, or latest"),
    ("rnu=images", "rnu=images: no such setting (did you mean run?)"),
    ("run=nowhere", "run=nowhere: no such folder"),
    ("run=.", "run=.: not a run folder (it has no config.yaml)"),
    ("run=", "run=: "),
    ("run=latest", "outputs=outputs: no such folder"),
    ("run=latest outputs=.", "run=latest: no completed run under ."),
    ("run=images task=nlll", "task=nlll: no such task (did you mean nll?); there are metrics, nll"),
    ("run=images task=", "task=: no such task"),
    ("run=images n=3", "n=3: a setting of task=sample, not of this task"),
    ("run=images task=sample n=0", "n=0: must be >= 1"),
    ("run=images task=sample n=many", "n=many: must be a whole number"),
    ("run=images task=sample n=1,2", "n=1,2: several values"),
    ("run=images task=sample +n=3", "+n=3: write KEY=VALUE"),
    ("run=images task=sample ~n", "~n: write KEY=VALUE"),
    ("run=images task=sample n", "n: cannot be read; settings are written KEY=VALUE"),
    ("run=images task=nll num_samples=0", "num_samples=0: must be >= 1"),
    ("run=images task=nll num_sample=10", "no such setting (did you mean num_samples?)"),
    ("run=images task=nll split=tset", "split=tset: must be one of train, val, test"),
    ("run=images task=nll num_samples=null", "num_samples=null: must have a value"),
    ("run=autoencoder task=nll", "task=nll cannot be done with model=ae"),
    ("run=autoencoder task=sample", "task=sample cannot be done with model=ae"),
    ("run=images task=fit alpha=1 beta=2", "task=fit needs a run on curves, and dataset=digits"),
    ("run=curves task=fit alpha=1", "task=fit needs a curve: give alpha=… and beta=…"),
    ("run=curves task=fit alpha=0 beta=2", "alpha=0: must be > 0"),
    ("run=curves task=fit alpha=1 beta=2 target=a.npy", "a file or alpha and beta, not both"),
    ("run=images task=interpolate to=8", "from is missing: give from=…, where it starts"),
    ("run=images task=interpolate from=3 to=8 steps=1", "steps=1: must be >= 2"),
    ("run=images task=interpolate from=3 to=8 by=name", "by=name: must be one of auto, label"),
    ("run=images task=traverse limit=-1", "limit=-1: must be > 0"),
    ("run=images task=export format=tflite", "format=tflite: must be one of onnx, torchscript"),
    ("run=images device=gpu", "device=gpu: must be auto, cpu, cuda, cuda:N or mps"),
    ("run=images seed=-1", "seed=-1: must be >= 0"),
    ("run=images hydra.run.dir=x", "hydra.run.dir=x: no such setting"),
    ("run=broken", "config.yaml cannot be read"),
    ("--foo", "unrecognized arguments: --foo"),
    ("--cfg hydra run=images", "invalid choice: 'hydra'"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_config):
    """A folder with runs that have settings but no weights: mistakes are found without them."""
    folder = tmp_path_factory.mktemp("place")
    chosen = {
        "images": ("dataset=digits",),
        "autoencoder": ("dataset=digits", "model=ae"),
        "curves": ("dataset=beta_pdf",),
    }
    for name, overrides in chosen.items():
        (folder / name).mkdir()
        plain = as_container(make_config(*overrides))
        write_text(folder / name / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))
    (folder / "broken").mkdir()
    (folder / "broken" / "config.yaml").write_text("beta: [1")
    return folder


@pytest.mark.parametrize(("line", "expected"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(line, expected, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert eval_cli.run(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vae-eval: ")
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--version",
        "task=sample run=images --cfg job",
        "run=images task=fit alpha=1 beta=2",
        "run=autoencoder task=nll",
        "run=images betta=1",
    ],
)
def test_answers_need_no_torch(line, place):
    code = (
        "import sys; from vae_cli import eval_cli; eval_cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'matplotlib', 'tensorboard', 'sklearn', 'scipy'} & set(sys.modules);"
        "sys.exit(sorted(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *line.split()],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_task_and_setting(capsys):
    assert eval_cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name, schema in TASKS.items():
        assert f"\n  {name} " in text
        for field in dataclasses.fields(schema):
            assert field.name == "task" or f"\n  {key_of(field)}=" in text
    assert text.count("vae-eval ") >= 6
    assert max(map(len, text.splitlines())) <= 100


def test_version_is_ours(capsys):
    assert eval_cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vae-eval 0.")


def test_cfg_shows_the_settings_as_they_are_typed(capsys):
    assert eval_cli.run(["run=x", "task=interpolate", "from=3", "to=8", "--cfg", "job"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown["from"], shown["to"], shown["by"], shown["steps"]) == ("3", "8", "auto", 20)


def test_every_yaml_has_a_schema_and_every_schema_a_yaml():
    found = {path.stem for path in (planning.config_dir() / "task").glob("*.yaml")}
    assert found == set(TASKS)
    common = {key_of(field) for field in dataclasses.fields(EvalConfig)}
    for name, schema in TASKS.items():
        own = OmegaConf.load(planning.config_dir() / "task" / f"{name}.yaml")
        assert set(map(str, own)) == {key_of(f) for f in dataclasses.fields(schema)} - common | {
            "task"
        }
        assert own.task == name


def test_no_schema_has_a_second_default_and_every_setting_its_help():
    for schema in TASKS.values():
        module, _, function = schema.does.partition(":")
        assert module.startswith("vae_cli.tasks.")
        assert function
        for field in dataclasses.fields(schema):
            assert field.default is dataclasses.MISSING
            assert rule_of(field).help, f"{schema.__name__}.{field.name}"


def test_strings_need_no_quotes():
    settings = eval_planning.settings(
        ["run=runs/beta=1,seed=0", "task=interpolate", "from=ankle boot", "to=T-shirt", "out=null"]
    )
    values = typing.cast(typing.Any, settings)
    assert (values.run, values.out) == ("runs/beta=1,seed=0", None)
    assert (values.from_, values.to) == ("ankle boot", "T-shirt")


# ------------------------------------------------------------------------------------- run=latest


def put(folder: Path, **summary: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("beta: 1\n")
    write_json(folder / "summary.json", summary)
    return folder


def test_the_latest_run_is_the_one_completed_last(tmp_path):
    put(tmp_path / "a", status="completed", finished="2026-03-01T12:00:00+00:00")
    # an hour later by the clock on the wall, yet earlier
    put(tmp_path / "b", status="completed", finished="2026-03-01T13:00:00+02:00")
    put(tmp_path / "c", status="failed", finished="2026-03-02T12:00:00+00:00")
    put(tmp_path / "d", status="running")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "summary.json").write_text("{")
    assert eval_planning.latest_run(tmp_path) == tmp_path / "a"
    newest = put(
        tmp_path / "sweeps" / "day" / "beta=4,seed=0",
        status="completed",
        finished="2026-03-01T12:00:01+00:00",
    )
    assert eval_planning.latest_run(tmp_path) == newest


def test_without_a_completed_run_there_is_no_latest(tmp_path):
    put(tmp_path / "a", status="interrupted", finished="2026-03-01T12:00:00+00:00")
    with pytest.raises(UserError, match="no completed run under"):
        eval_planning.latest_run(tmp_path)


# ------------------------------------------------------------------------------ the real command


def vae_eval(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "vae_cli.eval_cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The working folder of a sweep of one job, made by the real vae-train."""
    folder = tmp_path_factory.mktemp("work")
    place = "hydra.run.dir='outputs/sweeps/x/beta=1,seed=0'"  # as a sweep's jobs are named
    line = ("dataset=digits", "figures=none", "epochs=1", "seed=0", place)
    done = subprocess.run(
        [sys.executable, "-m", "vae_cli", *line],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_command_measures_the_latest_run_and_leaves_one_folder(trained):
    before = {path for path in trained.rglob("*") if path.is_file()}
    done = vae_eval(trained, "run=latest")
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in trained.rglob("summary.json"))
    after = {path for path in trained.rglob("*") if path.is_file()}
    assert after - before == {run / "eval" / "metrics.json"}
    assert json.loads((run / "eval" / "metrics.json").read_text())["summary_difference"] == 0
    assert str((run / "eval" / "metrics.json").relative_to(trained)) in done.stdout
    assert "test/elbo" in done.stdout
    assert "seed=0" in run.name  # with a comma and an equals sign, and no quotes needed
    again = vae_eval(trained, f"run={run.relative_to(trained)}", "task=sample", "n=4", "out=here")
    assert again.returncode == 0, again.stderr
    assert {path.name for path in (trained / "here").iterdir()} == {"samples.png", "samples.npz"}


def test_weights_of_another_format_version_are_explained(trained, tmp_path, monkeypatch):
    (run,) = (path.parent for path in trained.rglob("summary.json"))
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    weights, about = checkpoint.load_weights(run / "model.safetensors")
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    checkpoint.save_weights(tmp_path / "model.safetensors", weights, about)
    done = vae_eval(tmp_path, "run=.")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has format 99 and this version" in done.stderr
    assert "use the version that wrote it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "eval").exists()


def test_a_missing_device_and_an_unwritable_folder_are_one_line(trained):
    done = vae_eval(trained, "run=latest", "device=cuda:97")
    assert done.returncode == 2
    assert "vae-eval: device=cuda:97: this machine has" in done.stderr
    refused = vae_eval(trained, "run=latest", "out=/dev/null/x")
    assert refused.returncode == 2
    assert "vae-eval: out=/dev/null/x: cannot be written" in refused.stderr
