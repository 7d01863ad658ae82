import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from vae_cli.config import check
from vae_cli.config.check import as_container, identity
from vae_cli.config.compose import parse_overrides, plain_settings
from vae_cli.console import UserError
from vae_cli.runs import resume, saved


@pytest.fixture
def write_run(tmp_path):
    """Leave in a folder what a run leaves there: write_run(name, config)."""

    def write(name, config, status="running", checkpoint=True, overrides=()):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides]))
        (folder / "config.yaml").write_text(yaml.safe_dump(as_container(config)))
        (folder / "summary.json").write_text(json.dumps({"status": status}))
        if checkpoint:
            (folder / "checkpoints" / "last.ckpt").touch()
        return folder

    return write


def resumed(folder, *overrides):
    """The settings of `vae-train resume=FOLDER …`."""
    keys = [override.key_or_group for override in parse_overrides(overrides)]
    composed = plain_settings("config", [*resume.saved_overrides(folder, keys), *overrides])
    return resume.merged_config(folder, composed, keys)


def test_a_run_keeps_its_settings_and_takes_what_may_change(make_config, write_run):
    overrides = ["model=conv_vae", "model.latent_dim=16", "optimizer=sgd", "optimizer.lr=1e-5"]
    begin = make_config(*overrides, "log_every=7")
    folder = write_run("run", begin, overrides=overrides)
    assert resumed(folder, f"resume={folder}") == begin
    after = resumed(folder, "epochs=3", "figures=none", "model.latent_dim=16", "optimizer=sgd")
    assert after == begin.model_copy(update={"epochs": 3, "figures": "none"})


def test_loggers_are_kept_with_their_settings_or_chosen_anew(make_config, write_run, monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda module: SimpleNamespace(origin=module))
    overrides = ["logger=[csv,mlflow]", "logger.mlflow.experiment=mine"]
    begin = make_config(*overrides)
    folder = write_run("run", begin, overrides=overrides)
    assert resumed(folder, "epochs=30").logger == begin.logger
    assert resumed(folder, "logger.mlflow.experiment=b").logger["mlflow"].experiment == "b"
    assert [*resumed(folder, "logger=tensorboard").logger] == ["tensorboard"]
    saved_run = write_run("strange", make_config("logger=mlflow", "logger.mlflow.tracking_uri=x"))
    with pytest.raises(UserError, match=r"add logger.mlflow.tracking_uri=x to log there, or logge"):
        resumed(saved_run, "epochs=30")
    assert resumed(saved_run, "logger.mlflow.tracking_uri=x").logger["mlflow"].tracking_uri == "x"
    assert not resumed(saved_run, "logger=none").logger
    monkeypatch.setattr(check, "find_spec", lambda module: None)
    with pytest.raises(UserError, match="logger=mlflow needs an extra"):
        resumed(folder, "epochs=30")


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        (["beta=4"], ["beta: 1.0, now 4.0"]),
        (["model.latent_dim=3", "epochs=30"], ["model.latent_dim: 20, now 3"]),
        (["optimizer=sgd"], ["optimizer.name: adam, now sgd", "optimizer.momentum: absent, now"]),
        (["experiment=vae_2d"], ["model.latent_dim: 20, now 2"]),
    ],
)
def test_a_change_of_what_was_trained_is_refused(make_config, write_run, overrides, changes):
    folder = write_run("run", make_config())
    with pytest.raises(UserError, match=f"^resume={folder}: ") as error:
        resumed(folder, *overrides)
    assert all(change in str(error.value) for change in changes)
    assert "epochs" not in str(error.value)


