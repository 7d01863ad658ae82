"""What every dataset is once it is loaded, and where all randomness comes from."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vae_cli.config.datasets import Binarize
from vae_cli.console import UserError

if TYPE_CHECKING:
    from vae_cli.data.images import Images

MEAN_OF = 1_000  # images on the disk that `Data.mean` decodes, at most


@dataclass(frozen=True)
class Split:
    """Examples for training, validation or test."""

    x: "Tensor | Images | FixedDraw"  # [N, *shape], uint8 (0 to 255 for 0 to 1) or float32
    labels: Tensor | None = None  # [N] int64, for pictures, measures and conditional models
    parameters: dict[str, Tensor] | None = None  # name -> [N], what an example was made from

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def known(self) -> dict[str, Tensor]:
        """Give the known facts of the examples by name, each [N]: the class, and the numbers that
        an example was made from."""
        return ({} if self.labels is None else {"class": self.labels}) | (self.parameters or {})

    def batches(self, order: Tensor | None, size: int) -> Iterator[Tensor]:
        """Yield raw batches [B, *shape] of the examples `order` [M], or of all as they stand."""
        if not isinstance(self.x, Tensor):
            yield from self.x.batches(order, size)
        elif order is None:
            yield from self.x.split(size)
        else:
            for index in order.split(size):
                yield self.x.index_select(0, index)

    def labelled(self, order: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield `batches` with the labels of their examples, [B] int64, or with None."""
        labels = self.labels if order is None or self.labels is None else self.labels[order]
        parts: Iterable[Tensor | None] = repeat(None) if labels is None else labels.split(size)
        yield from zip(self.batches(order, size), parts, strict=False)

    def head(self, count: int) -> Tensor:
        """Return the first raw examples, at most `count`. -> [count, *shape] on the device."""
        return self.x[:count]

    def take(self, index: Tensor) -> "Split":
        """Return the examples at `index` [M], in memory."""
        return self._with_each(lambda part: part[index])

    def to(self, device: torch.device) -> "Split":
        """Return a copy on a device."""
        return self._with_each(lambda part: part.to(device))

    def _with_each(self, change: Callable[[Any], Any]) -> "Split":
        labels = None if self.labels is None else change(self.labels)
        parameters = self.parameters and {k: change(v) for k, v in self.parameters.items()}
        return Split(change(self.x), labels, parameters)


