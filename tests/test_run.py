import contextlib
import errno
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vae_cli import cli
from vae_cli import run as run_module
from vae_cli.errors import RunFailed
from vae_cli.run import Run, read_metrics, read_summary


@pytest.fixture
def config(make_config):
    return make_config("dataset=digits", "figures=none")


def full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_line_that_could_not_be_written_follows_when_there_is_room(
    config, tmp_path, monkeypatch, capsys
):
    run = Run(tmp_path, config)
    run.log_epoch({"epoch": 1, "step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        patch.setattr(run_module, "write_text", full)
        for epoch in (2, 3):
            run.log_epoch({"epoch": epoch, "step": epoch})
    said = capsys.readouterr().err
    assert said.count("metrics.jsonl cannot be written: No space left on device") == 1
    assert said.count("TensorBoard's event file cannot be written") == 1
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1]
    run.log_epoch({"epoch": 4, "step": 4})
    run.close("completed")
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert "not whole" not in capsys.readouterr().err


def test_a_summary_that_cannot_be_written_is_said_once(config, tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, config)
    monkeypatch.setattr(run_module, "write_json", full)
    run.write_summary(device="cpu")
    run.close("completed")
    said = capsys.readouterr().err
    assert said.count("summary.json cannot be written") == 1
    assert f"not whole in {tmp_path}: summary.json" in said


def test_a_folder_that_cannot_be_written_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "write_text", full)
    with pytest.raises(RunFailed, match="folder cannot be written: No space left on device"):
        Run(tmp_path, config)


@pytest.mark.parametrize("tail", ['{"epoch": 3, "st', "\x00\x00", "[1, 2]\n", '{"step": 3}\n'])
def test_a_cut_line_is_dropped_and_missing_epochs_are_named(config, tmp_path, capsys, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "step": 5}\n{"epoch": 2, "step": 9}\n' + tail)
    resumed = replace(config, resume=str(tmp_path))
    Run(tmp_path, resumed, epoch=1, step=5).close("interrupted")
    assert path.read_text() == '{"epoch": 1, "step": 5}\n'
    assert "no line for epoch" not in capsys.readouterr().err
    Run(tmp_path, resumed, epoch=3, step=15).close("interrupted")
    assert "metrics.jsonl has no line for epoch 2, 3" in capsys.readouterr().err


def test_what_a_kill_left_half_written_is_removed(config, tmp_path):
    Run(tmp_path, config).close("interrupted")
    left = tmp_path / "checkpoints" / f".last.ckpt.{'0' * 32}.tmp"
    theirs = tmp_path / ".mine.tmp"
    for path in (left, theirs):
        path.touch()
    Run(tmp_path, replace(config, resume=str(tmp_path))).close("interrupted")
    assert not left.exists()
    assert theirs.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_a_damaged_summary_is_none(tmp_path, content):
    (tmp_path / "summary.json").write_bytes(content.encode(errors="surrogateescape"))
    assert read_summary(tmp_path) == {}


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capsys):
    handler = logging.FileHandler("/dev/full")
    logger = logging.getLogger()
    before = logger.handlers[:]
    logger.handlers[:] = [handler]
    try:
        cli._say_once_where_the_log_fails()
        for _ in range(3):
            logging.getLogger("x").warning("a line")
    finally:
        logger.handlers[:] = before
        with contextlib.suppress(OSError):
            handler.close()
    assert capsys.readouterr().err == (
        "warning: train.log cannot be written: [Errno 28] No space left on device;"
        " training goes on\n"
    )
