"""Your own arrays: images or curves from a file, laid out as [N, C, H, W] or [N, P]."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from vae_cli.config.datasets import ArraysConfig
from vae_cli.console import UserError, one_line, say
from vae_cli.data import tables
from vae_cli.data.dataset import Curves, Data, Split, fingerprint
from vae_cli.data.labels import facts_of
from vae_cli.data.scaling import scaled
from vae_cli.data.splits import carve, carve_validation

# names of arrays; {} is the part of a file, train or test, as Keras' x_train and x_test have it
VALUES = ("x_{}", "X_{}", "{}_images", "{}_x", "{}_X", "{}_data", "x", "{}")
LABELS = ("y_{}", "Y_{}", "{}_labels", "{}_y", "{}_Y", *tables.LABELS)


class File(NamedTuple):
    """What a file holds for one part, train or test."""

    name: str
    x: NDArray[Any]  # [N, P] or [N, C, H, W], finite numbers of any type
    y: NDArray[Any] | None  # [N], labels of any type
    key: str  # the array that x is
    label: str  # the array or column that y is; "": none
    columns: list[str] | None  # of a .csv file that names them
    has_test: bool  # does the file hold x_test beside x_train?
    digest: str  # of both as they were read


def load(config: ArraysConfig, data_dir: Path) -> Data:
    """Read the file(s), check every number, split and scale. Raises UserError naming the file."""
    files = [_read("train", config.train, config, None)]
    if config.test or files[0].has_test:
        files.append(_read("test", config.test or config.train, config, files[0]))
    values, what = _values(files)
    if len(files) > 1 and _all_among(*values):
        say(f"warning: {files[1].name}: every test example is an example of {config.train} too")
    name = (files[0].label or files[-1].label).replace("_train", "").replace("train_", "")
    facts, classes = facts_of([file.y for file in files], name)
    train, *rest = (Split(x, **fact) for x, fact in zip(values, facts, strict=True))
    train, test = (train, rest[0]) if rest else carve(train, config.test_size, "test_size")
    train, val = carve_validation(train, config.val_size)
    splits = [train, test] if val is None else [train, test, val]
    x = scaled([split.x[:] for split in splits], config, files[0].columns or [])
    white = 255 if x[0].dtype == torch.uint8 else 1
    low, high = min(float(p.min()) for p in x) / white, max(float(p.max()) for p in x) / white
    if not math.isfinite(high - low):
        raise UserError(f"dataset.train={config.train}: too large for float32; use dataset.scale")
    count, shape = sum(map(len, x)), "x".join(map(str, x[0].shape[1:]))
    what += "" if config.scale == "none" else f"; scale={config.scale} by the training examples"
    names = " and ".join(dict.fromkeys(file.name for file in files))
    say(f"{names}: {count:,} examples of {shape}, values from {low:g} to {high:g} ({what})")
    if config.binarize != "none" and not (low >= 0 and high <= 1):
        raise UserError(f"dataset.binarize={config.binarize}: needs values from 0 to 1")
    grid = torch.arange(x[0].shape[1], dtype=torch.float32)
    curves = Curves(grid, "index", "value") if x[0].ndim == 2 else None
    train, test, *rest = (replace(split, x=part) for split, part in zip(splits, x, strict=True))
    val, digest = rest[0] if rest else None, fingerprint(*(file.digest for file in files))
    return Data(config.name, train, val, test, classes, curves, config.binarize, digest)


def _read(part: str, name: str, config: ArraysConfig, train: File | None) -> File:
    """Read the values of a part and, if there are any, its labels. train: the training file."""
    path, columns, has_test = Path(name).expanduser(), None, False
    try:
        if path.suffix.lower() == ".csv":
            (x, y, label, columns), key = tables.read(path, config, train and train.columns), "x"
        else:
            arrays = _arrays(path)
            label = config.labels or _first(LABELS, part, arrays)
            others = [other for other in arrays if other != label]
            only = others[0] if len(others) == 1 else "x"
            key = config.key or _first(VALUES, part, arrays) or only
            for wanted in (key, label or key):
                if wanted not in arrays:
                    there = ", ".join(arrays)
                    raise ValueError(f"no {wanted} among {there}; see dataset.key, .labels")
            label = label if label != key else ""
            x, y = arrays[key], arrays[label] if label else None
            has_test = config.key is None and key.replace("train", "test") in {*arrays} - {key}
            if len(arrays) > 1:
                say(f"{name}: {key} for {part}, {f'labels in {label}' if label else 'no labels'}")
        digest = fingerprint(x) if y is None else fingerprint(x, y)
        x = laid_out(_finite(x), config.layout, config.shape)
        if y is not None and (y.shape not in [(len(x),), (len(x), 1)] or y.dtype.kind in "cmMV"):
            raise ValueError(f"has labels of {y.dtype} {list(y.shape)}, not one for each example")
        if train and train.key == key and path.samefile(Path(train.name).expanduser()):
            raise ValueError("is dataset.train; leave it out, and examples are held out")
        if train and train.x.shape[1:] != x.shape[1:]:
            shapes = [f"examples of shape {list(part.shape[1:])}" for part in (x, train.x)]
            raise ValueError(f"has {shapes[0]}, dataset.train={train.name} has {shapes[1]}")
        if has_test and config.test_size is not None:
            raise ValueError(f"has a test set, so no dataset.test_size; or give dataset.key={key}")
        y = None if y is None else y.ravel()
        return File(name, x, y, key, label, columns, has_test, digest)
    except Exception as error:  # a reader raises nearly any exception on a damaged file
        line = one_line(error)
        if "allow_pickle" in line:  # numpy's words
            line = "has Python objects, which are never read; save x.astype(float), y.astype(str)"
        raise UserError(f"dataset.{part}={name}: {line}") from error


def _first(names: tuple[str, ...], part: str, arrays: Mapping[str, Any]) -> str:
    """Find the first of the names, written for a part, that an array has, or nothing."""
    return next((key for name in names if (key := name.format(part)) in arrays), "")


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """Read the arrays of a file by name, never a pickle; one without a name is called x."""
    match path.suffix.lower():
        case ".npy" | ".npz":
            arrays: Any = np.load(path, allow_pickle=False)
            return {"x": arrays} if isinstance(arrays, np.ndarray) else arrays
        case ".safetensors":  # numpy has no bfloat16
            tensors = load_file(path).items()
            short = [k for k, x in tensors if x.is_floating_point() and x.itemsize < 4]
            return {k: (x.float() if k in short else x).numpy() for k, x in tensors}
    raise ValueError("must be a .npy, .npz, .safetensors or .csv file")


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as they are. Raises ValueError naming the first example with another value."""
    if values.dtype.kind not in "buif" or values.size == 0 or values.ndim == 0:
        raise ValueError(f"holds {values.dtype} of shape {list(values.shape)}, not numbers")
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
    if len(bad):
        raise ValueError(f"{len(bad)} examples have NaN or infinity, first number {bad[0]}")
    return values


