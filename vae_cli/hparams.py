"""Which settings say what a run was, and which of them differ among runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from vae_cli.checking import as_container, flatten
from vae_cli.config import GROUPS, Config
from vae_cli.identity import INCIDENTAL

PRESET = "experiment"  # a group without a node: known only from the command line


def settings(config: Config) -> dict[str, Any]:
    """A typed configuration as a flat mapping, `model.latent_dim` -> 2."""
    return flatten(as_container(config))


def given_keys(overrides: Iterable[str]) -> list[str]:
    """The settings that `KEY=VALUE` texts name, each once; of a group its `name`."""
    keys = [text.lstrip("+~").partition("=")[0].partition("@")[0] for text in overrides]
    names = [f"{key}.name" if key in GROUPS else key for key in keys]
    return list(dict.fromkeys(names))


def varied(runs: Sequence[Mapping[str, Any]], given: Iterable[str] = ()) -> list[str]:
    """Settings with more than one value among runs, those of the command line (`given`) first.

    Each run is a flat mapping, `model.latent_dim` -> 2. Left out is what only follows from the
    choice of a component (dataset=mnist,digits changes the networks' sizes too) and how a run was
    done (INCIDENTAL), unless it was given.
    """
    given = list(given)
    keys = dict.fromkeys([*given, *(key for run in runs for key in run)])
    differing = [
        key
        for key in keys
        if len({comparable(run[key]) for run in runs if key in run}) > 1
        and not key.startswith("dataset.suggested")
        and (key in given or key not in INCIDENTAL)
    ]
    choices: list[str] = []
    for key in [PRESET, *given, *keys]:
        is_choice = key == PRESET or key.endswith(".name")
        if key not in differing or key in choices or not is_choice:
            continue
        if key in given or not _follows(key, choices, runs):
            choices.append(key)
    return [
        key
        for key in differing
        if key in given
        or key in choices
        or not ("." in key or PRESET in choices)
        or not _follows(key, choices, runs)
    ]


def comparable(item: Any) -> Hashable:
    """A value that is equal and hashable where two settings are the same: 1 and 1.0, not True."""
    if isinstance(item, list | tuple):
        return tuple(comparable(part) for part in item)
    if isinstance(item, bool) or not isinstance(item, int | float):
        return str(item)
    return item


def _follows(key: str, choices: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the chosen components alone decide this setting's value."""
    if not choices:
        return False
    found: dict[Hashable, set[Hashable]] = {}
    for run in runs:
        if key in run:
            chosen = tuple(comparable(run.get(choice)) for choice in choices)
            found.setdefault(chosen, set()).add(comparable(run[key]))
    return all(len(values) == 1 for values in found.values())
