"""What every dataset is once loaded: examples, on the device or on the disk, and their meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vae_cli.data.streaming import Streamed, place
from vae_cli.errors import UserError
from vae_cli.schema.datasets import Binarize

# the carving of a validation set depends on nothing but the sizes, so runs with different seeds
# are measured on the same examples
SPLIT_SEED = 2014
# what a size of null stands for: one example in so many, and no more than
SHARE, MOST = 10, 10_000


@dataclass(frozen=True)
class Split:
    """Examples and what is known about them.

    x is a tensor or, of a dataset that stays on the disk, a `Streamed`, which is indexed in the
    same way and knows the same shape, dtype and device.
    """

    x: Tensor | Streamed  # [N, *shape], uint8 (0 to 255 stand for 0 to 1) or float32
    labels: Tensor | None = None  # [N] int64, for pictures and measures only
    parameters: dict[str, Tensor] | None = None  # name -> [N], what a curve was made from

    def __len__(self) -> int:
        return self.x.shape[0]

    def batches(self, order: Tensor | None, batch_size: int) -> Iterator[Tensor]:
        """Raw batches [B, *shape] on the device; the last may be smaller.

        order: [M] int64, which examples one after the other; None: all, as they are stored.
        """
        if isinstance(self.x, Streamed):
            yield from self.x.batches(order, batch_size)
        elif order is None:
            yield from self.x.split(batch_size)
        else:
            for index in order.split(batch_size):
                yield self.x.index_select(0, index)

    def head(self, count: int) -> Tensor:
        """The first raw examples, at most `count`. -> [count, *shape] on the device."""
        return self.x[:count]

    def take(self, index: Tensor) -> Split:
        """The examples at `index` [M]."""
        return Split(
            self.x.take(index) if isinstance(self.x, Streamed) else self.x[index],
            None if self.labels is None else self.labels[index],
            None if self.parameters is None else {k: v[index] for k, v in self.parameters.items()},
        )

    def to(self, device: torch.device) -> Split:
        """A copy on a device."""
        return Split(
            self.x.to(device),
            None if self.labels is None else self.labels.to(device),
            None
            if self.parameters is None
            else {k: v.to(device) for k, v in self.parameters.items()},
        )


@dataclass(frozen=True)
class Curves:
    """How a dataset of curves is drawn."""

    grid: Tensor  # [P], where the curves were evaluated
    x_label: str
    y_label: str
    logarithms: bool = False  # the values are logarithms; pictures show their exponentials


@dataclass(frozen=True)
class Data:
    """A loaded dataset. `val` is None when nothing was carved off."""

    name: str
    train: Split
    val: Split | None
    test: Split
    class_names: tuple[str, ...] = ()
    curves: Curves | None = None
    binarize: Binarize = Binarize.none

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: [C, H, W] or [P]."""
        return tuple(self.train.x.shape[1:])

    def to(self, device: torch.device) -> Data:
        """A copy on a device. What lies on the disk is read whole if it is to be kept in memory."""
        splits = [self.train, self.test] + ([] if self.val is None else [self.val])
        streamed = [split.x for split in splits if isinstance(split.x, Streamed)]
        kept = bool(streamed) and place(streamed, device)

        def moved(split: Split) -> Split:
            if kept and isinstance(split.x, Streamed):
                split = replace(split, x=split.x.whole())
            return split.to(device)

        val = None if self.val is None else moved(self.val)
        return replace(self, train=moved(self.train), val=val, test=moved(self.test))

    def prepare(self, raw: Tensor | Streamed, generator: torch.Generator) -> Tensor:
        """Stored values as a network takes them: float32, binarised as configured.

        raw [B, *shape] -> [B, *shape]. Dynamic binarisation draws anew at every call
        (Salakhutdinov & Murray 2008). What is still on the disk is decoded first.
        """
        if isinstance(raw, Streamed):
            raw = raw[:]
        x = raw.float().div_(255) if raw.dtype == torch.uint8 else raw
        if self.binarize is Binarize.dynamic:
            return torch.bernoulli(x, generator=generator)
        if self.binarize is Binarize.threshold:
            return (x >= 0.5).float()
        return x

    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value of the training set, as a network sees it.

        Of what lies on the disk: the smallest and largest that a value can have.
        """
        if isinstance(self.train.x, Streamed):
            return 0.0, 1.0
        low, high = self.train.x.aminmax()
        scale = 255.0 if self.train.x.dtype == torch.uint8 else 1.0
        return float(low) / scale, float(high) / scale


def carve_validation(
    train: Split, val_size: int | None, dataset: str
) -> tuple[Split, Split | None]:
    """Move `val_size` examples, always the same ones, from the training set to a validation set.

    None: a tenth of them, at most 10,000.
    """
    count = _automatic(train) if val_size is None else val_size
    if count == 0:
        return train, None
    if count >= len(train):
        raise UserError(
            f"dataset.val_size={count}: must be less than the {len(train):,} training examples"
            f" of {dataset}"
        )
    return _carve(train, count)


def carve_test(everything: Split, test_size: int | None, dataset: str) -> tuple[Split, Split]:
    """Move `test_size` examples, always the same ones, to a test set -> the rest, the test set.

    None: a tenth of them, at most 10,000.
    """
    count = _automatic(everything) if test_size is None else test_size
    if count >= len(everything):
        raise UserError(
            f"dataset.test_size={count}: must be less than the {len(everything):,} examples"
            f" of {dataset}"
        )
    return _carve(everything, count)


def _automatic(examples: Split) -> int:
    return min(max(1, len(examples) // SHARE), MOST)


def _carve(examples: Split, count: int) -> tuple[Split, Split]:
    """All but `count` examples, and these, each in the order they had."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return examples.take(order[count:].sort().values), examples.take(order[:count].sort().values)