@dataclass(frozen=True)
class FixedDraw:
    """Examples binarised by one draw for good: a value is 255 with its grey as the probability.

    The draw of example i depends on `path` and i alone: not on batches, their order, or the device.
    """

    x: "Tensor | Images"  # [N, *shape]
    path: tuple[int, str, str]  # seed, purpose, name of the split: see `derive`
    dtype: ClassVar[torch.dtype] = torch.uint8

    @property
    def shape(self) -> torch.Size:
        return self.x.shape

    @property
    def device(self) -> torch.device:
        return self.x.device

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Draw some examples, and read no others. -> [B, *shape] uint8, 0 or 255, on the device."""
        return self._draw(self.x[index], torch.arange(self.shape[0])[index])

    def batches(self, order: Tensor | None, size: int) -> Iterator[Tensor]:
        """Yield batches, as Split.batches does."""
        rows = torch.arange(self.shape[0]) if order is None else order
        for raw, part in zip(Split(self.x).batches(order, size), rows.split(size), strict=True):
            yield self._draw(raw, part)

    def _draw(self, raw: Tensor, rows: Tensor) -> Tensor:
        source = torch.Generator()  # on the CPU, so that all devices see equal values
        seeds = (derive(*self.path, row) for row in rows.tolist())
        draws = [torch.rand(raw.shape[1:], generator=source.manual_seed(seed)) for seed in seeds]
        grey = raw / 255 if raw.dtype == torch.uint8 else raw
        return (torch.stack(draws).to(raw.device) < grey).byte() * 255


@dataclass(frozen=True)
class Curves:
    """How pictures show a dataset of curves."""

    grid: Tensor  # [P], where the curves were evaluated
    x_label: str
    y_label: str
    logarithms: bool = False  # the values are logarithms; pictures show their exponentials


@dataclass(frozen=True)
class Data:
    """A loaded dataset."""

    name: str
    train: Split
    val: Split | None  # None: dataset.val_size=0
    test: Split
    class_names: tuple[str, ...] = ()
    curves: Curves | None = None
    binarize: Binarize = "none"
    digest: str = ""  # of the values as they were read; "": of no loader yet, see `load_data`
    _fixed: dict[tuple[str, int], Split] = field(init=False, repr=False, default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example: (C, H, W) or (P,)."""
        return tuple(self.train.x.shape[1:])

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these data from others, as plain values for JSON."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {
            "examples": {name: len(split) for name, split in splits.items() if split is not None},
            "shape": list(self.shape),
            "classes": list(self.class_names),
            "dtype": str(self.train.x.dtype).removeprefix("torch."),
            "digest": self.digest,
        }

    def split(self, name: str) -> Split:
        """Return the split train, val or test. Raises UserError where there is none."""
        split: Split | None = getattr(self, name)
        if split is None:
            raise UserError(f"split={name}: the run has no such data")
        return split

    @property
    def undrawn(self) -> "Data":
        """These data without a dynamic draw: its probabilities stand in place of 0 and 1."""
        return replace(self, binarize="none") if self.binarize == "dynamic" else self

    def to(self, device: torch.device) -> "Data":
        """Return a copy on a device."""
        val = None if self.val is None else self.val.to(device)
        return replace(self, train=self.train.to(device), val=val, test=self.test.to(device))

    def prepare(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Turn raw values [B, *shape] into a network's input: float32, binarised if configured."""
        x = raw.float().div_(255) if raw.dtype == torch.uint8 else raw
        if self.binarize == "dynamic":  # drawn anew at every call (Salakhutdinov & Murray 2008);
            # of a `fixed` split 0 stays 0 and 1 stays 1
            return torch.bernoulli(x, generator=generator)
        return (x >= 0.5).float() if self.binarize == "threshold" else x

    def fixed(self, split: Split, seed: int) -> Split:
        """Return train, val or test as it is measured: under binarize=dynamic, one draw for good.

        Every task and epoch of a run gets equal values, decided by the seed (the run's, or that of
        vae-eval), the name of the split and the number of an example. Drawn once and kept, but for
        images on the disk. Training itself draws anew in `prepare`.
        """
        if self.binarize != "dynamic":
            return split
        (name,) = (name for name in ("train", "val", "test") if getattr(self, name) is split)
        if (name, seed) not in self._fixed:
            assert not isinstance(split.x, FixedDraw)
            x: Any = FixedDraw(split.x, (seed, "binarisation", name))
            if isinstance(split.x, Tensor):
                x = torch.cat(list(x.batches(None, 250)))
            self._fixed[name, seed] = replace(split, x=x)
        return self._fixed[name, seed]

    def some(self, count: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Draw different training examples as a network sees them, and their labels or None.

        -> [count, *shape] and [count] on the CPU. Of a dynamic draw, its probabilities.
        """
        source = generator(torch.device("cpu"), seed, "examples")
        index = torch.randperm(len(self.train), generator=source)[:count]
        chosen = self.train.take(index.to(self.train.x.device))
        labels = None if chosen.labels is None else chosen.labels.cpu()
        return self.undrawn.prepare(chosen.x[:].cpu(), source), labels

    def value_range(self) -> tuple[float, float]:
        """Return the smallest and largest value of the training set, as a network sees them."""
        if not isinstance(self.train.x, Tensor):
            return 0.0, 1.0  # of images on the disk, which are not read for this
        low, high = self.train.x.aminmax()
        white = 255.0 if self.train.x.dtype == torch.uint8 else 1.0
        return float(low) / white, float(high) / white

    def mean(self) -> tuple[Tensor, int]:
        """Average the training examples that a network sees -> [*shape] float64, their number.

        Of images on the disk, MEAN_OF that are spread over all. A dynamic draw: its probability.
        """
        step = 1 if isinstance(self.train.x, Tensor) else math.ceil(len(self.train) / MEAN_OF)
        some = torch.arange(0, len(self.train), step, device=self.train.x.device)
        total = torch.zeros(self.shape, dtype=torch.float64)
        for raw in self.train.batches(some, 100):
            total += self.undrawn.prepare(raw, torch.Generator()).cpu().sum(0, dtype=torch.float64)
        return total / len(some), len(some)


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that stand for tensors, numpy arrays and texts, in their order."""
    total = sha256()
    for part in parts:
        values = part.cpu().numpy() if isinstance(part, Tensor) else part
        if isinstance(values, str):
            total.update(values.encode())
        else:
            total.update(f"{values.dtype}{values.shape}".encode())
            total.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)  # any type
    return total.hexdigest()[:16]


def derive(seed: int, *path: str | int) -> int:
    """Make a seed of 63 bits for one purpose: no hidden state is lost when a run is interrupted."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device, seed: int, *path: str | int) -> torch.Generator:
    """Make a new generator for one purpose."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


def epoch_order(device: torch.device, seed: int, epoch: int, examples: int) -> Tensor:
    """Draw the order of an epoch's examples. -> [examples] int64, on the device."""
    source = generator(device, seed, "order", epoch)
    return torch.randperm(examples, generator=source, device=device)
