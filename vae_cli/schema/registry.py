"""Which schema belongs to which choice of a config group. No values, no torch, no Hydra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from vae_cli.rules import value

# (group, name) -> schema; filled by @component, read by cli.py (Hydra's store) and by `typed`
SCHEMAS: dict[tuple[str, str], type[Any]] = {}


def component(group: str, *names: str) -> Callable[[type[Any]], type[Any]]:
    """Register a schema for the choices `names` of a config group, one YAML each."""

    def register(schema: type[Any]) -> type[Any]:
        for name in names:
            SCHEMAS[group, name] = schema
        return schema

    return register


@dataclass
class Component:
    """A choice of a config group. `name` says which; `builds` is 'module:Class' for `build.py`."""

    builds: ClassVar[str]
    name: str = value("which component this is")
