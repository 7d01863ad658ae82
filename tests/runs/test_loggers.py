"""What a run logs to: several at once; one that fails costs only its own numbers."""

import csv
import json
import math
from importlib.machinery import ModuleSpec

import pytest
import torch

from vae_cli.config import check
from vae_cli.config.check import identity
from vae_cli.console import UserError
from vae_cli.runs import loggers
from vae_cli.runs.folder import Run
from vae_cli.runs.saved import read_metrics, read_summary, saved_config
from vae_cli.sweeps.plan import plan_sweep

ENDED = {"best_epoch": 2, "metrics": {"val/loss": 2.0, "test/loss": 3.0}}


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_loggers_are_chosen_by_name_and_change_no_numbers(make_config):
    default = make_config("dataset=digits")
    assert [*default.logger] == ["tensorboard"]
    for words, names in (("csv", ["csv"]), ("[tensorboard,csv]", ["tensorboard", "csv"])):
        config = make_config("dataset=digits", f"logger={words}")
        assert [*config.logger] == names
        assert identity(config) == identity(default)
    assert make_config("logger=none").logger == make_config("logger=[]").logger == {}
    jobs = plan_sweep(["seed=0,1", "logger=[tensorboard,csv]"]).jobs
    assert [[*job.config.logger] for job in jobs] == 2 * [["tensorboard", "csv"]]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("logger=[csv,tensorbord]", r"no such logger \(did you mean tensorboard\?\)"),
        ("logger.csv.x=1", r"logger\.csv: .* choose it, as in logger=\[tensorboard,csv\]"),
        ("logger.tensorboard.x=1", r"logger\.tensorboard\.x=1: no such setting"),
        ("model=[ae,conv_ae]", r"no such model"),  # of the other groups, one
    ],
)
def test_a_logger_that_is_not_there_is_refused(make_config, word, line):
    with pytest.raises(UserError, match=line):
        make_config(word)


def test_a_csv_file_has_the_lines_of_metrics_jsonl_and_one_for_the_test_set(make_config, tmp_path):
    config = make_config("logger=csv")
    run = Run(tmp_path, config)
    for epoch in (1, 2, 3):
        run.log_epoch({"epoch": epoch, "train/loss": epoch / 3})
    run.close("interrupted")
    assert len(rows(tmp_path)) == 3
    run = Run(tmp_path, config, epoch=1, step=10)  # the checkpoint is older than the file
    run.log_epoch({"epoch": 2, "train/loss": math.nan, "val/loss": 2.0})
    run.close("completed", **ENDED)
    *epochs, last = rows(tmp_path)
    for row, line in zip(epochs, read_metrics(tmp_path), strict=True):
        assert {k: float(v) for k, v in row.items() if v} == pytest.approx(line, nan_ok=True)
    assert {k: v for k, v in last.items() if v} == {"epoch": "2", "test/loss": "3.0"}


def test_a_logger_that_fails_is_said_once_and_costs_only_its_own_numbers(
    make_config, tmp_path, capsys, monkeypatch
):
    # it would take its epoch from metrics.jsonl too
    monkeypatch.setattr(loggers.CSV, "log_epoch", lambda self, record: record.pop("epoch"))
    run = Run(tmp_path, make_config("logger=[csv,tensorboard]"))
    for epoch in (1, 2, 3):
        run.log_epoch({"epoch": epoch})
    run.close("completed", **ENDED)
    assert capsys.readouterr().err.count("logger=csv has failed: ") == 1
    assert len(read_metrics(tmp_path)) == 3
    assert read_summary(tmp_path)["status"] == "completed"
    assert [*saved_config(tmp_path).logger] == ["csv", "tensorboard"]
    assert [path for path in tmp_path.glob("events.*") if path.stat().st_size > 500]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_library_is_refused_before_any_work(make_config, monkeypatch, name):
    folder = ModuleSpec(
        name, None, is_package=True
    )  # wandb/ in the current folder, as W&B makes it
    for found in (None, folder):
        monkeypatch.setattr(check, "find_spec", lambda module, found=found: found)
        with pytest.raises(
            UserError, match=rf"logger={name} needs an extra: pip install 'vae-cli\["
        ):
            make_config(f"logger={name}")


def log_in_two_sessions(config, folder):
    """Log numbers, a picture and a distribution, the second time as the run goes on."""
    points = {}
    for session, start in enumerate((0, 10)):
        run = Run(folder, config, epoch=session, step=start)
        for step in (start + 5, start + 10):
            scalars = {"train/loss": step / 3, "val/elbo": -step / 7}
            run.log_steps(step, scalars)
            points |= {(name, step): number for name, number in scalars.items()}
        run.log_image("figures/some", torch.rand(3, 8, 9), start + 10)
        run.log_histogram("some", torch.randn(30), start + 10)
        run.close("completed", seconds=1.0, **ENDED)
        assert not run.failing
    return points


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, where the services keep their files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


def records(path):
    """The records of W&B's file: parts (checksum, length, kind, bytes) in blocks of 32 KiB."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.filterwarnings("default")
def test_weights_and_biases_gets_all_numbers_and_pictures_offline(make_config, here):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    config = make_config("logger=wandb", "logger.wandb.mode=offline", "logger.wandb.project=mine")
    points, found, media, runs = log_in_two_sessions(config, here / "run"), {}, set(), set()
    files = sorted(here.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    for record in (Record.FromString(each) for path in files for each in records(path)):
        for item in record.history.item:
            name, *parts = item.nested_key
            media |= {name} if parts else set()
            if not (parts or name.startswith("_")):
                found[name, record.history.step.num] = json.loads(item.value_json)
        if record.HasField("run"):
            runs.add((record.run.run_id, record.run.display_name, record.run.project))
            assert "model" in {entry.key for entry in record.run.config.update}
    assert found == points
    assert media == {"figures/some", "some"}
    assert runs == {(read_summary(here / "run")["loggers"]["wandb"], "run", "mine")}


@pytest.mark.filterwarnings("default")
def test_mlflow_gets_all_numbers_and_pictures_in_a_database(make_config, here):
    client = pytest.importorskip("mlflow").MlflowClient("sqlite:///mine.db")
    config = make_config("logger=mlflow", "logger.mlflow.tracking_uri=sqlite:///mine.db")
    points = log_in_two_sessions(config, here / "run")
    (run,) = client.search_runs([client.get_experiment_by_name("vae-cli").experiment_id])
    assert run.info.run_id == read_summary(here / "run")["loggers"]["mlflow"]
    assert (run.info.status, run.info.run_name, run.data.params["beta"]) == (
        "FINISHED",
        "run",
        "1.0",
    )
    history = [
        m for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)
    ]
    assert {(m.key, m.step): m.value for m in history} == points
    assert len(client.list_artifacts(run.info.run_id, "images")) == 4  # a small one beside each


@pytest.mark.filterwarnings("default")
def test_trackio_gets_all_numbers_and_pictures_on_this_machine(make_config, here):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    points = log_in_two_sessions(make_config("logger=trackio"), here / "run")
    (name,) = SQLiteStorage.get_runs("vae-cli")
    assert name == read_summary(here / "run")["loggers"]["trackio"]
    logs = [
        (k, log["step"], v)
        for log in SQLiteStorage.get_logs("vae-cli", name)
        for k, v in log.items()
    ]
    assert {(k, step): v for k, step, v in logs if k in ("train/loss", "val/elbo")} == points
    assert {k for k, _, v in logs if isinstance(v, dict)} == {"figures/some", "some"}
    assert SQLiteStorage.get_run_config("vae-cli", name)["beta"] == 1.0
