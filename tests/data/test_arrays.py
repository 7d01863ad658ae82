"""Your own arrays: what each kind of file may hold, and what is refused before it does harm."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from vae_cli import build, cli, load_run, training
from vae_cli.data import array_files, memory
from vae_cli.data.array_files import Unusable, read
from vae_cli.data.arrays import laid_out
from vae_cli.errors import UserError
from vae_cli.schema.datasets import Layout

SOURCE = np.random.default_rng(0)
IMAGES = SOURCE.integers(0, 256, (60, 6, 5), dtype=np.uint8)
CURVES = SOURCE.normal(3, 2, (60, 7))
LABELS = np.arange(60) % 3


@pytest.fixture
def load(make_config, tmp_path):
    """Save arrays as a.npy (one) or a.npz (several) and load them as a dataset."""

    def make(arrays, *settings: str):
        if isinstance(arrays, dict):
            path = tmp_path / "my däta.npz"
            np.savez_compressed(path, **arrays)
        else:
            path = tmp_path / "my däta.npy"
            np.save(path, arrays)
        named = ("dataset=arrays", f"dataset.train='{path}'", "batch_size=4")
        return build.data(make_config(*named, *settings))

    return make


def together(data) -> torch.Tensor:
    parts = [data.train.x, data.test.x] + ([] if data.val is None else [data.val.x])
    return torch.cat(parts)


def rows(x: torch.Tensor) -> list[list[float]]:
    return sorted(x.flatten(1).tolist())


# ----------------------------------------------------------------------------- what can be had


def test_grey_images_stay_bytes_and_are_split(load, capsys):
    data = load(IMAGES)
    assert data.train.x.dtype == torch.uint8
    assert data.shape == (1, 6, 5)
    assert data.curves is None
    assert data.val is not None
    assert [len(s) for s in (data.train, data.val, data.test)] == [49, 5, 6]
    assert rows(together(data)) == rows(torch.from_numpy(IMAGES))
    assert load(IMAGES).test.x.equal(data.test.x)
    assert "60 examples of 1x6x5, values from 0 to 1" in capsys.readouterr().err
    other = load(IMAGES, "dataset.test_size=20", "dataset.val_size=0")
    assert (len(other.train), other.val, len(other.test)) == (40, None, 20)


def test_vectors_are_curves_over_their_index(load):
    data = load(CURVES)
    assert data.shape == (7,)
    assert data.train.x.dtype == torch.float32
    assert data.curves is not None
    assert data.curves.grid.tolist() == list(range(7))
    assert rows(together(data)) == rows(torch.from_numpy(CURVES).float())


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((2, 5), "auto", (2, 5)),
        ((2, 5, 6), "auto", (2, 1, 5, 6)),
        ((2, 3, 8, 9), "auto", (2, 3, 8, 9)),
        ((2, 8, 9, 4), "auto", (2, 4, 8, 9)),
        ((2, 3, 8, 3), "hwc", (2, 3, 3, 8)),
        ((2, 3, 8, 3), "chw", (2, 3, 8, 3)),
        ((2, 7, 8, 9), "chw", (2, 7, 8, 9)),
        ((2, 7, 8, 9), "vector", (2, 504)),
        ((2, 2, 2, 2, 2), "vector", (2, 16)),
    ],
)
def test_layouts(shape, layout, expected):
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    out = laid_out(x, Layout[layout])
    assert tuple(out.shape) == expected
    if layout == "hwc" or shape[-1] == 4:
        assert out[1, 2].equal(x[1, :, :, 2])


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((2, 3, 8, 3), "auto", "channels at either end; say dataset.layout=chw or hwc"),
        ((2, 7, 8, 9), "auto", "channels at neither end"),
        ((2, 5), "chw", r"\[2, 5\]; it must be"),
        ((2,), "auto", r"\[2\]; it must be"),
        ((2, 1, 1, 1, 1), "auto", "or any .* with dataset.layout=vector"),
    ],
)
def test_layouts_that_cannot_be_told(shape, layout, message):
    with pytest.raises(Unusable, match=message):
        laid_out(torch.zeros(shape), Layout[layout])


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "int8", "uint16", "int64"])
def test_numbers_of_any_type_become_float32(load, dtype):
    values = SOURCE.integers(0, 100, (30, 4)).astype(dtype)
    data = load(values)
    assert data.train.x.dtype == torch.float32
    assert rows(together(data)) == rows(torch.from_numpy(values.astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_masks_are_black_and_white(load, dtype):
    mask = (IMAGES > 127).astype(dtype)
    data = load(mask)
    prepared = data.prepare(together(data), torch.Generator())
    assert set(prepared.unique().tolist()) == {0, 1}
    assert rows(prepared) == rows(torch.from_numpy(mask).float())


def test_scaling_is_computed_on_the_training_part(load):
    low = load(CURVES, "dataset.scale=minmax")
    assert low.train.x.amin(0).eq(0).all()
    assert low.train.x.amax(0).eq(1).all()
    standard = load(CURVES, "dataset.scale=standard")
    assert standard.train.x.mean(0).abs().max() < 1e-5
    assert (standard.train.x.std(0, unbiased=False) - 1).abs().max() < 1e-5
    plain = load(CURVES)
    span = plain.train.x.std(0, unbiased=False)
    expected = (plain.test.x - plain.train.x.mean(0)) / span
    assert torch.allclose(standard.test.x, expected, atol=1e-5)
    images = load(np.stack([IMAGES, IMAGES * 0 + 7, IMAGES // 2], 1), "dataset.scale=minmax")
    assert images.train.x.amax((0, 2, 3)).tolist() == [1, 0, 1]


def test_labels_travel_with_their_examples(load):
    data = load({"x": IMAGES, "y": LABELS})
    assert data.class_names == ("0", "1", "2")
    known = {tuple(x.ravel().tolist()): int(y) for x, y in zip(IMAGES, LABELS, strict=True)}
    for split in (data.train, data.val, data.test):
        found = [known[tuple(x.flatten().tolist())] for x in split.x]
        assert found == split.labels.tolist()
    named = load(
        {"pictures": IMAGES, "other": CURVES, "digit": LABELS},
        "dataset.key=pictures",
        "dataset.labels=digit",
    )
    assert named.test.labels.equal(data.test.labels)


def test_safetensors_and_csv_give_what_npy_gives(make_config, tmp_path):
    values = CURVES.astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    save_file({"x": values, "labels": LABELS}, tmp_path / "a.safetensors")
    head = ",".join([f"c{i}" for i in range(7)] + ["Label"])
    table = np.column_stack([values, LABELS])
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", header=head, comments="", fmt="%.9g")
    np.savetxt(tmp_path / "b.csv", values, delimiter=";", fmt="%.9g")
    found = [
        build.data(
            make_config("dataset=arrays", f"dataset.train='{tmp_path / name}'", "batch_size=4")
        )
        for name in ("a.npy", "a.safetensors", "a.csv", "b.csv")
    ]
    for data in found[1:]:
        assert data.train.x.equal(found[0].train.x)
    for data in found[1:3]:
        assert data.train.labels is not None
        assert data.class_names == ("0", "1", "2")
    assert found[1].test.labels.equal(found[2].test.labels)


def test_a_test_file_of_its_own(make_config, tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "b.npy", IMAGES[:9])
    named = ("dataset=arrays", f"dataset.train={tmp_path}/a.npy", "batch_size=4")
    data = build.data(make_config(*named, f"dataset.test={tmp_path}/b.npy"))
    assert data.test.x[:, 0].equal(torch.from_numpy(IMAGES[:9]))
    assert len(data.train) + len(data.val) == 60
    np.save(tmp_path / "b.npy", IMAGES[:9, :, 1:])
    with pytest.raises(UserError, match=r"b.npy: has examples of shape \[1, 6, 4\] and dataset.tr"):
        build.data(make_config(*named, f"dataset.test={tmp_path}/b.npy"))
    np.save(tmp_path / "b.npy", IMAGES[:9] / 255)
    with pytest.raises(UserError, match=r"has numbers of type torch.float32"):
        build.data(make_config(*named, f"dataset.test={tmp_path}/b.npy"))
    with pytest.raises(UserError, match=r"dataset.test_size=3: the test examples come from"):
        make_config(*named, f"dataset.test={tmp_path}/b.npy", "dataset.test_size=3")


def test_the_likelihood_always_works_and_bernoulli_is_refused_where_it_does_not(load):
    assert load(CURVES).name == "arrays"
    with pytest.raises(
        UserError, match=r"likelihood=bernoulli needs data in \[0, 1\].*values from"
    ):
        load(CURVES, "likelihood=bernoulli")
    assert load(IMAGES, "likelihood=bernoulli", "dataset.binarize=dynamic").train
    assert load(CURVES, "likelihood=bernoulli", "dataset.scale=minmax", "dataset.val_size=0").train
    with pytest.raises(UserError, match=r"dataset.binarize=threshold needs data in \[0, 1\]"):
        load(CURVES, "dataset.binarize=threshold")


def test_a_model_that_needs_images_is_told_once_the_file_is_read(load):
    with pytest.raises(UserError, match="model=conv_vae cannot take dataset=arrays: it needs imag"):
        load(CURVES, "model=conv_vae")
    assert load(IMAGES, "model=conv_vae").shape == (1, 6, 5)


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"example 17 \(counted from 0\) has NaN; so have 2 in all"),
        (np.inf, r"example 17 .* has an infinite value"),
        (1e300, r"example 17 .* has an infinite value \(in float32\)"),
    ],
)
def test_what_is_not_finite_is_named_by_its_row(load, value, message):
    values = CURVES.copy()
    values[[17, 40], 3] = value
    with pytest.raises(UserError, match=message):
        load(values)


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", ["npy", "npz", "raw.npy", "safetensors", "csv"])
def test_a_planted_pickle_is_never_run(tmp_path, suffix):
    target, path = tmp_path / "planted", tmp_path / f"a.{suffix}"
    objects = np.array([Planted(target)] * 4, dtype=object)
    if suffix == "npy":
        np.save(path, objects, allow_pickle=True)
    elif suffix == "npz":
        np.savez(path, x=objects)
    else:
        path.write_bytes(pickle.dumps(objects))
    with pytest.raises(Unusable):
        read(path, None, None)
    assert not target.exists()


def header(shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_a_header_that_promises_too_much_is_refused_before_it_costs_anything(tmp_path):
    (tmp_path / "a.npy").write_bytes(header((1 << 40, 128)) + b"\0" * 100)
    with pytest.raises(Unusable, match=r"its header promises 1.0 PiB and it has 0.2 KiB"):
        read(tmp_path / "a.npy", None, None)
    (tmp_path / "a.npy").write_bytes(header((-1, 3)) + b"\0" * 100)
    with pytest.raises(Unusable, match="is damaged"):
        read(tmp_path / "a.npy", None, None)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header((1 << 40, 128)) + b"\0" * 100)
    with pytest.raises(Unusable, match=r"its header promises 1.0 PiB"):
        read(tmp_path / "a.npz", None, None)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000)))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    monkeypatch.setattr(memory, "free", lambda device: 1 << 20)
    with pytest.raises(Unusable, match=r"needs 7.6 MiB of memory and a dataset may take 512.0 KiB"):
        read(tmp_path / "a.npz", None, None)


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_a_truncated_or_flipped_file_is_refused_or_read(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, CURVES)
    elif suffix == "npz":
        np.savez(path, x=CURVES)
    else:
        save_file({"x": CURVES}, path)
    content = path.read_bytes()
    for length in (0, 5, 40, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(Unusable):
            read(path, None, None)
    for where in range(0, 200, 7):
        flipped = bytearray(content)
        flipped[where] ^= 0x55
        path.write_bytes(flipped)
        try:
            read(path, None, None)
        except Unusable as error:
            reason = str(error)
            assert "\n" not in reason.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "has a header line and no rows"),
        ("1,2\n3,x\n", "line 2: 'x' is not a number"),
        ("a,b\n1,2\n\n3,4\n5,6,7\n", "line 5: 3 numbers and 2 in the first line"),
        ("1,2\n3\n", "line 2: 1 numbers and 2"),
        ("a,b,c\n1,2\n3,4\n", "has 3 names in its first line and 2 numbers below"),
        ("1,\n2,3\n", "line 1: '' is not a number"),
    ],
)
def test_a_csv_that_is_not_a_table_is_named_by_its_line(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(Unusable, match=message):
        read(tmp_path / "a.csv", None, None)


def test_a_csv_as_programs_write_it(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"y";"a";"b"\r\n1;2.5;-3e2\r\n\r\n0;"1";2\r\n')
    values, labels = read(tmp_path / "a.csv", None, None)
    assert values.tolist() == [[2.5, -300], [1, 2]]
    assert labels.tolist() == [1, 0]
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(Unusable, match="is not UTF-8 text"):
        read(tmp_path / "a.csv", None, None)


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"a": CURVES, "b": CURVES}, (), r"has several arrays \(a, b\); choose one with dataset.k"),
        ({"a": CURVES}, ("dataset.key=c",), r"has no array 'c' \(dataset.key\) but a"),
        ({"x": CURVES, "y": LABELS[1:]}, (), r"has 60 examples and labels of shape \[59\]"),
        ({"x": CURVES, "y": LABELS + 0.5}, (), "labels that are not whole numbers"),
        ({"x": CURVES, "y": LABELS.astype(str)}, (), "labels that are not whole numbers"),
        ({"x": LABELS.astype(str)}, (), "must hold real numbers"),
        ({"x": CURVES + 1j}, (), "holds complex128 and must hold real numbers"),
        ({"x": CURVES[:0]}, (), "there is nothing in it"),
        (np.zeros(5), (), "it must be"),
        (np.float64(3), (), "there is nothing in it"),
        (CURVES, ("dataset.key=x",), "leave out dataset.key"),
        (CURVES, ("dataset.test_size=60",), "must be less than the 60 examples"),
        (CURVES, ("dataset.val_size=54",), "must be less than the 54 training"),
        (CURVES, ("batch_size=55",), "batch_size=55: must be at most the 49 training"),
    ],
)
def test_what_cannot_be_used_is_explained(load, arrays, settings, message):
    with pytest.raises(UserError, match=message):
        load(arrays, *settings)


def test_every_reader_is_tested():
    assert set(array_files.READERS) == {".npy", ".npz", ".safetensors", ".csv"}


SETTINGS = [
    ("", "dataset.train: must have a value"),
    ("dataset.train=a dataset.layout=nchw", "must be one of auto, chw, hwc, vector"),
    ("dataset.train=a dataset.scale=max", "must be one of none, minmax, standard"),
    ("dataset.train=a dataset.test=b dataset.test_size=3", "give one of the two"),
    ("dataset.train=a dataset.val_size=-1", "dataset.val_size=-1: must be >= 0"),
    ("dataset.train=a dataset.tset=b", "dataset.tset=b: no such setting (did you mean test?)"),
]


@pytest.mark.parametrize(("line", "expected"), SETTINGS, ids=[line for line, _ in SETTINGS])
def test_a_wrong_setting_is_one_clear_line(tmp_path, monkeypatch, capsys, line, expected):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["dataset=arrays", *line.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("vae-train: ")
    assert expected in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.npy", "nowhere.npy: no such file"),
        ("a.mat", "must be one of .npy, .npz, .safetensors, .csv"),
        ("folder.npy", "no such file"),
    ],
)
def test_a_file_that_does_not_do_is_explained(make_config, tmp_path, name, message):
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UserError, match=message):
        build.data(make_config("dataset=arrays", f"dataset.train={tmp_path}/{name}"))


@pytest.mark.parametrize("values", [IMAGES, CURVES])
def test_models_train_on_arrays(make_config, tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    settings = ["epochs=1", "batch_size=9", "model.latent_dim=2", "figures=none"]
    config = make_config("dataset=arrays", f"dataset.train={tmp_path}/a.npy", *settings)
    training.train(config, tmp_path / "run")
    assert load_run(tmp_path / "run").sample(3).shape[0] == 3
