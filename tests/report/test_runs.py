"""What is found below a folder, and what is named and skipped."""

import json
import os

import pytest

from vae_cli.errors import UserError
from vae_cli.report.reading import LARGEST, Unreadable
from vae_cli.report.runs import collect, read_run


def found(*roots):
    runs, skipped = collect(list(roots))
    return [run.name for run in runs], {item.name: item.reason for item in skipped}


def test_runs_are_found_at_any_depth_each_once(tmp_path, write_run):
    write_run(tmp_path / "a" / "b" / "c")
    write_run(tmp_path / "d")
    assert found(tmp_path) == (["a/b/c", "d"], {})
    names, _ = found(tmp_path, tmp_path / "a", tmp_path / "d")
    assert names == [str(tmp_path / "a/b/c"), str(tmp_path / "d")]
    assert found(tmp_path / "d") == ([str(tmp_path / "d")], {})


def test_a_run_folder_is_read_whole(tmp_path, write_run, measured):
    folder = write_run(tmp_path / "run", measured(2, 20), overrides=("beta=2",), beta=2.0, seed=3)
    run = read_run(folder)
    assert (run.status, run.epochs, run.seconds, run.error) == ("completed", 4, 1.5, "")
    assert (run.settings["beta"], run.settings["model.latent_dim"]) == (2.0, 8)
    assert run.metrics["test/elbo"] == -22
    assert run.overrides == ("beta=2",)
    assert run.how_far == "completed"


def test_a_run_that_has_not_ended_has_its_last_whole_epoch(sweep_folder):
    run = read_run(sweep_folder / "beta=4,seed=1")
    assert run.metrics == {"val/elbo": -29.0}
    assert run.how_far == "interrupted, 2/4"


def test_a_run_without_a_summary_is_running(tmp_path, write_run):
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    assert read_run(folder).how_far == "running, 0/4"


def test_a_job_that_did_not_begin_stands_with_its_error(tmp_path, write_run):
    folder = write_run(tmp_path / "job", beta=3.0)
    (folder / "config.yaml").rename(folder / ".hydra" / "config.yaml")
    (folder / "summary.json").unlink()
    log = "[2026-01-01 00:00:00,000][vae_cli.cli][ERROR] - data_dir=/x: cannot be written\n"
    (folder / "train.log").write_text(log)
    run = read_run(folder)
    assert (run.status, run.error) == ("failed", "data_dir=/x: cannot be written")
    assert run.settings["beta"] == 3.0


def test_settings_still_to_be_resolved_are_left_out(tmp_path, write_run):
    folder = write_run(tmp_path / "run", model__latent_dim="${oc.env:HOME}")
    assert "model.latent_dim" not in read_run(folder).settings


DAMAGE = [
    ("summary.json", b'{"status": "compl', "summary.json cannot be read"),
    ("summary.json", b"[1, 2]", "summary.json is not a summary"),
    ("summary.json", b'{"status": "done\\u001b"}', "no status of ours: done\\x1b"),
    ("summary.json", b"\xff\xfe", "summary.json cannot be read"),
    ("summary.json", b"[" * 100_000, "summary.json cannot be read"),
    ("config.yaml", b"beta: [1", "config.yaml cannot be read"),
    ("config.yaml", b"name: other\n", "not a configuration of vae-train"),
    ("config.yaml", b"!!python/object/apply:os.system ['touch pwned']", "cannot be read"),
    ("config.yaml", b"", "not a configuration of vae-train"),
]


@pytest.mark.parametrize(("name", "content", "reason"), DAMAGE, ids=[d[2] for d in DAMAGE])
def test_a_damaged_run_is_named_and_the_others_are_read(tmp_path, name, content, reason, write_run):
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad") / name).write_bytes(content)
    names, skipped = found(tmp_path)
    assert names == ["good"]
    assert list(skipped) == ["bad"]
    assert reason in skipped["bad"]
    assert not (tmp_path / "pwned").exists()


def test_a_huge_file_is_not_read(tmp_path, write_run):
    folder = write_run(tmp_path / "run")
    with (folder / "summary.json").open("r+b") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(Unreadable, match="larger than 16 MiB"):
        read_run(folder)


def test_yaml_that_unfolds_is_refused(tmp_path, write_run):
    folder = write_run(tmp_path / "run")
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"{text}l0: &l0 [x]\n{levels}")
    with pytest.raises(Unreadable, match="more than 1000 values"):
        read_run(folder)


def test_links_that_lead_out_are_left_alone(tmp_path, write_run):
    secret = tmp_path / "outside"
    write_run(secret / "run")
    inside = tmp_path / "inside"
    folder = write_run(inside / "run")
    (inside / "link").symlink_to(secret)
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(secret / "run" / "config.yaml")
    write_run(inside / "good")
    names, skipped = found(inside)
    assert names == ["good"]
    assert "a link that leads out" in skipped["run"]


def test_a_pipe_is_no_run(tmp_path):
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / "config.yaml")
    with pytest.raises(UserError, match="no run in it"):
        collect([tmp_path])


def test_numbers_that_are_none_are_left_out(tmp_path, write_run, measured):
    metrics = {"test/kl": float("nan"), "test/elbo": float("inf"), "test/loss": True, "test/x": "1"}
    folder = write_run(tmp_path / "run", {**measured(1, 2), **metrics})
    run = read_run(folder)
    assert set(run.metrics) == {"train/loss", "val/elbo", "test/reconstruction",
                                "test/active_units"}  # fmt: skip


def test_names_cannot_command_a_terminal(tmp_path, write_run):
    write_run(tmp_path / "a\x1b[31m\nb", error="x\x1b]0;y\x07")
    write_run(tmp_path / os.fsdecode(b"\xff"))
    runs, _ = collect([tmp_path])
    assert all(run.name.isprintable() and run.error.isprintable() for run in runs)
    json.dumps([run.name for run in runs]).encode()
    assert [run.name.encode() for run in runs]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no run in it or below"):
        collect([tmp_path])
