"""Settings of several runs side by side: which vary, which are common. No torch, no pandas."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from vae_cli.config.check import HOW_KEYS, flatten, is_among, short_names
from vae_cli.config.registry import PLACE, SCHEMAS
from vae_cli.runs.saved import SavedRun

Cells = dict[str, float | int | str]  # flat settings
PRESET = "experiment"  # a config group without a node: only a command line names its choice
SEED = "seed"  # runs that differ in nothing else are one group
# what a reader wants to know of all runs first
FIXED = (PRESET, "dataset.name", "model.name", "likelihood.name", "beta", "epochs", SEED)


def cells(run: SavedRun, overrides: Iterable[str] = ()) -> Cells:
    """Flat settings: a number as it is, any other value as it is typed: true, null, [400,200]."""
    flat: Cells = {}
    for key, value in flatten(run.settings).items():
        is_plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        flat[key] = value if is_plain else json.dumps(value, separators=(",", ":"))
    words = [text.partition("=") for text in overrides]
    return flat | {key: choice for key, _, choice in words if key == PRESET}


def text(cell: Any) -> str:
    """A cell as a text: 0.5, 1e-05, [400,200]; nothing for NaN, which a run does not have."""
    return ("" if cell != cell else f"{cell:g}") if isinstance(cell, float) else str(cell)


def varied(runs: Sequence[Cells], given: Sequence[str] = ()) -> list[str]:
    """The settings that vary and say something, those `given` on command lines first.

    What follows from a choice is left out: dataset=mnist,digits changes the networks' sizes too.
    """

    def follows(key: str) -> bool:  # each combination of choices has one value
        pairs = {(*map(run.get, choices), run[key]) for run in runs if key in run}
        return len(pairs) == len({pair[:-1] for pair in pairs})

    keys = dict.fromkeys([*given, *(key for run in runs for key in run)])
    values = {key: {run[key] for run in runs if key in run} for key in keys}
    values.get("nll_samples", set()).discard(0)  # a run that is measured once more is no other run
    several = [key for key in keys if len(values[key]) > 1]
    choices: list[str] = []
    kept: list[str] = []
    # what is chosen comes before what may follow from it
    for key in sorted(several, key=lambda k: (k != PRESET, k not in given, not k.endswith("name"))):
        is_how = is_among(key, HOW_KEYS) or key.startswith("dataset.suggested")
        if key in given or not (is_how or (choices and follows(key))):
            kept.append(key)
            choices += [key] if key == PRESET or key.endswith(".name") else []
    return [key for key in several if key in kept]


def common(settings: Sequence[Cells], keys: Sequence[str]) -> dict[str, str]:
    """Those of the settings, with short names, that have one value in all runs."""
    kept = {key: value for key, value in settings[0].items() if key in keys and value != "null"}
    first = sorted((key for key in kept if not is_among(key, HOW_KEYS)), key=keys.index)
    names = short_names(k for k in first if all(run.get(k) == kept[k] for run in settings))
    return {name: text(kept[key]) for key, name in names.items()}


def kinds_of(settings: Sequence[Cells], runs: Sequence[SavedRun]) -> list[int]:
    """Number the runs: equal numbers for equal data, as they were measured, and likelihood."""
    schemas = [schema for (group, _), schema in SCHEMAS.items() if group == "dataset"]
    fields = [item for schema in schemas for item in schema.model_fields.items()]
    places = {f"dataset.{name}" for name, field in fields if PLACE in field.metadata}
    kinds: list[tuple[str, str]] = []
    for flat, run in zip(settings, runs, strict=True):
        own = {k: x for k, x in flat.items() if k.startswith("dataset.") and "suggested" not in k}
        names = {k: x for k, x in own.items() if k not in places}
        names["likelihood"] = flat.get("likelihood.name", "")
        data = run.summary.get("data") or {}
        kinds.append((json.dumps(names, sort_keys=True), str(data.get("digest") or "")))
    known = dict(kind for kind in kinds if kind[1])  # a run that never began has no data
    kinds = [(names, digest or known.get(names, "")) for names, digest in kinds]
    return [[*dict.fromkeys(kinds)].index(kind) for kind in kinds]
