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
        out = laid_out(x, layout)
        assert tuple(out.shape) == expected
        if layout == "hwc" or shape[-1] == 4:
            assert out[1, 2].equal(x[1, :, :, 2])
    for shape in [(2, 3, 8, 3), (2, 7, 8, 9), (2,), (2, 1, 1, 1, 1)]:
        with pytest.raises(ValueError, match=r"dataset\.layout="):
            laid_out(torch.zeros(shape), "auto")


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
        ("a,y\n1,2\n3,0.5\n", {}, "whole numbers"),
        ({"a": CURVES, "b": CURVES}, {}, r"a, b; .*dataset\.key"),
        ({"a": CURVES}, {"key": "c"}, r"no c among a"),
        ({"x": CURVES, "y": LABELS[1:]}, {}, r"60 whole numbers"),
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
