"""Your own arrays: images or curves from a file, laid out as [N, C, H, W] or [N, P]."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from vae_cli.config.datasets import ArraysConfig
from vae_cli.console import UserError, one_line, say
from vae_cli.data.dataset import Curves, Data, Split, carve, carve_validation

LABELS = ("y", "Y", "label", "Label", "labels", "Labels")  # names that mark them
NUMBER = re.compile(r"[-+.\d][-+.\de]*|nan|inf|")


def load(config: ArraysConfig, data_dir: Path) -> Data:
    """Read the file(s), check every number, split and scale. Raises UserError naming the file."""
    train = _read("train", config.train, config)
    if config.test is None:
        train, test = carve(train, config.test_size, "test_size")
    else:
        test = _read("test", config.test, config)
        kind, other = (f"{s.x.dtype} of shape {list(s.x.shape[1:])}" for s in (train, test))
        if kind != other:
            raise UserError(f"dataset.test={config.test}: has {other}, dataset.train has {kind}")
    train, val = carve_validation(train, config.val_size)
    splits = [train, test] if val is None else [train, test, val]
    x = _scaled([split.x[:] for split in splits], config.scale)
    white = 255 if x[0].dtype == torch.uint8 else 1
    low, high = min(float(p.min()) for p in x) / white, max(float(p.max()) for p in x) / white
    count, shape = sum(map(len, x)), "x".join(map(str, x[0].shape[1:]))
    say(f"{config.train}: {count:,} examples of {shape}, values from {low:g} to {high:g}")
    if config.binarize != "none" and not (low >= 0 and high <= 1):
        raise UserError(f"dataset.binarize={config.binarize}: needs values from 0 to 1")
    grid = torch.arange(x[0].shape[1], dtype=torch.float32)
    curves = Curves(grid, "index", "value") if x[0].ndim == 2 else None
    labels = [split.labels for split in splits if split.labels is not None]
    least, most = torch.cat(labels).aminmax() if len(labels) == len(splits) else (0, -1)
    classes = tuple(map(str, range(int(most) + 1))) if least >= 0 and most < 1000 else ()
    train, test, *rest = (replace(split, x=part) for split, part in zip(splits, x, strict=True))
    val = rest[0] if rest else None
    return Data(config.name, train, val, test, classes, curves, config.binarize)


def _read(setting: str, name: str, config: ArraysConfig) -> Split:
    """Read the examples of a file and, if there are any, their labels."""
    try:
        arrays = _arrays(Path(name).expanduser(), config.labels)
        labels = config.labels or next((name for name in LABELS if name in arrays), None)
        others = [name for name in arrays if name != labels]
        key = config.key or (others[0] if len(others) == 1 else "x")
        for wanted in (key, labels or key):
            if wanted not in arrays:
                raise ValueError(f"no {wanted} among {', '.join(arrays)}; see dataset.key, .labels")
        x = laid_out(_numbers(arrays[key]), config.layout)
        if labels is None or labels == key:
            return Split(x)
        y = arrays[labels]
        if y.shape != (len(x),) or y.dtype.kind not in "buif" or (y != np.rint(y)).any():
            raise ValueError(f"has labels that are not {len(x):,} whole numbers")
        return Split(x, torch.from_numpy(y.astype(np.int64)))
    except Exception as error:  # a reader raises nearly any exception on a damaged file
        raise UserError(f"dataset.{setting}={name}: {one_line(error)}") from error


def _arrays(path: Path, labels: str | None) -> Mapping[str, NDArray[Any]]:
    """Read the arrays of a file by name, never a pickle; one without a name is called x."""
    match path.suffix.lower():
        case ".npy" | ".npz":
            arrays: Any = np.load(path, allow_pickle=False)
            return {"x": arrays} if isinstance(arrays, np.ndarray) else arrays
        case ".safetensors":  # numpy has no bfloat16
            tensors = load_file(path).items()
            return {k: (x.float() if x.is_floating_point() else x).numpy() for k, x in tensors}
        case ".csv":
            return _table(path, labels)
    raise ValueError("must be a .npy, .npz, .safetensors or .csv file")


def _table(path: Path, labels: str | None) -> dict[str, NDArray[Any]]:
    """Read a .csv of numbers, with or without names in its first line: its rows x, their labels."""
    import pandas as pd  # takes 0.5 s, so only where it is needed

    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    mark = next((mark for mark in ",;\t" if mark in first), ",")
    is_number = [NUMBER.fullmatch(cell.strip(' "\n')) for cell in first.lower().split(mark)]
    header = None if all(is_number) else 0
    table = pd.read_csv(path, sep=mark, header=header)
    column = next((name for name in (labels, *LABELS) if name in table), None)
    y = {} if column is None else {column: table.pop(column).to_numpy()}
    return {"x": table.to_numpy(), **y}


def _numbers(values: NDArray[Any]) -> Tensor:
    """Leave uint8 as it is, turn masks into 0 and 255, all else into finite float32."""
    if values.dtype.kind not in "buif" or values.size == 0 or values.ndim == 0:
        raise ValueError(f"holds {values.dtype} of shape {list(values.shape)}, not numbers")
    if values.dtype == np.bool_ or (values.dtype == np.uint8 and values.max() <= 1):
        values = values.astype(np.uint8) * np.uint8(255)  # not the darkest of 256 levels
    kind = np.uint8 if values.dtype == np.uint8 else np.float32
    x = torch.from_numpy(np.ascontiguousarray(values, dtype=kind))
    bad = (~x.reshape(len(x), -1).isfinite().all(1)).nonzero()
    if len(bad):
        raise ValueError(f"{len(bad)} examples have NaN or infinity, first number {int(bad[0])}")
    return x


def laid_out(x: Tensor, layout: Literal["auto", "chw", "hwc", "vector"]) -> Tensor:
    """Lay out examples as [N, P] or [N, C, H, W]. Raises ValueError where axes are unclear."""
    if layout == "vector" and x.ndim >= 2:
        return x.flatten(1).contiguous()
    if x.ndim == 2 and layout == "auto":
        return x
    if x.ndim == 3:
        return x.unsqueeze(1)
    fits = [n in (1, 3, 4) for n in x.shape[1::2]]  # channels of [N, C, H, W], [N, H, W, C]
    if layout != "auto":
        fits = [layout == "chw", layout == "hwc"]
    if x.ndim != 4 or fits[0] == fits[1]:
        raise ValueError(
            f"has the shape {list(x.shape)}, which is not clearly [N, P], [N, H, W], [N, C, H, W]"
            " or [N, H, W, C]; use dataset.layout=chw, hwc or vector"
        )
    return x if fits[0] else x.permute(0, 3, 1, 2).contiguous()


def _scaled(splits: list[Tensor], scale: Literal["none", "minmax", "standard"]) -> list[Tensor]:
    """Scale by the first, the training part, each channel or column; a constant becomes 0."""
    if scale == "none":
        return splits
    train = splits[0].float()
    dims = (0, 2, 3) if train.ndim == 4 else (0,)
    if scale == "minmax":
        shift = train.amin(dims, keepdim=True)
        span = train.amax(dims, keepdim=True) - shift
    else:
        shift = train.mean(dims, keepdim=True)
        span = train.std(dims, keepdim=True, unbiased=False)
    return [(x.float() - shift) / span.where(span > 0, 1.0) for x in splits]