def test_only_settings_of_ours_are_repeated_where_there_is_a_checkpoint(make_config, write_run):
    planted = ["+hydra.callbacks.x._target_=os.mkdir", " hydra/launcher=evil", "~hydra.run"]
    planted += ["monitor=${oc.env:HOME}", "--config-dir=/tmp", "resume=/tmp", "dry_run=true"]
    folder = write_run("run", make_config(), overrides=[*planted, "beta=4", "+experiment=vae_2d"])
    assert resume.saved_overrides(folder) == ["beta=4", "+experiment=vae_2d"]
    (folder / "copy.yaml").symlink_to("config.yaml")
    for name in (str(folder), f"{folder}/checkpoints/last.ckpt", "latest"):
        assert resume.requested_folder(name, outputs=folder.parent) == folder
    for other in (folder.parent, folder / "checkpoints"):
        with pytest.raises(UserError, match=f"^resume={other} "):
            resume.requested_folder(str(other), folder)
    (folder / "out").symlink_to(folder.parent)
    with pytest.raises(UserError, match="leads out"):
        resume.requested_folder(str(folder), folder)


def test_a_run_can_end_later_or_earlier_but_not_before_its_last_epoch(make_config, write_run):
    folder = write_run("run", make_config("epochs=9"))
    (folder / "metrics.jsonl").write_text('{"epoch": 4}\n{"epoch": 5}\n')
    run = saved.read_run(folder)
    assert resume.differences(run, make_config("epochs=5", "patience=2")) == ""
    changes = resume.differences(run, make_config("epochs=4", "patience=2", "log_every=3"))
    assert changes == "epochs: 9, now 4; patience: None, now 2"


def test_the_newest_unfinished_run_is_found(make_config, write_run, tmp_path):
    config = make_config()
    done = saved.read_run(write_run("done", config, "completed"))
    assert resume.is_finished(done, make_config("figures=none"))
    assert not resume.is_finished(done, make_config("epochs=21"))
    write_run("other", make_config("beta=4"))
    (write_run("old", config) / "config.yaml").write_text("beta: 1\n")
    assert resume.newest_unfinished(tmp_path, config) is None
    mine = write_run("day/mine", config, "interrupted")
    write_run("sweeps/one/seed=0", config)
    (tmp_path / "sweeps" / "one" / "jobs.json").touch()
    assert resume.newest_unfinished(tmp_path, make_config("epochs=50")) == mine


def test_another_run_is_never_overwritten_but_one_without_a_checkpoint_is(make_config, write_run):
    folder = write_run("run", make_config())
    resume.prepare_folder(folder, make_config("epochs=50"))
    with pytest.raises(UserError, match="beta: "):
        resume.prepare_folder(folder, make_config("beta=4"))
    assert (folder / "config.yaml").exists()
    folder = write_run("early", make_config(), checkpoint=False)
    for name in ("metrics.jsonl", "events.out.tfevents.1.x", "train.log"):
        (folder / name).touch()
    resume.prepare_folder(folder, make_config("beta=4"))
    assert {path.name for path in folder.iterdir()} == {".hydra", "checkpoints", "train.log"}
    (folder / "config.yaml").write_text("defaults: []\n")
    with pytest.raises(UserError, match="defaults"):  # it is of another program
        resume.prepare_folder(folder, make_config())


def test_readers_need_no_torch():
    names = ", ".join(f"vae_cli.runs.{name}" for name in ("saved", "resume", "files", "interrupt"))
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


BENDING = [["scheduler=cosine"], ["beta_schedule=cyclical"]]


@pytest.mark.parametrize("schedule", BENDING, ids=str)
def test_a_schedule_over_all_epochs_is_bent_only_on_demand(make_config, write_run, schedule):
    begin = make_config("epochs=2", *schedule)
    folder = write_run("run", begin, overrides=["epochs=2", *schedule])
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert resumed(folder, "figures=none").extended == []
    with pytest.raises(UserError, match=f"would bend {schedule[0]}"):
        resumed(folder, "epochs=4")
    after = resumed(folder, "epochs=4", "extend=true")
    assert (after.epochs, after.extended, after.extend) == (4, ["2 of 2"], False)
    resume.prepare_folder(folder, after)  # refuses nothing
    # so it never counts as a run that was planned with four epochs
    planned = make_config("epochs=4", *schedule)
    assert identity(after) != identity(planned)
    assert resume.newest_unfinished(folder.parent, planned) is None
    plain = write_run("plain", make_config("epochs=2"))
    assert resumed(plain, "epochs=4", "extend=true").extended == []
    with pytest.raises(UserError, match="give resume=FOLDER"):
        make_config("extend=true")
