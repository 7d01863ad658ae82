import json
import os

import pytest
import yaml

from vae_cli.config.check import as_container
from vae_cli.console import UserError
from vae_cli.runs import saved


def put(folder, text="beta: 1\n", **summary):
    """Leave a run in a folder: its settings as text, its summary if there is one."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_settings_come_back_as_they_were_and_read_no_environment(make_config, tmp_path):
    config = make_config("dataset=digits", "optimizer.lr=1e-5", "ema=0.999")
    config = config.model_copy(update={"data_dir": "${oc.env:HOME}"})
    put(tmp_path / "run", yaml.safe_dump(as_container(config)), status="running")
    run = saved.read_run(tmp_path / "run")
    assert (run.config, run.status) == (config, "running")


def test_a_run_of_an_older_version_lacks_settings_on_which_no_number_depends(make_config, tmp_path):
    plain = as_container(make_config("dataset=digits"))
    for key in ("name", "tags", "quiet"):
        del plain[key]
    put(tmp_path / "2026-01-31" / "12-00-00", yaml.safe_dump(plain))
    (run,) = saved.find_runs(tmp_path)
    assert (run.config.name, run.config.tags, run.config.quiet) == (None, [], False)
    put(tmp_path / "older", yaml.safe_dump({k: v for k, v in plain.items() if k != "beta"}))
    with pytest.raises(UserError, match="beta: must have a value"):
        saved.saved_config(tmp_path / "older")


@pytest.mark.parametrize("text", ["x: !!python/object/apply:os.mkdir [marker]", "[1]", "a: [", ""])
def test_what_is_no_plain_configuration_is_refused_in_a_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^.*config\.yaml.*$"):
        saved.read_run(put(tmp_path / "run", text))
    assert not (tmp_path / "marker").exists()


def test_all_runs_are_found_beside_damaged_ones(tmp_path):
    for name in ("b", "a/deep/one", "c", "a/.hydra", "c/eval"):  # the last inside a run
        put(tmp_path / name)
    put(tmp_path / "a" / "damaged", "a: [")
    skipped = []
    runs = saved.find_runs(tmp_path, skipped)
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == ["a/deep/one", "b", "c"]
    assert ["damaged" in line for line in skipped] == [True]


def test_the_latest_run_is_the_one_completed_last(tmp_path):
    for time, (name, status) in enumerate([("a", "completed"), ("s/b", "completed"), ("c", "x")]):
        os.utime(put(tmp_path / name, status=status) / "summary.json", (time, time))
    assert saved.latest_run(tmp_path) == tmp_path / "s" / "b"
    with pytest.raises(UserError):
        saved.latest_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "tail", [b'{"epoch": 3, "st', b"\0\0", b"[1]\n", b'{"step": 3}\n', b"\xff"]
)
def test_what_was_cut_off_is_left_out(tmp_path, tail):
    assert saved.read_metrics(tmp_path) == []
    lines = [{"epoch": 1, "step": 5}, {"epoch": 2, "step": 9}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_bytes(text.encode() + tail)
    assert saved.read_metrics(tmp_path) == lines
    (tmp_path / "summary.json").write_bytes(tail[:5])
    assert saved.read_summary(tmp_path) == {}


def test_a_run_may_be_named_by_its_best_weights(tmp_path):
    run = put(tmp_path / "run")
    (run / "checkpoints").mkdir()
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "model.safetensors"):
        (run / name).touch()
    for name in ("", "checkpoints/best.ckpt", "model.safetensors"):
        assert saved.folder_of(run / name, *saved.OF_BEST) == run
    last = run / "checkpoints" / "last.ckpt"  # other weights
    assert saved.folder_of(last, *saved.OF_BEST) == last
    with pytest.raises(UserError, match=r"last\.ckpt is not a run folder"):
        saved.read_run(last)
