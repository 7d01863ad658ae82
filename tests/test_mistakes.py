"""One command line of each kind that cannot work: the setting's name, exit code 2, no folder."""

from pathlib import Path

import numpy as np
import pytest

from vae_cli import cli

# command line, in the folder `place` -> what its line must name
BEFORE_TORCH = [
    # words
    ("betta=4", "betta"),
    ("beta", "beta"),
    ("=3", "=3"),
    ("beta=1,2", "beta=1,2"),
    ("beta=${nowhere}", "nowhere"),
    ("--foo", "--foo"),
    ("--cfg everything", "--cfg"),
    # values: type, range, choice, item of a list, combination
    ("beta=abc", "beta=abc"),
    ("optimizer.lr=-1e-3", "optimizer.lr=-1e-3"),
    ("precision=fp16", "precision=fp16"),
    ("model.hidden_sizes=[4,0]", "model.hidden_sizes=[4,0]"),
    ("model=conv_vae dataset=beta_pdf", "dataset=beta_pdf"),
    ("~beta", "beta"),
    ("dataset=arrays", "dataset.train"),
    # groups
    ("optimizer=adamm", "adam"),
    ("model=null", "model"),
    ("hydra/launcher=nowhere", "hydra/launcher"),
    ("hydra.run.dirr=x", "hydra.run.dirr"),
    # presets and sweeps
    ("experiment=foo", "experiment"),
    ("sweep=beta", "sweep=beta"),
    ("-m beta=1,-2", "beta=-2"),
    ("-m seed=0,1,0", "seed=0"),
    ("-m resume=run beta=1,2", "resume"),
    ("-m", "nothing is swept"),
    ("-m beta=1", "nothing is swept"),
    # YAML of one's own
    ("--config-dir nowhere", "--config-dir"),
    ("--config-name nowhere", "--config-name"),
    ("--config-dir own optimizer=broken", "broken.yaml"),
    # folders
    ("resume=nowhere", "nowhere"),
    ("resume=empty", "empty"),
    ("hydra.run.dir=file.txt/run", "hydra.run.dir"),
    ("dataset=digits hydra.run.dir=run", "hydra.run.dir"),
]

# found when the data is loaded: after the settings, still before any work
BEFORE_WORK = [
    ("dataset=digits figures=none batch_size=9999", "batch_size=9999"),
    ("dataset=digits figures=none device=cuda:97", "device=cuda:97"),
    ("dataset=arrays figures=none dataset.train=nowhere.npy", "nowhere.npy"),
    (
        "dataset=arrays figures=none dataset.train=good.npy likelihood=bernoulli",
        "likelihood=bernoulli",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of every wrong kind."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("empty", "run/checkpoints", "own/optimizer"):
        (folder / name).mkdir(parents=True)
    (folder / "file.txt").write_text("text")
    (folder / "run" / "checkpoints" / "last.ckpt").touch()
    (folder / "own" / "optimizer" / "broken.yaml").write_text("a: [1\nb: }")
    np.save(folder / "good.npy", np.random.default_rng(0).normal(size=(300, 12)))
    return folder


@pytest.mark.parametrize(("line", "name"), BEFORE_TORCH + BEFORE_WORK, ids=lambda text: text[:50])
def test_a_mistake_is_one_line_and_leaves_nothing(line, name, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert cli.run(line.split()) == 2
    output = capsys.readouterr()
    *said, line_of_ours = output.err.splitlines()
    assert output.out == ""
    assert line_of_ours.startswith("vae-train: ")
    assert name in line_of_ours
    assert not said or (line, name) in BEFORE_WORK  # what was read may be said before
    assert sorted(place.rglob("*")) == before
