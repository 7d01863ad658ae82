"""docs/extending.md is true: its files and commands, taken from the page, work as it says."""

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vae_cli import cli, load_run
from vae_cli.config.compose import settings_of
from vae_cli.config.plugins import load_plugins
from vae_cli.console import UserError
from vae_cli.runs.saved import read_metrics, read_summary
from vae_cli.vae.objectives import Weight

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
PLUG_IN = PAGE.partition("## What each kind")[0]
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)```", PLUG_IN, re.MULTILINE | re.DOTALL))
BLOCKS = [text.splitlines() for text in re.findall(r"```bash\n(.*?)```", PLUG_IN, re.DOTALL)]
PYTHON = PLUG_IN.partition("In Python:\n\n```python\n")[2].partition("```")[0]
QUICK = ["figures=none", "image_every=0"]


@pytest.fixture
def page(forget, tmp_path):
    """The files of the page in the current folder, which no command has in its path by itself."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_train_resume_measure_export_and_load(page, forget, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    commands = {"vae-train": cli.main, "vae-eval": cli.eval_main}
    for line in BLOCKS[0]:
        forget()
        name, *words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", [name, *words, *QUICK * (name == "vae-train")])
        with pytest.raises(SystemExit) as end:
            commands[name]()
        assert end.value.code == 0, capsys.readouterr().err
    assert [line["epoch"] for line in read_metrics(Path("outputs/one"))] == [1, 2, 3]
    notes = Path("outputs/one/notes.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in notes] == ["epoch 1", "epoch 2", "epoch 3"]
    assert {path.name for path in Path("outputs/one/eval").glob("*.pt2")} == {
        "encoder.pt2",
        "decoder.pt2",
    }
    forget()
    with pytest.raises(UserError, match=r"outputs/one needs plugins=my_vae: model\.name=residual"):
        load_run("outputs/one")
    exec(PYTHON, {})  # of our own page


def test_a_sweep_imports_the_plug_in_in_each_of_two_workers(
    page, vae_train, forget, monkeypatch, capsys
):
    if find_spec("joblib") is None:
        pytest.skip("the extra joblib is not installed")
    sweep, report = (shlex.split(line) for line in BLOCKS[1])
    # safe path: python -m looks in the current folder only for plug-ins, as vae-train does
    environment = {"PYTHONWARNINGS": "", "PYTHONSAFEPATH": "1"}
    done = vae_train(*sweep[1:], *QUICK, **environment)
    assert done.returncode == 0, done.stderr
    runs = [page / "outputs" / "alphas" / f"objective.alpha={alpha}" for alpha in ("0", "0.9")]
    for run in runs:
        assert read_summary(run)["status"] == "completed"
        assert (run / "console.log").exists()  # it was trained in a worker
    assert (page / "outputs" / "alphas" / "figures" / "reconstructions_by_alpha.png").exists()
    for words, warnings in ((["outputs/alphas"], 2), (report[1:], 0)):
        forget()
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["vae-report", *words])
        with pytest.raises(SystemExit) as end:
            cli.report_main()
        out = capsys.readouterr().out
        assert end.value.code == 0
        assert "2 of 2 runs completed; best val/elbo" in out
        assert out.count("needs plugins=my_vae") == warnings  # samples and reconstructions


def test_the_objective_is_that_of_the_paper(page):
    load_plugins("my_vae")
    config = settings_of("config", ["objective=renyi", "objective.alpha=0.3"])
    weights = torch.linspace(-3, 2, 12, dtype=torch.float64).view(4, 3)  # log w [K, B]
    drawn = SimpleNamespace(log_likelihood=weights / 3, log_ratio=weights * 2 / 3)
    drawn.kl = SimpleNamespace(total=-drawn.log_ratio.mean(0))
    found = config.objective.build(2)(drawn, Weight(torch.tensor(1.0), torch.tensor(0.0)))
    bound = (weights.exp() ** 0.7).mean(0).log() / 0.7  # Li & Turner 2016
    torch.testing.assert_close(found.loss, -bound.mean())
