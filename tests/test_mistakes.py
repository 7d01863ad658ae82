"""More command lines that cannot work, in a folder with files of every wrong kind.

Those of test_cli.py need nothing but the line; these need a place with data, runs and YAML.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_cli import cli

LONG = "x" * 300  # more than a file system takes

# command line in the folder of `place` -> what its one line must contain
LINES = [
    # types and ranges
    ("epochs=ten", "epochs=ten: must be a whole number"),
    ("epochs=null", "epochs=null: must have a value"),
    ("epochs=true", "epochs=true"),
    ("epochs=[1]", "epochs=[1]"),
    ("epochs=-1", "epochs=-1: must be >= 1"),
    ("batch_size=0", "batch_size=0: must be >= 1"),
    ("batch_size=1e3", "batch_size=1e3: must be a whole number"),
    ("seed=0.5", "seed=0.5: must be a whole number"),
    ("beta=inf", "beta=inf: must be a finite number"),
    ("beta=[1,2]", "beta=[1,2]"),
    ("beta=true", "beta=true"),
    ("grad_clip=0", "grad_clip=0: must be > 0"),
    ("ema=0", "ema=0: must be > 0"),
    ("patience=0", "patience=0: must be >= 1"),
    ("log_every=0", "log_every=0: must be >= 1"),
    ("image_every=-1", "image_every=-1: must be >= 0"),
    ("manifold_size=1", "manifold_size=1: must be >= 2"),
    ("manifold_range=[1]", "manifold_range=[1.0]: needs at least 2 item"),
    ("manifold_range=[2,1]", "must be two numbers, the lower one first"),
    ("interpolate=[1]", "interpolate=[1]: needs at least 2 item"),
    ("interpolate=[1,-1]", "interpolate=[1, -1]: each must be >= 0"),
    ("figures=all", "figures=all: must be one of auto, none"),
    ("deterministic=sure", "deterministic=sure: must be true or false"),
    ("dry_run=x", "dry_run=x: must be true or false"),
    ("device=cuda:x", "device=cuda:x: must be auto, cpu, cuda, cuda:N or mps"),
    ("device=", "device=: must be auto, cpu"),
    ("monitor=loss", "monitor=loss: must be one of val/elbo"),
    ("model.latent_dim=0", "model.latent_dim=0: must be >= 1"),
    ("model.latent_dim=two", "model.latent_dim=two: must be a whole number"),
    ("optimizer.lr=fast", "optimizer.lr=fast: must be a number"),
    ("optimizer.lr=nan", "optimizer.lr=nan: must be a finite number"),
    ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1: must be >= 0"),
    ("dataset=digits dataset.size=0", "dataset.size=0: must be >= 2"),
    ("dataset=digits dataset.val_size=-1", "dataset.val_size=-1: must be >= 0"),
    ("dataset=digits dataset.binarize=maybe", "dataset.binarize=maybe: must be one of"),
    # unknown keys and groups
    ("epoch=3", "epoch=3: no such setting (did you mean epochs?)"),
    ("lr=0.1", "lr=0.1: no such setting"),
    ("model.latent=3", "model.latent=3: no such setting (did you mean latent_dim?)"),
    ("optimizer.learning_rate=1", "optimizer.learning_rate=1: no such setting"),
    ("model=vae", "model=vae: no such model"),
    ("likelihood=bernouli", "likelihood=bernouli: no such likelihood (did you mean bernoulli?)"),
    ("objective=elbow", "objective=elbow: no such objective (did you mean elbo?)"),
    ("scheduler=cosin", "scheduler=cosin: no such scheduler (did you mean cosine?)"),
    ("penalty=l1", "penalty=l1: no such penalty"),
    ("corruption=noise", "corruption=noise: no such corruption"),
    ("beta_schedule=linear", "beta_schedule=linear: no such beta_schedule"),
    ("experiment=vae_3d", "experiment=vae_3d: no such experiment (did you mean vae_2d?)"),
    ("hydra.job.chdirr=true", "hydra.job.chdirr=true"),
    # words that are no settings
    ("=3", "=3: cannot be read"),
    ("a b", "a: cannot be read"),
    ("beta=$(rm)", "beta=$(rm)"),
    ("beta=${", "beta=${: cannot be read"),
    ("beta=${oc.env:NOWHERE}", "beta=${oc.env:NOWHERE}"),
    ("beta=${nowhere}", "beta=${nowhere}"),
    ("beta=${beta}", "beta=${beta}"),
    ("beta=1,", "beta=1,"),
    ("--multirun=3", "--multirun"),
    ("--config-name=../secret", "--config-name ../secret: no such file"),
    ("--config-dir=broken --config-name=list", "list"),
    ("--config-path /nowhere", "--config-path /nowhere: use --config-dir"),
    ("--experimental-rerun config.pickle", "loads a pickle, which can run code"),
    # YAML of one's own
    ("--config-dir=broken optimizer=syntax", "not valid YAML"),
    ("--config-dir=broken optimizer=binary", "not valid YAML"),
    ("--config-dir=broken optimizer=object", "not valid YAML"),
    ("--config-dir=broken optimizer=unknown", "optimizer.lrr: no such setting (did you mean lr?)"),
    ("--config-dir=broken optimizer=range", "optimizer.lr=-1: must be > 0"),
    ("--config-dir=broken optimizer=twice", "twice"),
    ("--config-dir=broken optimizer=circle", "includes itself"),
    ("--config-dir=file.txt", "--config-dir file.txt: no such folder"),
    # resuming what cannot be resumed
    ("resume=file.txt", "file.txt: no such folder"),
    ("resume=empty", "not a run folder (it has no config.yaml)"),
    ("resume=unborn", "there is no checkpoints/last.ckpt to go on from"),
    ("resume=brokenrun", "config.yaml cannot be read"),
    ("resume=listrun", "is not a configuration of vae-train"),
    ("resume=foreign", "no such"),
    ("resume=resume=x", "resume=resume=x: cannot be read"),
    (f"resume={LONG}", "cannot be read: File name too long"),
    ("resume=[a]", "resume="),
    # data
    ("dataset=arrays", "dataset.train"),
    ("dataset=image_folder", "dataset.path"),
]

# found when the data is loaded: after the settings, still before any work
DATA_LINES = [
    ("dataset=digits batch_size=9999", "batch_size=9999: must be at most the 1,300 training"),
    ("dataset=digits dataset.test_size=1797", "dataset.test_size=1797: must be less than"),
    ("dataset=digits dataset.val_size=1500", "dataset.val_size=1500"),
    ("dataset=digits device=cuda:97", "device=cuda:97: this machine has"),
    ("dataset=arrays dataset.train=nowhere.npy", "nowhere.npy: no such file"),
    ("dataset=arrays dataset.train=empty", "dataset.train=empty"),
    ("dataset=arrays dataset.train=file.txt", "file.txt: must be one of .npy"),
    ("dataset=arrays dataset.train=nan.npy", "nan.npy"),
    ("dataset=arrays dataset.train=objects.npy", "holds Python objects, which are never loaded"),
    ("dataset=arrays dataset.train=cut.npy", "is damaged"),
    ("dataset=arrays dataset.train=text.npy", "is not in NumPy's format"),
    ("dataset=arrays dataset.train=none.npy", "there is nothing in it"),
    ("dataset=arrays dataset.train=good.npy dataset.key=z", "leave out dataset.key"),
    ("dataset=arrays dataset.train=good.npy likelihood=bernoulli", "needs data in [0, 1]"),
    ("dataset=arrays dataset.train=good.npy model=conv_vae", "use model=mlp_vae or model=ae"),
    ("dataset=image_folder dataset.path=nowhere", "dataset.path=nowhere: no such folder"),
    ("dataset=image_folder dataset.path=file.txt", "dataset.path=file.txt: not a folder"),
    ("dataset=image_folder dataset.path=empty", "there are no images"),
    ("dataset=image_folder dataset.path=images", "0 of 3 files in it are sound images"),
    ("dataset=image_folder dataset.path='größe ü'", "1 of 1 files in it are sound images"),
    (f"dataset=image_folder dataset.path={LONG}", "dataset.path=x"),
    (f"dataset=arrays dataset.train={LONG}.npy", "File name too long"),
    (f"dataset=mnist data_dir={LONG}", "File name too long"),
    ("dataset=mnist data_dir=file.txt", "data_dir=file.txt: cannot keep MNIST there"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name in ("empty", "images", "größe ü", "unborn", "brokenrun", "listrun", "foreign"):
        (folder / name).mkdir()
    (folder / "file.txt").write_text("text")
    (folder / "unborn" / "config.yaml").write_text("beta: 1\n")
    for name, text in (("brokenrun", "beta: [1"), ("listrun", "- 1"), ("foreign", "a: {b: 1}")):
        (folder / name / "checkpoints").mkdir()
        (folder / name / "checkpoints" / "last.ckpt").touch()
        (folder / name / "config.yaml").write_text(text)
    own = folder / "broken" / "optimizer"
    own.mkdir(parents=True)
    (folder / "broken" / "list.yaml").write_text("- 1\n")
    adam = "defaults: [adam, _self_]\n"
    for name, content in {
        "syntax": b"a: [1\nb: }",
        "binary": b"\x00\xff\xfe\x00",
        "object": b"a: !!python/object/apply:os.system ['true']",
        "unknown": f"{adam}lrr: 1\n".encode(),
        "range": f"{adam}lr: -1\n".encode(),
        "twice": f"{adam}lr: 1\nlr: 2\n".encode(),
        "circle": b"defaults: [circle]\n",
    }.items():
        (own / f"{name}.yaml").write_bytes(content)
    values = np.random.default_rng(0).normal(size=(300, 12))
    np.save(folder / "good.npy", values)
    np.save(folder / "nan.npy", np.where(values > 2, np.nan, values))
    np.save(folder / "none.npy", values[:0])
    np.save(folder / "objects.npy", np.array([{}] * 9, dtype=object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:-9])
    (folder / "text.npy").write_text("1,2,3\n")
    for i, content in enumerate((b"", b"text", b"\x89PNG\r\n\x1a\n")):
        (folder / "images" / f"{i}.png").write_bytes(content)
    picture = io.BytesIO()
    Image.new("L", (9, 9)).save(picture, "png")
    (folder / "größe ü" / "ä b.png").write_bytes(picture.getvalue())
    return folder


def arguments(line: str) -> list[str]:
    """Words, those in quotes together with their quotes, as a shell hands them over."""
    words: list[str] = []
    for word in line.split(" "):
        if words and words[-1].count("'") == 1:
            words[-1] += " " + word
        else:
            words.append(word)
    return words


@pytest.mark.parametrize(
    ("line", "expected"), LINES + DATA_LINES, ids=[line[:60] for line, _ in LINES + DATA_LINES]
)
def test_a_mistake_is_one_line_and_leaves_nothing(line, expected, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    code = cli.run(arguments(line))
    captured = capsys.readouterr()
    ours = [text for text in captured.err.splitlines() if text.startswith("vae-train: ")]
    assert code == 2, captured.err
    assert captured.out == ""
    assert expected in ours[0]
    assert len(ours[0]) < 800
    if (line, expected) in LINES:
        assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert [p for p in sorted(place.rglob("*")) if p.name != "outputs"] == before
    if (place / "outputs").exists():
        assert not any(path.is_file() for path in (place / "outputs").rglob("*"))
        for path in sorted((place / "outputs").rglob("*"), reverse=True):
            path.rmdir()
        os.rmdir(place / "outputs")


def test_there_are_at_least_a_hundred():
    from tests import test_cli

    lines = {line for line, _ in LINES + DATA_LINES} | {line for line, _ in test_cli.MISTAKES}
    assert len(lines) >= 150
