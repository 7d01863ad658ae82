"""What a setting may be: its line of help and its limits, kept beside it in the schema."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a setting means and which values it may take; for a list, which its items may take."""

    help: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    pattern: str | None = None
    expected: str | None = None  # says a pattern in words
    items_at_least: int = 0
    # says where or how a run is done: its numbers do not depend on it, rounding aside
    incidental: bool = False
    # a run can go on with another value: what was trained so far does not depend on it
    extendable: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with one number or string, as 'must be …', or None."""
        if isinstance(value, bool | Enum):
            return None
        if isinstance(value, int | float):
            if not math.isfinite(value):
                return "must be a finite number"
            if self.above is not None and not value > self.above:
                return f"must be > {self.above:g}"
            if self.at_least is not None and not value >= self.at_least:
                return f"must be >= {self.at_least:g}"
            if self.below is not None and not value < self.below:
                return f"must be < {self.below:g}"
            if self.at_most is not None and not value <= self.at_most:
                return f"must be <= {self.at_most:g}"
        if isinstance(value, str) and self.pattern and not re.fullmatch(self.pattern, value):
            return f"must be {self.expected}"
        return None


def value(help: str, **limits: Any) -> Any:
    """A setting without a default, with its line of help, limits and kind (see `Rule`)."""
    return field(metadata={"rule": Rule(help, **limits)})


def rule_of(schema_field: dataclasses.Field[Any]) -> Rule:
    """The rule of a setting. A group's node has none of its own."""
    rule = schema_field.metadata.get("rule")
    return rule if isinstance(rule, Rule) else Rule("")
