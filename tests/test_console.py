"""What a terminal of 80 columns shows while a run trains."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

from vae_cli import console

RECORD = {"epoch": 3, "perf/seconds": 1.25} | {
    f"{split}/{name}": number
    for split in ("train", "val")
    for name, number in {"loss": 115.04, "reconstruction": 91.25, "kl": 23.75}.items()
}


def test_the_bar_fits_a_terminal_and_each_epoch_leaves_a_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.Progress(4000, 0, 20, has_kl=True, quiet=False) as bar:
        bar.numbers(3, {"loss": 115.04, "reconstruction": 91.25, "kl": 23.75})
        bar.step(1640)
        bar.bar.refresh()
        text = str(bar.bar)
        assert text.startswith("epoch 3/20 loss 115.0 rec 91.2 kl 23.8 41%")
        assert text.endswith(" left")
        assert len(text) < 80
        bar.epoch(RECORD)
    assert "epoch 3/20  train loss 115.040 (reconstruction 91.250, KL 23.750)  val loss" in (
        capsys.readouterr().err
    )


def test_an_autoencoder_has_no_kl_and_a_quiet_run_no_lines(capsys):
    with console.Progress(40, 0, 20, has_kl=False, quiet=False) as bar:
        bar.numbers(3, RECORD | {"loss": 115.04})
        bar.epoch(RECORD)
    line = "epoch 3/20  train loss 115.040  val loss 115.040  1.2 s\n"
    assert capsys.readouterr().err == line
    with console.Progress(40, 0, 20, has_kl=True, quiet=True) as bar:
        bar.epoch(RECORD)
    assert capsys.readouterr().err == ""


def test_a_file_that_takes_both_streams_gets_no_bar():
    with io.StringIO() as file, redirect_stdout(file), redirect_stderr(file):
        bar = console.Progress(40, 0, 20, has_kl=True, quiet=False)
        bar.step(10)
        assert file.getvalue() == ""


def test_one_is_no_plural():
    assert console.count(1, "epoch") == "1 epoch"
    assert console.count(2000, "step") == "2,000 steps"


def test_a_notebook_shows_a_mistake_in_one_line_and_no_traceback():
    error = console.UserError("beta=-1: must be >= 0")
    assert error._render_traceback_() == ["UserError: beta=-1: must be >= 0"]


def test_in_a_notebook_lines_and_bar_share_standard_output(monkeypatch, capsys):
    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    monkeypatch.setattr(sys, "stdout", OutStream())
    with console.Progress(40, 0, 20, has_kl=True, quiet=False) as bar:
        bar.step(10)
        console.say("a line")
    assert "a line\n" in sys.stdout.getvalue()
    assert "25%" in sys.stdout.getvalue()
    assert capsys.readouterr().err == ""
