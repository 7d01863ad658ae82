"""Training from Python: the settings, the errors and the folders of the command, and no traces."""

import logging
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import vae_cli
from vae_cli.runs.resume import saved_overrides
from vae_cli.sweeps import calls
from vae_cli.training import loop

TINY = ("dataset=digits", "epochs=1", "batch_size=256", "figures=none", "image_every=0")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_keywords_are_settings_as_they_are_typed():
    keywords = {"model": {"latent_dim": 2}, "beta": np.float32(0.5), "data_dir": Path("a b")}
    keywords |= {"ema": None, "quiet": True, "interpolate": [1, "cat"], "seed": range(2)}
    assert calls._typed(("dataset=digits",), keywords) == [
        "dataset=digits",
        "model.latent_dim=2",
        "beta=0.5",
        "data_dir=a b",
        "ema=null",
        "quiet=true",
        'interpolate=[1, "cat"]',
        "seed=0,1",
    ]


def test_a_run_is_trained_where_the_command_trains_it_and_loaded(tmp_path, capsys):
    run = vae_cli.train(*TINY, "beta=4", model={"latent_dim": 3})
    assert (run.config.beta, run.config.epochs, run.vae.latent_dim) == (4, 1, 3)
    assert run.folder.relative_to(tmp_path).parts[0] == "outputs"
    assert str(run.folder) in capsys.readouterr().out
    assert saved_overrides(run.folder) == [*TINY, "beta=4", "model.latent_dim=3"]
    assert vae_cli.latest_run(Path("outputs")).samefile(run.folder)


@pytest.mark.parametrize(
    ("call", "settings", "line"),
    [
        (vae_cli.train, {"beta": -1}, "beta=-1: must be >= 0"),
        (vae_cli.train, {"bta": 1}, "bta=1: no such setting (did you mean beta?)"),
        (vae_cli.train, {"beta": (1, 4)}, "beta=1,4: several values"),
        (vae_cli.train, {"dry_run": True}, "dry_run=true leaves no run"),
        (vae_cli.sweep, {"beta": (1, -4)}, "job 2 (beta=-4): beta=-4: must be >= 0"),
    ],
)
def test_a_mistake_is_a_line_and_no_folder(tmp_path, call, settings, line):
    with pytest.raises(vae_cli.UserError) as error:
        call(**settings)
    assert str(error.value).startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [vae_cli.RunFailed, ZeroDivisionError])
def test_what_ends_a_run_is_raised_and_logged(monkeypatch, tmp_path, kind):
    def train(*arguments) -> None:
        raise kind("it ends here")

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(kind, match="it ends here"):
        vae_cli.train(*TINY)
    (log,) = tmp_path.rglob("train.log")
    assert "it ends here" in log.read_text()


def test_ctrl_c_keeps_a_checkpoint_to_go_on_from(monkeypatch):
    record = loop.Training.epoch_record

    def press_ctrl_c(training):
        signal.raise_signal(signal.SIGINT)
        return record(training)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Training, "epoch_record", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt, match=r"1 of 2 epochs .* are kept") as stop:
            vae_cli.train(*TINY, epochs=2)
    folder = str(stop.value).rpartition("resume=")[2]
    assert vae_cli.train(resume=folder).epoch == 2


def test_a_sweep_is_a_table_with_failures_in_it(monkeypatch):
    train = loop.train

    def fragile(config, *arguments) -> None:
        if config.beta == 4:
            raise vae_cli.RunFailed("the loss is not finite")
        train(config, *arguments)

    monkeypatch.setattr(loop, "train", fragile)
    table = vae_cli.sweep(*TINY, beta=(1, 4))
    # the failed run has written no files here
    assert table["status"].tolist() == ["completed"]
    assert vae_cli.load_run(table["folder"][0]).config.beta == 1


def test_the_process_is_afterwards_as_it_was():
    log, handler = logging.getLogger(), logging.StreamHandler()
    log.addHandler(handler)

    def state() -> list[object]:
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        torch_s = [torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()]
        torch_s += [torch.get_rng_state().tolist(), (torch.tensor(2e-38) / 4).item()]
        logs = [log.handlers[:], log.level, logging.raiseExceptions, warnings.showwarning]
        caller = [GlobalHydra.instance().hydra, sys.argv[:], Path.cwd()]
        return [*map(signal.getsignal, numbers), *torch_s, *logs, *caller]

    try:
        with hydra.initialize(None, version_base="1.3"):  # a notebook's own
            before = state()
            vae_cli.train(*TINY, deterministic=True)
            vae_cli.train(*TINY)
            assert state() == before
    finally:
        log.removeHandler(handler)


def test_results_are_read_without_hydra(tmp_path, trained):
    folder = trained(*TINY)
    code = (
        "import sys; sys.modules['hydra'] = sys.modules['omegaconf'] = None  # no import of these\n"
        "import vae_cli, pathlib; folder = pathlib.Path(sys.argv[1])\n"
        "assert 'torch' not in sys.modules\n"
        "assert len(vae_cli.load_sweep(folder)) == 1\n"
        "assert vae_cli.latest_run(folder) == folder\n"
        "run = vae_cli.load_run(folder)\n"
        "run.log_likelihood(run.data().test.x[:2], 3), run.codes, run.sample(2)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == 0
