"""One command line of each kind that cannot work: the setting's name, exit code 2, no folder."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_cli import cli
from vae_cli.config.help import EVAL, REPORT, TRAIN

# command line, in the folder `place` -> what its line must name
BEFORE_TORCH = [
    # words
    ("betta=4", "betta"),
    ("beta", "beta"),
    ("=3", "=3"),
    ("beta=1,2", "beta=1,2"),
    ("beta=${nowhere}", "nowhere"),
    ("--foo", "--foo: no such switch"),
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
    ("hydra/sweeper=optuna", "add -m"),
    ("-m beta=1,-2", "beta=-2"),
    ("-m seed=0,1,0", "seed=0"),
    ("-m resume=run beta=1,2", "resume"),
    ("-m", "nothing is swept"),
    ("-m beta=1", "nothing is swept"),
    ("seed=0,-1 -m beta=1,2", "seed=-1"),
    # YAML of one's own
    ("--config-dir nowhere", "--config-dir"),
    ("--config-name nowhere", "--config-name"),
    ("--config-dir own optimizer=broken", "broken.yaml"),
    # folders
    ("resume=nowhere", "nowhere"),
    ("resume=empty", "empty"),
    ("resume=latest", "resume=latest: no run under"),
    ("hydra.run.dir=file.txt/run", "hydra.run.dir"),
    ("resume=a hydra.run.dir=b", "hydra.run.dir: resume=a goes on in its own folder"),
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


# how a person writes it -> how it is written, or where it is
ANSWERS = {
    # as other programs have it
    "vae-train --beta 4": "--beta 4: write beta=4",
    "vae-train --epochs=3": "--epochs=3: write epochs=3",
    "vae-train --epoch 3": "--epoch 3: write epochs=3",
    "vae-train --batch-size 64": "--batch-size 64: write batch_size=64",
    "vae-train --lr 1e-3": "--lr 1e-3: write optimizer.lr=1e-3",
    "vae-train --learning-rate 1e-3": "--learning-rate 1e-3: write optimizer.lr=1e-3",
    "vae-train --hidden-sizes [9]": "--hidden-sizes [9]: write 'model.hidden_sizes=[9]'",
    "vae-train --model conv_vae": "--model conv_vae: write model=conv_vae",
    "vae-train --dataset digits --quiet": "--dataset digits: write dataset=digits",
    "vae-train --quiet epochs=3": "--quiet: write quiet=…",
    "vae-eval DIR --task nll": "--task nll: write task=nll",
    # words without a key
    "vae-train digits": "digits: cannot be read; write dataset=digits",
    "vae-train beta 4": "beta: cannot be read; write beta=…",
    "vae-train beta:4": "beta:4: cannot be read; write beta=4",
    "vae-train nowhere": "nowhere: cannot be read; it is no folder",
    "vae-eval run=DIR nll": "nll: cannot be read; write task=nll",
    # keys without their group, and names of choices
    "vae-train lr=1e-3": "lr=1e-3: no such setting (did you mean optimizer.lr?)",
    "vae-train bs=64": "bs=64: no such setting (did you mean batch_size or",
    "vae-train latent_dims=2": "latent_dims=2: no such setting (did you mean model.latent_dim?)",
    "vae-train model.lr=1": "model.lr=1: no such setting (did you mean optimizer.lr?)",
    "vae-train path=a dataset=image_folder": "path=a: no such setting (did you mean dataset.path?)",
    "vae-train path=pngs": "path=pngs: no such setting; dataset.path is a setting of"
    " dataset=image_folder",
    "vae-train hidden_sizes=[9] posterior=iaf": "hidden_sizes=[9]: no such setting (did you mean"
    " model.hidden_sizes or posterior.hidden_sizes?)",
    "vae-train dataset.name=digits": "dataset.name=digits: write dataset=digits",
    "vae-train task=nll": "task: no such setting here",
    # settings of another choice
    "vae-train scheduler.gamma=0.9": "scheduler.gamma=0.9: no such setting; scheduler.gamma is"
    " a setting of scheduler=exponential, step, plateau",
    "vae-train model.channels=[9]": "model.channels=[9]: no such setting; model.channels is a"
    " setting of model=conv_vae, conv_ae",
    "vae-train experiment=mlp_vae_20d model=conv_vae": "experiment=mlp_vae_20d: model.hidden_sizes:"
    " no such setting; model.hidden_sizes is a setting of model=ae, mlp_vae",
    "vae-eval run=DIR n=3": "n=3: no such setting; n is a setting of task=sample",
    # a folder of runs, a file of a run
    "vae-train sweep": "resume=PLACE/sweep holds 2 runs; add the name of one: beta=1 'beta=4,a b'",
    "vae-eval sweep": "run=sweep holds 2 runs; add the name of one: beta=1 'beta=4,a b'",
    "vae-eval file.txt": "run=file.txt is not a run folder: it is no folder",
    "vae-report sweep metrics=kl": "metrics=kl: no such setting or folder (did you mean metric?)",
    "vae-report sweep --metrics kl": "--metrics kl: no such switch",
}


@pytest.mark.parametrize(("line", "answer"), ANSWERS.items())
def test_a_mistake_is_answered_with_what_to_write(line, answer, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    command, *arguments = line.split()
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    with pytest.raises(SystemExit) as end:
        {"vae-eval": cli.eval_main, "vae-report": cli.report_main}.get(command, cli.main)()
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"{command}: {answer}".replace("PLACE", str(place)))
    assert line.count("\n") == 1


COMMAND = re.compile(r"^ *vae-(?:train|eval|report) .*|`(?:vae-|[\w.]+=)[^`\n]*`", re.M)


def test_no_command_of_the_documents_is_a_mistake_in_zsh():
    root = Path(__file__).parent.parent
    pages = [path.read_text() for path in (root / "README.md", *root.glob("docs/*.md"))]
    found = [x for text in (*pages, TRAIN, EVAL, REPORT) for x in COMMAND.findall(text)]
    assert len(found) > 100
    for line in found:
        plain = re.sub(r"'[^']*'|\"[^\"]*\"| +#.*|  +\S.*", "", line)  # quotes, meanings
        assert not re.search(r"=\S*[\[\]()*?]|\s[~=]", plain), line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of every wrong kind."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("empty", "run/checkpoints", "own/optimizer"):
        (folder / name).mkdir(parents=True)
    for name in ("beta=1", "beta=4,a b"):
        (folder / "sweep" / name).mkdir(parents=True)
        (folder / "sweep" / name / "config.yaml").write_text("beta: 1")
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
