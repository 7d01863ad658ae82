"""Your own arrays: images or curves from a file, checked, laid out as [N, C, H, W] or [N, P]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_cli import console
from vae_cli.data.array_files import Array, Unusable, read
from vae_cli.data.interface import Curves, Data, Split, carve_test, carve_validation
from vae_cli.errors import UserError
from vae_cli.schema.datasets import ArraysConfig, Binarize, Layout, Scale

COLOURS = (1, 3, 4)  # sizes that mark an axis of channels


def load(config: ArraysConfig, data_dir: Path) -> Data:
    """Read the file(s), check every number, split and scale. Raises UserError naming the file."""
    everything = _read("train", config.train, config)
    test = None if config.test is None else _read("test", config.test, config)
    if test is not None:
        _refuse_difference(config, everything, test)
    whiten = _is_mask(everything.x)
    if test is None:
        everything, test = carve_test(everything, config.test_size, config.train)
    train, val = carve_validation(everything, config.val_size, config.train)
    splits = [split for split in (train, test, val) if split is not None]
    tensors = _scaled([_tensor(s) * 255 if whiten else _tensor(s) for s in splits], config.scale)
    splits = [Split(x, split.labels) for x, split in zip(tensors, splits, strict=True)]
    data = Data(
        name=config.name,
        train=splits[0],
        val=None if val is None else splits[2],
        test=splits[1],
        class_names=_class_names(splits),
        curves=_curves(tensors[0]),
        binarize=config.binarize,
    )
    _say_range(data, tensors, config)
    return data


def _read(setting: str, name: str, config: ArraysConfig) -> Split:
    try:
        values, labels = read(Path(name).expanduser(), config.key, config.labels)
        return Split(laid_out(_numbers(values), config.layout), _labels(labels))
    except Unusable as error:
        raise UserError(f"dataset.{setting}={name}: {error}") from error


def _numbers(values: Array) -> Tensor:
    """uint8 as it is, truth values as 0 and 255, all else in float32 and finite."""
    if values.dtype == np.bool_:
        return torch.from_numpy(values.astype(np.uint8) * np.uint8(255))
    if values.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(values))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is named
        x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    bad = ~x.flatten(1).isfinite().all(1) if x.ndim > 1 else ~x.isfinite()
    if bad.any():
        row = int(bad.nonzero()[0])
        kind = "NaN" if x[row].isnan().any() else "an infinite value (in float32)"
        raise Unusable(
            f"example {row} (counted from 0) has {kind}; so have {int(bad.sum())} in all"
        )
    return x


def laid_out(x: Tensor, layout: Layout) -> Tensor:
    """[N, P] as it is, [N, H, W] with one channel, [N, H, W, C] with the channels first.

    Raises Unusable where the axes could mean two things, or nothing.
    """
    shape = list(x.shape)
    if layout is Layout.vector and x.ndim >= 2:
        return x.flatten(1).contiguous()
    if x.ndim == 2 and layout is Layout.auto:
        return x
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim != 4:
        raise Unusable(
            f"holds an array of shape {shape}; it must be [N, P], [N, H, W], [N, C, H, W] or"
            " [N, H, W, C], or any [N, …] with dataset.layout=vector"
        )
    if layout is Layout.auto:
        first, last = shape[1] in COLOURS, shape[3] in COLOURS
        if first == last:
            both = "either end" if first else "neither end"
            raise Unusable(
                f"holds an array of shape {shape}, with 1, 3 or 4 channels at {both}; say"
                " dataset.layout=chw or hwc (or vector)"
            )
        layout = Layout.chw if first else Layout.hwc
    return x if layout is Layout.chw else x.permute(0, 3, 1, 2).contiguous()


def _labels(labels: Array | None) -> Tensor | None:
    if labels is None:
        return None
    whole = labels.dtype.kind in "bui" or (
        labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all())
    )
    if not whole:
        raise Unusable("has labels that are not whole numbers; number the classes from 0")
    return torch.from_numpy(labels.astype(np.int64))


def _refuse_difference(config: ArraysConfig, train: Split, test: Split) -> None:
    for what, one, other in (
        ("examples of shape", list(test.x.shape[1:]), list(train.x.shape[1:])),
        ("numbers of type", test.x.dtype, train.x.dtype),
    ):
        if one != other:
            raise UserError(
                f"dataset.test={config.test}: has {what} {one} and dataset.train={config.train}"
                f" has {other}"
            )


def _tensor(split: Split) -> Tensor:
    assert isinstance(split.x, Tensor)
    return split.x


def _is_mask(x: object) -> bool:
    """uint8 that is only 0 and 1: black and white, not the two darkest of 256 levels."""
    return isinstance(x, Tensor) and x.dtype == torch.uint8 and int(x.max()) <= 1


def _scaled(splits: list[Tensor], scale: Scale) -> list[Tensor]:
    """All splits, scaled by what the first one (the training part) has.

    Images channel by channel, vectors column by column; what does not vary becomes 0.
    """
    if scale is Scale.none:
        return splits
    train = splits[0].float()
    dims = (0, 2, 3) if train.ndim == 4 else (0,)
    if scale is Scale.minmax:
        shift = train.amin(dims, keepdim=True)
        span = train.amax(dims, keepdim=True) - shift
    else:
        shift = train.mean(dims, keepdim=True)
        span = train.std(dims, keepdim=True, unbiased=False)
    span = torch.where(span > 0, span, torch.ones_like(span))
    return [(x.float() - shift) / span for x in splits]


def _class_names(splits: list[Split]) -> tuple[str, ...]:
    """The numbers of the classes, where they are counted from 0."""
    if any(split.labels is None for split in splits):
        return ()
    labels = torch.cat([split.labels for split in splits if split.labels is not None])
    low, high = int(labels.min()), int(labels.max())
    return tuple(map(str, range(high + 1))) if low >= 0 and high < 1000 else ()


def _curves(x: Tensor) -> Curves | None:
    if x.ndim != 2:
        return None
    return Curves(torch.arange(x.shape[1], dtype=torch.float32), x_label="index", y_label="value")


def _say_range(data: Data, splits: list[Tensor], config: ArraysConfig) -> None:
    """Say what was read; refuse to binarise what is not in [0, 1]."""
    white = 255 if splits[0].dtype == torch.uint8 else 1
    low = min(float(x.min()) for x in splits) / white
    high = max(float(x.max()) for x in splits) / white
    count = sum(map(len, splits))
    shape = "x".join(map(str, data.shape))
    console.say(f"{config.train}: {count:,} examples of {shape}, values from {low:g} to {high:g}")
    if config.binarize is not Binarize.none and not (low >= 0 and high <= 1):
        raise UserError(
            f"dataset.binarize={config.binarize.name} needs data in [0, 1] and dataset=arrays has"
            f" values from {low:g} to {high:g}; use dataset.binarize=none"
        )
