"""Metrics of the steps since the last reading, kept on the device, and the epoch's sums so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """What a reading brings: every step's metrics since the one before."""

    names: list[str]
    rows: list[list[float]]  # a row a step
    counts: list[int]  # examples in each step

    def means(self) -> dict[str, float]:
        """Weighted by the examples in a step."""
        total = sum(self.counts)
        columns = zip(*self.rows, strict=True)
        return {
            name: sum(v * n for v, n in zip(column, self.counts, strict=True)) / total
            for name, column in zip(self.names, columns, strict=True)
        }

    def broken(self) -> list[tuple[int, str]]:
        """The rows that are not finite, each with the name of its first such number."""
        found = []
        for number, row in enumerate(self.rows):
            names = [n for n, v in zip(self.names, row, strict=True) if not math.isfinite(v)]
            found += [(number, names[0])] if names else []
        return found

    def without(self, left_out: set[int]) -> Window:
        """The other rows."""
        kept = [n for n in range(len(self.rows)) if n not in left_out]
        return Window(self.names, [self.rows[n] for n in kept], [self.counts[n] for n in kept])


class Meter:
    """Collects without waiting for the device; `peek` waits.

    Part of the training state: a run that stops between two readings goes on with the same rows.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        """capacity: steps between two readings, at most."""
        self.capacity = capacity
        self.device = device
        self.names: list[str] = []
        self.rows = torch.empty(0, device=device)  # [capacity, metrics]
        self.counts: list[int] = []  # examples in each row that is filled
        self.sums: dict[str, float] = {}  # over the epoch's examples, up to the last reading
        self.total = 0  # examples in these sums
        self.skipped = 0  # updates of the epoch that were left out

    def write(self, metrics: dict[str, Tensor], row: Tensor | None = None) -> None:
        """A step's metrics, scalars on the device. row: [1] int64 on the device, where to; None:
        into the next row."""
        if not self.names:
            self._allocate(list(metrics))
        values = list(metrics.values())
        if row is None:
            torch.stack(values, out=self.rows[len(self.counts)])
        else:
            self.rows.index_copy_(0, row, torch.stack(values)[None])

    def count(self, examples: int) -> None:
        """A row has been written, of means over so many examples."""
        self.counts.append(examples)

    def peek(self) -> Window:
        """All rows since the last reading. Waits for the device."""
        return Window(self.names, self.rows[: len(self.counts)].tolist(), self.counts)

    def take(self, window: Window, skipping: bool = False) -> Window:
        """Add what `peek` returned to the epoch's sums; the next row is the first again.

        skipping: rows that are not finite stand for updates that were left out. Returns the others.
        """
        if skipping:
            left_out = {row for row, _ in window.broken()}
            self.skipped += len(left_out)
            window = window.without(left_out)
        for name, mean in window.means().items() if window.rows else ():
            self.sums[name] = self.sums.get(name, 0.0) + mean * sum(window.counts)
        self.total += sum(window.counts)
        self.counts = []
        return window

    def epoch(self) -> dict[str, float]:
        """The means over the epoch's examples up to the last reading; the next epoch begins."""
        means = {name: value / self.total for name, value in self.sums.items()}
        self.sums, self.total, self.skipped = {}, 0, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on between two readings."""
        return {
            "names": self.names,
            "rows": self.rows[: len(self.counts)].cpu(),
            "counts": self.counts,
            "sums": self.sums,
            "total": self.total,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.sums, self.total, self.skipped = state["sums"], state["total"], state["skipped"]
        self.counts = list(state["counts"])
        self.capacity += len(self.counts)  # `log_every` may have become larger
        if state["names"]:
            self._allocate(state["names"])
            self.rows[: len(self.counts)] = state["rows"].to(self.device)

    def _allocate(self, names: list[str]) -> None:
        self.names = names
        self.rows = torch.empty(self.capacity, len(names), device=self.device)
