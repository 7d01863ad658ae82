"""Labels of any kind: numbers, texts, true and false; one for each example."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vae_cli.console import one_line

CLASSES = 20  # numbers of more kinds than that can be measurements


def facts_of(
    labels: Sequence[NDArray[Any] | None], name: str
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Turn the labels [N] of each part (None: it has none) into what a Split keeps of them.

    -> its `labels`, which index the sorted names of all classes, and these names; or its
    `parameters`, of that name, where the labels are measurements: numbers of many kinds, not whole
    or hardly ever equal.
    """
    given = [y for y in labels if y is not None]
    values = {_written(value): value.item() for y in given for value in np.unique(y)}
    if len(values) > CLASSES and all(y.dtype.kind in "iuf" for y in given):
        broken = any(math.isfinite(value) and value % 1 for value in values.values())
        if broken or 2 * len(values) > sum(map(len, given)):
            numbers = [y if y is None else torch.from_numpy(y.astype("f4")) for y in labels]
            return [{} if y is None else {"parameters": {name: y}} for y in numbers], ()
    # numbers by their size, NaN behind them, texts at the end
    classes = sorted(values, key=lambda n: (isinstance(v := values[n], str | bytes), v != v, v))
    place = {text: i for i, text in enumerate(classes)}
    found = [None if y is None else torch.tensor([place[_written(v)] for v in y]) for y in labels]
    return [{} if y is None else {"labels": y} for y in found], tuple(classes)


def _written(label: Any) -> str:
    """Write a label as people do: 1 and not 1.0."""
    text = label.decode() if isinstance(label, bytes) else one_line(label)
    return text.removesuffix(".0") if isinstance(label, np.floating) else text
