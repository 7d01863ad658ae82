"""Examples that stay on the disk, and the pools of threads and processes that read them."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vae_cli import console
from vae_cli.data import memory
from vae_cli.data.images import Damaged
from vae_cli.errors import RunFailed, UserError

log = logging.getLogger(__name__)

MOST_THREADS, MOST_PROCESSES = 16, 8
FEW = 64  # examples that are decoded sooner than a worker process starts

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Streamed:
    """Files that are decoded when they are asked for. Indexed like a tensor, it gives tensors.

    A file that cannot be decoded any more is replaced by the next of the same split that can: the
    number and the order of examples never change, so nor does a resumed run.
    """

    files: tuple[str, ...]
    read: Callable[[str], NDArray[np.uint8]]  # raises Damaged
    example: tuple[int, ...]  # shape of one
    in_memory: bool | str  # "auto": where it fits
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    named: set[str] = field(default_factory=set, repr=False)  # replaced files already warned of

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that come from it."""
        return torch.uint8

    @property
    def shape(self) -> torch.Size:
        """As a tensor of all examples would have it: [N, *example]."""
        return torch.Size((len(self.files), *self.example))

    @property
    def nbytes(self) -> int:
        """What a tensor of all examples would take."""
        return self.shape.numel()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Decode some. index: a slice, or [B] int64 -> [B, *example] on the device."""
        everything = torch.arange(len(self))
        wanted = everything[index.cpu() if isinstance(index, Tensor) else index]
        return torch.cat([*self.batches(wanted, max(1, len(wanted))), self._none()])

    def take(self, index: Tensor) -> Streamed:
        """Those at `index` [M], not decoded yet."""
        return replace(self, files=tuple(self.files[i] for i in index.tolist()))

    def to(self, device: torch.device) -> Streamed:
        """The same files, giving tensors on a device."""
        return replace(self, device=device)

    def batches(self, order: Tensor | None, batch_size: int) -> Iterator[Tensor]:
        """Decode in worker processes, ahead of use. order [M] int64, None: all, in order."""
        wanted = range(len(self)) if order is None else order.tolist()  # waits for the device once
        parts = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
        workers = min(processes(), len(parts)) if len(wanted) > FEW else 0
        pinned = self.device.type == "cuda"
        loader: DataLoader[Any] = DataLoader(
            _Batches(self),
            batch_size=None,
            sampler=parts,
            num_workers=workers,
            pin_memory=pinned,
            generator=torch.Generator(),  # it draws a seed: not from the global generator
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        for raw, replaced in _started(loader):
            self._name(replaced)
            yield raw.to(self.device, non_blocking=pinned)

    def whole(self) -> Tensor:
        """Decode all, in threads, into host memory. -> [N, *example]."""
        target = torch.empty(self.shape, dtype=self.dtype)

        def fill(i: int) -> list[tuple[str, str]]:
            array, replaced = self.decode(i)
            target[i] = torch.from_numpy(array)
            return replaced

        for replaced in in_threads(fill, range(len(self)), "decoding"):
            self._name(replaced)
        return target

    def decode(self, i: int) -> tuple[NDArray[np.uint8], list[tuple[str, str]]]:
        """Example i, and (file, why) for each that could not be decoded in its place."""
        damaged: list[tuple[str, str]] = []
        for step in range(len(self)):
            path = self.files[(i + step) % len(self)]
            try:
                return self.read(path), damaged
            except Damaged as error:
                damaged.append((path, str(error)))
        path, why = damaged[0]
        raise RunFailed(
            f"none of {len(self):,} images can be decoded any more, {printable(path)} not ({why})"
        )

    def _name(self, replaced: Sequence[tuple[str, str]]) -> None:
        for path, why in replaced:
            if path not in self.named:
                self.named.add(path)
                line = f"{printable(path)} cannot be decoded ({why}): the next image stands for it"
                log.warning("%s", line)
                console.say(line)

    def _none(self) -> Tensor:
        return torch.empty((0, *self.example), dtype=self.dtype, device=self.device)


class _Batches(Dataset[tuple[Tensor, list[tuple[str, str]]]]):
    """Whole batches by their indices, for the workers of a DataLoader."""

    def __init__(self, streamed: Streamed) -> None:
        # in a worker the device is the host: only the main process may use an accelerator
        self.streamed = streamed.to(torch.device("cpu"))

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, list[tuple[str, str]]]:
        decoded = [self.streamed.decode(i) for i in indices]
        replaced = [pair for _, pairs in decoded for pair in pairs]
        return torch.from_numpy(np.stack([array for array, _ in decoded])), replaced


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers. They touch neither the threads nor the device of this process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        return iter(loader)


def place(splits: Sequence[Streamed], device: torch.device) -> bool:
    """Whether to keep images in memory rather than on the disk; says so in one line."""
    wish = splits[0].in_memory
    needed = sum(split.nbytes for split in splits)
    count = sum(map(len, splits))
    size = "x".join(map(str, splits[0].example))
    about = f"{count:,} images of {size} ({memory.human(needed)})"
    if wish is False:
        console.say(f"{about} stay on the disk and are decoded as they are needed")
        return False
    limit = memory.allowed(device)
    if wish is True:
        there = memory.free(torch.device("cpu"))
        if needed > there:
            raise UserError(
                f"dataset.in_memory=true: {about} do not fit the {memory.human(there)} that are"
                " free; use dataset.in_memory=auto or a smaller dataset.size"
            )
    elif needed > limit:
        console.say(
            f"{about} stay on the disk and are decoded as they are needed: more than the"
            f" {memory.human(limit)} that a dataset may take"
        )
        return False
    console.say(f"{about} are kept in memory")
    return True


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], description: str
) -> list[Result]:
    """The results in order, with a progress bar on a terminal. Pillow decodes without the GIL."""
    pool = ThreadPoolExecutor(min(MOST_THREADS, _cores()))
    try:
        done = pool.map(work, items)
        return list(tqdm(done, description, len(items), leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what has not begun


def processes() -> int:
    """Worker processes that decode while the main one trains."""
    return max(1, min(MOST_PROCESSES, _cores()))


def printable(name: str) -> str:
    """A file's name on one line, whatever bytes it holds."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
