"""Your own arrays: what each kind of file may hold, and what is refused with the file's name."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vae_cli.console import UserError
from vae_cli.data.arrays import laid_out

SOURCE = np.random.default_rng(0)
IMAGES = SOURCE.integers(0, 256, (60, 6, 5), dtype=np.uint8)
CURVES = SOURCE.normal(3, 2, (60, 7))
LABELS = np.arange(60) % 3


@pytest.fixture
def arrays(load, tmp_path):
    """Save an array, several by name, or the text of a .csv; or take a file. Load it."""

    def make(source: Any, **settings: Any):
        path = source if isinstance(source, Path) else tmp_path / "my däta.npz"
        if isinstance(source, str):
            path = tmp_path / "a.csv"
            path.write_text(source)
        elif path is not source:
            np.savez_compressed(path, **(source if isinstance(source, dict) else {"x": source}))
        return load("arrays", train=str(path), **settings)

    return make


def rows(data) -> list[list[float]]:
    return sorted(torch.cat([data.train.x, data.val.x, data.test.x]).flatten(1).tolist())


def test_grey_images_stay_bytes_and_are_split(arrays, capsys):
    data = arrays(IMAGES)
    assert (data.train.x.dtype, data.shape, data.curves) == (torch.uint8, (1, 6, 5), None)
    assert [len(s) for s in (data.train, data.val, data.test)] == [49, 5, 6]
    assert rows(data) == sorted(IMAGES.reshape(60, -1).tolist())
    assert "60 examples of 1x6x5, values from 0 to 1" in capsys.readouterr().err
    for dtype in (np.uint8, np.bool_):
        mask = arrays((IMAGES > 127).astype(dtype), test_size=20, val_size=0)
        assert (len(mask.train), mask.val, len(mask.test)) == (40, None, 20)
        assert mask.prepare(mask.train.x, torch.Generator()).unique().tolist() == [0, 1]


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "int8", "uint16", "int64"])
def test_vectors_of_any_type_are_curves_in_float32(arrays, dtype):
    values = (CURVES * 10).astype(dtype)
    data = arrays(values)
    assert (data.train.x.dtype, data.shape) == (torch.float32, (7,))
    assert rows(data) == sorted(values.astype(np.float32).tolist())


def test_layouts():
    for layout, shape, expected in (
        ("auto", (2, 5), (2, 5)),
        ("auto", (2, 5, 6), (2, 1, 5, 6)),
        ("auto", (2, 8, 9, 4), (2, 4, 8, 9)),
        ("hwc", (2, 3, 8, 3), (2, 3, 3, 8)),
        ("vector", (2, 2, 2, 2, 2), (2, 16)),
    ):
        x = torch.arange(float(np.prod(shape))).reshape(shape)
        out = torch.from_numpy(laid_out(x.numpy(), layout))
        assert tuple(out.shape) == expected
        if layout == "hwc" or shape[-1] == 4:
            assert out[1, 2].equal(x[1, :, :, 2])
    for shape in [(2, 3, 8, 3), (2, 7, 8, 9), (2,), (2, 1, 1, 1, 1)]:
        with pytest.raises(ValueError, match=r"dataset\.layout="):
            laid_out(np.zeros(shape), "auto")


def test_scaling_is_computed_on_the_training_part(arrays):
    low = arrays(CURVES, scale="minmax", val_size=0, test_size=1, binarize="threshold")
    assert low.train.x.aminmax() == (0, 1)
    plain, standard = arrays(CURVES), arrays(CURVES, scale="standard")
    expected = (plain.test.x - plain.train.x.mean(0)) / plain.train.x.std(0, unbiased=False)
    assert torch.allclose(standard.test.x, expected, atol=1e-5)
    images = arrays(np.stack([IMAGES, IMAGES * 0 + 7, IMAGES // 2], 1), scale="minmax")
    assert images.train.x.amax((0, 2, 3)).tolist() == [1, 0, 1]


def test_labels_travel_with_their_examples(arrays):
    data = arrays({"x": IMAGES, "y": LABELS, "note": np.array([{}], dtype=object)})
    assert data.class_names == ("0", "1", "2")
    known = {tuple(x.ravel().tolist()): int(y) for x, y in zip(IMAGES, LABELS, strict=True)}
    for split in (data.train, data.val, data.test):
        assert [known[tuple(x.flatten().tolist())] for x in split.x] == split.labels.tolist()
    several = {"pictures": IMAGES, "other": CURVES, "digit": LABELS}
    assert arrays(several, key="pictures", labels="digit").test.labels.equal(data.test.labels)


def test_safetensors_and_csv_give_what_npy_gives(arrays, tmp_path):
    first, table = arrays({"x": CURVES, "y": LABELS}), np.column_stack([CURVES, LABELS])
    tensors = {"x": torch.from_numpy(CURVES).float(), "label": torch.from_numpy(LABELS)}
    save_file(tensors, tmp_path / "a.safetensors")
    for name, mark in (("a", ","), ("b", ";"), ("c", "\t")):
        head = mark.join(["c d", '"e"', *"fghij", "Label"])
        np.savetxt(tmp_path / f"{name}.csv", table, delimiter=mark, header=head, comments="")
    np.savetxt(tmp_path / "n.csv", CURVES, delimiter=",", encoding="utf-8-sig")
    names = ("a.safetensors", "a.csv", "b.csv", "c.csv", "n.csv")
    others = [arrays(tmp_path / name) for name in names]
    assert all(data.train.x.equal(first.train.x) for data in others)
    assert all(data.test.labels.equal(first.test.labels) for data in others[:4])
    save_file({"x": torch.from_numpy(CURVES).bfloat16()}, tmp_path / "b.safetensors")
    assert arrays(tmp_path / "b.safetensors").train.x.dtype == torch.float32


def test_a_test_file_of_its_own(arrays, tmp_path):
    path = tmp_path / "b.npy"
    np.save(path, IMAGES[:9])
    data = arrays(IMAGES, test=str(path))
    assert data.test.x[:, 0].equal(torch.from_numpy(IMAGES[:9]))
    for other in (IMAGES[:9, :, 1:], IMAGES[:9] / 255):
        np.save(path, other)
        with pytest.raises(UserError, match=r"dataset\.test=.*b\.npy.*dataset\.train"):
            arrays(IMAGES, test=str(path))


@pytest.fixture
def pair(arrays, tmp_path):
    """Load one array for training and another for testing."""

    def make(train, test, **settings):
        np.save(tmp_path / "train.npy", train)
        np.save(tmp_path / "test.npy", test)
        return arrays(tmp_path / "train.npy", test=str(tmp_path / "test.npy"), **settings)

    return make


@pytest.mark.parametrize("scale", ["none", "minmax", "standard"])
def test_masks_are_black_and_white_however_each_file_writes_them(pair, scale, capsys):
    train, test = IMAGES > 127, IMAGES[::-1] > 90
    first = pair(train, test, scale=scale)
    whites = (np.uint8(1), np.uint8(255), np.uint8(7), np.int64(1), 255.0, np.float32(1))
    for white in whites:
        for other in whites:
            data = pair(train * white, test * other, scale=scale)
            assert "a mask: 0 is black, all else white" in capsys.readouterr().err
            for split in ("train", "val", "test"):
                assert getattr(data, split).x.equal(getattr(first, split).x)
    rows = (part.reshape(60, -1) for part in (train * 1, test * 255))
    assert pair(*rows).test.x.equal(pair(train, test).test.x.flatten(1))
    assert pair(train, test).test.x[:, 0].div(255).equal(torch.from_numpy(test).float())


def test_a_test_file_with_other_values_is_refused_or_said(pair, capsys):
    mask, grey, unit = (IMAGES > 127).astype(np.uint8), IMAGES, IMAGES / 255
    for train, test in ((mask, grey), (grey, mask), (grey, unit), (unit, grey), (unit * 255, mask)):
        with pytest.raises(UserError, match=r"dataset.test=.*test.npy.*dataset.train=.*train.npy"):
            pair(train, test)
    assert pair(grey.astype(int), grey[:9]).test.x[:, 0].equal(torch.from_numpy(grey[:9]))
    assert pair(unit * 255, grey).test.x.max() == 255
    assert pair(unit.astype(np.float32), unit).test.x.dtype == torch.float32
    capsys.readouterr()
    pair(unit, unit * 255)
    assert "255 times as large as those of" in capsys.readouterr().err


def test_whole_numbers_up_to_255_in_images_are_bytes_whatever_their_type(arrays, pair):
    for dtype in (np.float32, np.float64, np.int16):
        data = arrays(IMAGES.astype(dtype))
        assert data.test.x.equal(arrays(IMAGES).test.x)
    with pytest.raises(UserError, match=r"dataset.test=.*bytes: 255 is 1.*write both alike"):
        pair(IMAGES.astype(np.float32), IMAGES * 0.99)


def test_objects_are_answered_with_how_to_save_them(arrays):
    for labels in (np.array(["cat", "dog"] * 30), np.array([b"cat", b"dog"] * 30)):
        assert arrays({"x": CURVES, "y": labels}).class_names == ("cat", "dog")
        with pytest.raises(UserError, match=r"has Python objects.* y\.astype\(str\)"):
            arrays({"x": CURVES, "y": labels.astype(object)})


def test_scaling_is_done_in_float64(arrays, pair, capsys):
    table = np.column_stack([1.7e9 + np.arange(60) * 1.5, np.full(60, 0.1), CURVES[:, 0]])
    low, high, mean, std = (f(table, 0) for f in (np.min, np.max, np.mean, np.std))
    span, std = (np.where(low < high, v, 1) for v in (high - low, std))
    for scale, expected in (("minmax", (table - low) / span), ("standard", (table - mean) / std)):
        expected[:, 1] = 0
        data = pair(table, table[::-1] + np.array([1, 0.5, 0]), scale=scale, val_size=0)
        assert data.train.x.numpy().tolist() == expected.astype(np.float32).tolist()
        assert len(data.train.x[:, 0].unique()) == 60
        assert set(data.test.x[:, 1].tolist()) == {0.5}
        assert "float32 keeps" not in capsys.readouterr().err
    for dtype in (np.int64, np.float64):
        arrays(table.astype(dtype))
        assert "of 49 values of a column; use dataset.scale" in capsys.readouterr().err
    with pytest.raises(UserError, match="too large for float32"):
        arrays(CURVES * 1e300)
    assert arrays(CURVES * 1e300, scale="standard").train.x.abs().max() < 5


def test_parts_of_one_file_and_one_file_twice(arrays, tmp_path, capsys):
    path, parts = tmp_path / "mnist.npz", (IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:])
    for names in (
        "x_train y_train x_test y_test",
        "train_images train_labels test_images test_labels",
    ):
        np.savez(path, **dict(zip(names.split(), parts, strict=True)))
        for settings in ({}, {"test": str(path)}):
            data = arrays(path, val_size=0, **settings)
            assert data.train.x[:, 0].equal(torch.from_numpy(IMAGES[:40]))
            assert data.test.labels.tolist() == LABELS[40:].tolist()
        with pytest.raises(UserError, match=r"test_size"):
            arrays(path, test_size=3)
    np.save(tmp_path / "a.npy", CURVES)
    (tmp_path / "link.npy").symlink_to(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"dataset\.test=.*link\.npy: is dataset\.train"):
        arrays(tmp_path / "a.npy", test=str(tmp_path / "link.npy"))
    np.save(tmp_path / "b.npy", CURVES[5:9])
    capsys.readouterr()
    arrays(tmp_path / "a.npy", test=str(tmp_path / "b.npy"))
    assert "every test example is an example of" in capsys.readouterr().err


def test_rows_become_images_of_a_shape(arrays):
    table = np.column_stack([LABELS, IMAGES.reshape(60, -1)])
    text = "\n".join(",".join(map(str, row)) for row in table.tolist())
    data = arrays(text, labels="0", shape=[1, 6, 5])
    assert (data.train.x.dtype, data.class_names) == (torch.uint8, ("0", "1", "2"))
    assert data.test.x.equal(arrays(IMAGES).test.x)
    assert arrays(IMAGES.reshape(60, -1), shape=[6, 5]).test.x.equal(data.test.x)
    colours = arrays(IMAGES.reshape(60, -1), shape=[2, 5, 3], layout="hwc")
    assert colours.shape == (3, 2, 5)
    with pytest.raises(UserError, match=r"30 values in an example, dataset\.shape=\[7\] not"):
        arrays(IMAGES, shape=[7])


def test_the_digest_is_of_the_values_as_they_were_read(arrays):
    first = arrays({"x": CURVES, "y": LABELS}).digest
    assert first == arrays({"x": CURVES, "y": LABELS}, scale="standard", val_size=3).digest != ""
    other = CURVES.copy()
    other[3, 3] += 1e-12
    assert len({first, arrays({"x": other, "y": LABELS}).digest, arrays(CURVES).digest}) == 3


class Planted:
    def __reduce__(self):
        return os.mkdir, ("planted",)


def test_a_planted_pickle_is_never_run(arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.array([Planted()] * 4, dtype=object), allow_pickle=True)
    for source in (tmp_path / "a.npy", {"x": np.array([Planted()] * 4, dtype=object)}):
        with pytest.raises(UserError):
            arrays(source)
    assert not Path("planted").exists()


# numpy leaves a .npz open that it cannot read
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_a_file_that_is_cut_is_refused(arrays, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save_file({"x": torch.from_numpy(CURVES)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", x=CURVES)
    np.save(tmp_path / "a.npy", CURVES)
    content = path.read_bytes()
    for length in (0, 5, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"^dataset.train={path}: .+$"):
            arrays(path)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("1,2\n3,x\n", {}, r"a\.csv: .*not numbers"),
        ("a,b\n1,2\n3,4\n5,6,7\n", {}, "line 4"),
        ({"a": CURVES, "b": CURVES}, {}, r"a, b; .*dataset\.key"),
        ({"a": CURVES}, {"key": "c"}, r"no c among a"),
        ({"x": CURVES, "y": LABELS[1:]}, {}, r"labels of int64 \[59\], not one for each"),
        (
            np.where(np.arange(60)[:, None] % 23 == 17, np.inf, CURVES),
            {},
            "2 examples .* number 17",
        ),
        (CURVES, {"test_size": 60}, r"dataset\.test_size=60: .*60 examples"),
        (CURVES, {"binarize": "threshold"}, r"dataset\.binarize=threshold"),
        (Path("nowhere.npy"), {}, r"dataset\.train=nowhere\.npy: .*[Nn]o such file"),
        (Path("a.mat"), {}, r"dataset\.train=a\.mat: .*\.safetensors"),
    ],
)
def test_what_cannot_be_used_is_explained(arrays, source, settings, message):
    with pytest.raises(UserError, match=message):
        arrays(source, **settings)
