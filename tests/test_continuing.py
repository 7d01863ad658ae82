from dataclasses import replace

import pytest

from vae_cli import cli, continuing
from vae_cli.errors import UserError


def test_a_run_goes_on_from_its_checkpoint(make_config, write_run, tmp_path):
    config = make_config("beta=4")
    folder = write_run(tmp_path / "run", replace(config, log_every=7))
    assert continuing.ready(config, folder) == replace(config, resume=str(folder))
    assert continuing.ready(replace(config, epochs=50), folder).resume == str(folder)


def test_what_a_run_without_a_checkpoint_left_is_removed(make_config, write_run, tmp_path):
    config = make_config()
    folder = write_run(tmp_path / "run", config, checkpoint=False)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "half").touch()
    (folder / "events.out.tfevents.1.x").touch()
    (folder / "train.log").touch()
    assert continuing.ready(config, folder).resume is None
    assert [path.name for path in folder.iterdir()] == ["train.log"]


@pytest.mark.parametrize("override", ["beta=4", "model.latent_dim=3", "epochs=19"])
def test_another_run_is_never_overwritten(make_config, write_run, tmp_path, override):
    folder = write_run(tmp_path / "run", make_config())
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"holds a run with other settings \({key}: "):
        continuing.ready(make_config(override), folder)
    (folder / "config.yaml").write_text("beta: 1\n")
    with pytest.raises(UserError, match="it cannot be read"):
        continuing.ready(make_config(override), folder)


def test_finished_is_completed_with_just_these_settings(make_config, write_run, tmp_path):
    config = make_config()
    run = continuing.held(write_run(tmp_path / "run", config, "completed"))
    assert run.is_finished(replace(config, figures=make_config("figures=none").figures))
    assert not run.is_finished(replace(config, epochs=21))
    assert not continuing.held(write_run(tmp_path / "b", config, "failed")).is_finished(config)


def test_the_newest_unfinished_run_is_found(make_config, write_run, tmp_path):
    config = make_config()
    write_run(tmp_path / "done", config, "completed")
    write_run(tmp_path / "other", make_config("beta=4"))
    assert continuing.newest_unfinished(tmp_path, config) is None
    assert continuing.newest_unfinished(tmp_path / "nowhere", config) is None
    write_run(tmp_path / "day" / "mine", config, "interrupted")
    assert continuing.newest_unfinished(tmp_path, config) == tmp_path / "day" / "mine"
    job = write_run(tmp_path / "sweeps" / "one" / "seed=0", config)
    (job.parent / "jobs.json").touch()
    assert continuing.newest_unfinished(tmp_path, config) == tmp_path / "day" / "mine"


def test_a_damaged_summary_is_no_summary(tmp_path):
    (tmp_path / "summary.json").write_text('{"status": ')
    assert continuing.read_json(tmp_path / "summary.json") == {}
    assert continuing.read_json(tmp_path / "missing.json") == {}


@pytest.mark.parametrize("more", [[], ["epochs=30"]], ids=["the same", "other settings"])
def test_a_folder_that_holds_a_run_is_not_begun_again(
    make_config, write_run, tmp_path, capsys, more
):
    folder = write_run(tmp_path / "run", make_config("dataset=digits"))
    kept = (folder / "config.yaml").read_bytes()
    assert cli.run(["dataset=digits", f"hydra.run.dir={folder}", *more]) == 2
    line = capsys.readouterr().err
    assert f"hydra.run.dir={folder}: holds a run" in line
    assert f"resume={folder}" in line
    assert (folder / "config.yaml").read_bytes() == kept
