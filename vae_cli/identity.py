"""When two runs are the same run: their settings, less those that say where and how.

Each setting's rule says of which kind it is (`incidental`, `extendable` in `rules.py`). Imports
neither torch nor Hydra.
"""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha256
from typing import Any

from vae_cli.checking import as_container, flatten
from vae_cli.config import Config
from vae_cli.rules import rule_of
from vae_cli.schema.registry import SCHEMAS


def _marked(flag: str) -> frozenset[str]:
    """The settings whose rule has this flag, by the names they are typed with."""
    schemas = [("", Config), *((f"{group}.", schema) for (group, _), schema in SCHEMAS.items())]
    return frozenset(
        prefix + field.name
        for prefix, schema in schemas
        for field in dataclasses.fields(schema)
        if getattr(rule_of(field), flag)
    )


INCIDENTAL = _marked("incidental")  # where and how: the numbers do not depend on them
EXTENDABLE = _marked("extendable")  # how far: a run can go on with another value
CHANGEABLE = INCIDENTAL | EXTENDABLE  # what a run that goes on may change


def differing(before: Config, after: Config, ignore: frozenset[str]) -> dict[str, tuple[Any, Any]]:
    """{'beta': (1.0, 4.0)} for each setting that differs, those of `ignore` aside."""
    old, new = flatten(as_container(before)), flatten(as_container(after))
    absent: Any = "absent"
    return {
        key: (old.get(key, absent), new.get(key, absent))
        for key in {**old, **new}
        if key not in ignore and old.get(key, absent) != new.get(key, absent)
    }


def differing_keys(before: Config, after: Config) -> list[str]:
    """'beta: 1.0, now 4.0' for each setting that differs and may not."""
    found = differing(before, after, CHANGEABLE)
    return [f"{key}: {old}, now {new}" for key, (old, new) in found.items()]


def identity(config: Config) -> str:
    """A name for what a run computes: equal for runs that would give the same numbers."""
    flat = flatten(as_container(config))
    return digest({key: item for key, item in flat.items() if key not in INCIDENTAL})


def digest(content: Any) -> str:
    """16 hexadecimal digits that stand for plain data."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
