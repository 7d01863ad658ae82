"""The space of a search, read from ranges in Hydra's override grammar. No Optuna, no torch.

interval(1e-4,1e-2)            a number between, ends included
tag(log,interval(1e-4,1e-2))   the same on a logarithmic scale
int(interval(2,32))            a whole number between, ends included
range(2,33,2)                  2, 4 … 32, as in Python
adam,sgd or choice(adam,sgd)   one of these
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)

from vae_cli.errors import UserError


@dataclass(frozen=True)
class Dimension:
    """One swept setting: a range of numbers, or choices as they are typed."""

    key: str
    low: float | int = 0
    high: float | int = 0  # included
    step: float | int | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def corners(self) -> list[str]:
        """The values that are tried before the search begins, as they are typed."""
        return list(self.choices) or [repr(self.low), repr(self.high)]

    def suggest(self, trial: Any) -> str:
        """A value from an Optuna trial, as it is typed; the one that it has already, if any."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        if isinstance(self.low, int):
            step = 1 if self.step is None else self.step
            return repr(trial.suggest_int(self.key, self.low, self.high, step=step, log=self.log))
        return repr(
            trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        )


def dimension(override: Override) -> Dimension:
    """The dimension that a swept override describes. Raises UserError."""
    sweep, key, text = override.value(), override.get_key_element(), override.input_line
    if isinstance(sweep, ChoiceSweep):
        choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
        return Dimension(key, choices=choices)
    if isinstance(sweep, IntervalSweep):
        low, high, step = sweep.start, sweep.end, None
    else:
        assert isinstance(sweep, RangeSweep)
        low, step = sweep.start, sweep.step
        values = list(sweep.range())
        if not values or step <= 0:
            raise UserError(f"{text}: an empty range; write range(LOW,HIGH) with LOW < HIGH")
        high = values[-1]
    if low is None or high is None or low > high:
        raise UserError(f"{text}: the lower end comes first")
    unknown = sweep.tags - {"log"}
    log = "log" in sweep.tags
    if unknown:
        raise UserError(f"{text}: no such tag {', '.join(sorted(unknown))}; there is log")
    if log and low <= 0:
        raise UserError(f"{text}: a logarithmic range must be > 0")
    if log and step is not None:
        raise UserError(f"{text}: a logarithmic range has no steps; write tag(log,interval(a,b))")
    return Dimension(key, low, high, step, log)
