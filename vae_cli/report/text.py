"""Numbers, settings and names as text that can be shown anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from vae_cli.errors import one_line

MOST_DECIMALS = 4
HUGE = 1e7  # from here on a run has diverged, and all digits would only widen the table


def printable(item: object) -> str:
    """A text without line breaks, control characters or bytes that are no text: terminals obey
    some of them, and files in UTF-8 cannot hold others."""
    text = one_line(item)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def setting(item: Any) -> str:
    """A setting's value as it is typed: 0.5, 1, [400,200], true, null."""
    if isinstance(item, float):
        return f"{item:g}"
    if isinstance(item, str):
        return item
    return json.dumps(item, separators=(",", ":"), default=str)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """model.latent_dim -> latent_dim, model.name -> model, where that stays clear."""
    keys = list(keys)
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    return {key: s if list(short.values()).count(s) == 1 else key for key, s in short.items()}


def decimals(values: Sequence[float], stds: Sequence[float]) -> int:
    """Decimals for a column: two digits of the typical spread over seeds, else about five digits
    of the typical value."""
    spread, size = _typical(stds), _typical(values)
    if spread:
        return min(MOST_DECIMALS, max(0, 1 - math.floor(math.log10(spread))))
    return min(3, max(0, 5 - math.floor(math.log10(size)))) if size else 0


def number(value: float, digits: int) -> str:
    """A number with so many decimals; one that is out of all proportion with an exponent."""
    return f"{value:.{digits}f}" if abs(value) < HUGE else f"{value:.3g}"


def _typical(values: Sequence[float]) -> float:
    """The median of the sizes that are not 0; 0 where there is none."""
    sizes = sorted(abs(value) for value in values if value)
    return sizes[(len(sizes) - 1) // 2] if sizes else 0.0


def seconds(value: float | None) -> str:
    """A duration: 12.3 s, 4.5 min, 2.1 h."""
    if value is None:
        return ""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def shortened(text: str, width: int) -> str:
    """A text cut to a width, with … where something is missing."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