def laid_out(x: NDArray[Any], layout: str, shape: list[int] | None = None) -> NDArray[Any]:
    """Lay out examples as [N, P] or [N, C, H, W]. Raises ValueError where axes are unclear.

    shape: that of an example: [P], [H, W], [C, H, W] or, with layout=hwc, [H, W, C].
    """
    if shape is not None:
        if x[0].size != math.prod(shape):
            raise ValueError(f"has {x[0].size:,} values in an example, dataset.shape={shape} not")
        x = x.reshape(len(x), *shape)
    if layout == "vector" and x.ndim >= 2:
        return x.reshape(len(x), -1)
    if x.ndim == 2 and layout == "auto":
        return x
    if x.ndim == 3:
        return x[:, None]
    fits = [n in (1, 3, 4) for n in x.shape[1::2]]  # channels of [N, C, H, W], [N, H, W, C]
    if layout != "auto" or shape is not None:
        fits = [layout != "hwc", layout == "hwc"]
    if x.ndim != 4 or fits[0] == fits[1]:
        raise ValueError(
            f"has the shape {list(x.shape)}, which is not clearly [N, P], [N, H, W], [N, C, H, W]"
            " or [N, H, W, C]; use dataset.shape, or dataset.layout=chw, hwc or vector"
        )
    return x if fits[0] else x.transpose(0, 3, 1, 2)


def _values(files: list[File]) -> tuple[list[Tensor], str]:
    """Give the values of the files one meaning, that of the first. -> values, and its name.

    Bytes stand for 0 to 1, and so do whole numbers up to 255 in images, of any type. Those of two
    values, 0 and another, are black and white, and so are 0 and 1, or 0 and 255, of any type. All
    else are numbers: float64, or float32 if they were.
    """
    arrays = given = [file.x for file in files]
    x, whole = given[0], [part.dtype.kind in "bui" for part in given]
    ranges = [(float(part.min()), float(part.max())) for part in given]
    (low, high), *others = ranges
    if x.ndim == 4 and 128 <= high <= 255:  # of images, floats count that are whole
        whole = [is_int or not (part % 1).any() for is_int, part in zip(whole, given, strict=True)]
    grey = x.ndim == 4 and whole[0] and low >= 0 and (high <= 1 or 128 <= high <= 255)
    two = grey or x.dtype in (bool, np.uint8) or high in (1, 255)
    if two and (low == 0 or high == 1) and _is_mask(x):
        what, fits = "a mask: 0 is black, all else white", all(map(_is_mask, given))
        arrays = [(part != 0).astype(np.uint8) * np.uint8(255) for part in given]
    elif grey or x.dtype == np.uint8:
        what, fits = "bytes: 255 is 1", all(whole) and all(a >= 0 and b <= 255 for a, b in others)
        fits &= all(b != 1 or high < 100 for _, b in others)  # a mask of 0 and 1 would be black
        arrays = [part.astype(np.uint8, copy=False) for part in given]
    else:
        ratios = [max(-a, b) / (max(-low, high) or 1) for a, b in others]
        what, fits = f"{x.dtype}", len({*whole}) == 1 or all(0.5 <= ratio <= 2 for ratio in ratios)
        if fits and not all(0.01 <= ratio <= 100 for ratio in ratios):
            ratio = f"{ratios[0]:.3g} times as large as those of {files[0].name}"
            say(f"warning: {files[1].name}: its values are {ratio}: another unit?")
        types = ["f4" if v.dtype.kind == "f" and v.itemsize <= 4 else "f8" for v in given]
        arrays = [v.astype(kind, copy=False) for v, kind in zip(given, types, strict=True)]
    if not fits:
        train, test = (
            f"{file.name} has {len(np.unique(v)):,} values of {v.dtype} from {a:g} to {b:g}"
            for file, v, (a, b) in zip(files, given, ranges, strict=True)
        )
        raise UserError(f"dataset.test={test}, dataset.train={train} ({what}); write both alike")
    return [torch.from_numpy(np.ascontiguousarray(part)) for part in arrays], what


def _is_mask(x: NDArray[Any]) -> bool:
    return bool(((x == 0) | (x == x.max())).all())


def _all_among(train: Tensor, test: Tensor) -> bool:
    """Is every test example a training example?"""
    seen, sought = (x.flatten(1).numpy() for x in (train, test.to(train.dtype)))
    if not (seen == sought[0]).all(1).any():
        return False
    known = {hash(row.tobytes()) for row in seen}
    return all(hash(row.tobytes()) in known for row in sought)
