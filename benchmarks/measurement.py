"""The measurement of one contender in one process; medians and ratios over the rounds."""

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
        """Examples / seconds of the median training pass."""
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
        """Write median (low–high), or the median alone where there is one number."""
        if self.count == 1:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.low:{form}}–{self.high:{form}})"


def spread(values: list[float]) -> Spread:
    """Take the median and the ends. Raises ValueError where there are no values."""
    if not values:
        raise ValueError("no measurements")
    return Spread(median(values), min(values), max(values), len(values))


def ratios(rounds: Rounds, ours: str, other: str) -> list[float]:
    """Divide our examples per second by the other's, within each round that has both.

    A busy moment of the machine slows both contenders of a round.
    """
    return [
        found[ours].examples_per_second / found[other].examples_per_second
        for found in rounds
        if ours in found and other in found
    ]


def overheads(rounds: Rounds, ours: str = "ours", quiet: str = "ours, quiet") -> list[float]:
    """Return the share of logging, checkpoints and pictures in a whole epoch, for each round."""
    return [
        1 - median(found[quiet].epoch_seconds) / median(found[ours].whole_seconds)
        for found in rounds
        if ours in found and quiet in found and found[ours].whole_seconds
    ]


def gathered(rounds: Rounds, name: str, attribute: str) -> list[float]:
    """Collect an attribute over the rounds; lists are joined, missing values left out."""
    values: list[float] = []
    for found in rounds:
        value = getattr(found[name], attribute) if name in found else None
        if value is not None:
            values += value if isinstance(value, list) else [value]
    return values
