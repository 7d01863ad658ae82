"""Labels of any kind: numbers, texts, true and false; and examples that are named by them."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vae_cli.console import UserError, one_line
from vae_cli.data.dataset import Data

NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|nan|-?inf")  # the name of a class that is a number
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


def find_example(data: Data, setting: str, text: str, by: str) -> int:
    """Return the number of a test example: the first one of a class, given by its name or number.

    by=index, or data without labels: the example with this number. Raises UserError.
    """
    labels, names = data.test.labels, data.class_names
    if by == "index" or labels is None:
        labels, names = torch.arange(len(data.test)), ()
    counted = text.isdecimal() and not any(map(NUMBER.fullmatch, names))  # 1 is no second class
    number = names.index(text) if text in names else int(text) if counted else -1
    found = (labels == number).nonzero()
    if len(found) == 0:
        known = f"a class ({', '.join(names)})" if names else f"a number from 0 to {labels.max()}"
        raise UserError(f"{setting}={text}: no such test example; give {known}")
    return int(found[0])


def with_classes(data: Data, names: tuple[str, ...]) -> Data:
    """Number the classes of data as `names` stand, all that a conditional model knows; (): as is.

    Raises UserError for a class that is none of them.
    """
    if not names or names == data.class_names:
        return data
    if unknown := [name for name in data.class_names if name not in names]:
        line = f"class {unknown[0]} is none that the model knows ({', '.join(names)})"
        raise UserError(f"dataset={data.name}: {line}")
    place = torch.tensor([names.index(name) for name in data.class_names])
    parts = {name: getattr(data, name) for name in ("train", "val", "test")}
    given = {k: replace(v, labels=place[v.labels]) for k, v in parts.items() if v is not None}
    return replace(data, class_names=names, **given)


def of_each_class(data: Data, count: int) -> Tensor:
    """The numbers of at most `count` test examples: the first of each class, the second of each, …

    Without labels, the first ones.
    """
    if data.test.labels is None:
        return torch.arange(min(count, len(data.test)))
    labels = data.test.labels.cpu()
    columns = [(labels == label).nonzero()[:count, 0] for label in labels.unique()[:count]]
    index = pad_sequence(columns, padding_value=-1).flatten()
    return index[index >= 0][:count]


def first_two(data: Data) -> list[int]:
    """The first test examples of the first two classes or, without these, the first two."""
    labels = data.test.labels
    classes = () if labels is None else labels.unique()[:2]
    return [int((labels == c).nonzero()[0]) for c in classes] if len(classes) == 2 else [0, 1]


def labels_of(data: Data, index: Any) -> Tensor:
    """The classes of test examples by their numbers; 0 where there are no classes."""
    labels = data.test.labels
    return torch.zeros((), dtype=torch.int64) if labels is None else labels[index]


def name_of(data: Data, index: int) -> str:
    """Say what is known of one test example."""
    labels, names = data.test.labels, data.class_names
    if labels is not None:
        return names[int(labels[index])] if names else str(int(labels[index]))
    known = (f"{name}={float(values[index]):.2f}" for name, values in data.test.known.items())
    return ", ".join(known) or f"example {index}"
