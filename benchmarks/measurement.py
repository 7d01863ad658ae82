"""What one contender measured in one process, and medians, spreads and ratios over the rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One process of one contender. Seconds exclude the epoch that warms up."""

    examples: int  # in an epoch
    epoch_seconds: list[float]  # the pass over the training set alone
    whole_seconds: list[float] = field(default_factory=list)  # and all that comes with an epoch
    train_loss: float | None = None  # mean over the last epoch, nats an example
    test_elbo: float | None = None  # after the last epoch, nats an example
    peak_memory_mib: float | None = None  # of the process's resident memory
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def examples_per_second(self) -> float:
        """Of a training pass."""
        return self.examples / median(self.epoch_seconds)


Rounds = list[dict[str, Measured]]  # a dictionary a round, by the contender's name


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of a number over the rounds."""

    median: float
    low: float
    high: float
    count: int

    def text(self, form: str = ",.0f") -> str:
        """median (low–high), the ends only where there are several."""
        if self.count == 1:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.low:{form}}–{self.high:{form}})"


def spread(values: list[float]) -> Spread:
    """Raises ValueError where there is nothing to take the median of."""
    if not values:
        raise ValueError("no measurements")
    return Spread(median(values), min(values), max(values), len(values))


def ratios(rounds: Rounds, ours: str, other: str) -> list[float]:
    """How many times the other's examples per second, within each round that has both.

    Within a round, because a busy moment of the machine then slows both.
    """
    return [
        found[ours].examples_per_second / found[other].examples_per_second
        for found in rounds
        if ours in found and other in found
    ]


def overheads(rounds: Rounds, ours: str = "ours", quiet: str = "ours, quiet") -> list[float]:
    """Share of a whole epoch with all its logging that a pass with none of it does not need."""
    return [
        1 - median(found[quiet].epoch_seconds) / median(found[ours].whole_seconds)
        for found in rounds
        if ours in found and quiet in found and found[ours].whole_seconds
    ]


def gathered(rounds: Rounds, name: str, attribute: str) -> list[float]:
    """An attribute over the rounds, lists joined, what was not measured left out."""
    values: list[float] = []
    for found in rounds:
        value = getattr(found[name], attribute) if name in found else None
        if value is not None:
            values += value if isinstance(value, list) else [value]
    return values
