"""From a composed or loaded configuration to checked dataclasses, or one line of what to mend.

Imports neither torch nor Hydra.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_cli.config import GROUPS, Config, OnNonfinite
from vae_cli.errors import UserError
from vae_cli.rules import rule_of
from vae_cli.schema.datasets import ArraysConfig, BetaPDFConfig, ImageFolderConfig
from vae_cli.schema.losses import CapacityBetaConfig, WarmupBetaConfig
from vae_cli.schema.models import Posterior
from vae_cli.schema.optimization import (
    CosineLRConfig,
    PlateauLRConfig,
    RMSpropConfig,
    SGDConfig,
)
from vae_cli.schema.registry import SCHEMAS


def typed(node: DictConfig) -> Config:
    """A composed or loaded configuration as checked dataclasses.

    Raises UserError with one line for the first problem: an unknown key (with the nearest valid
    one), a missing or mistyped value, a value out of range, a combination that cannot work.
    """
    plain = OmegaConf.to_container(node, resolve=False)
    if not isinstance(plain, dict):
        raise UserError("the configuration is not a mapping of settings to values")
    schema = OmegaConf.structured(Config)
    _refuse_unknown_keys(plain, Config)
    for group in GROUPS:
        component_schema = _schema_for(group, plain.get(group))
        _refuse_unknown_keys(plain[group], component_schema, f"{group}.")
        schema[group] = OmegaConf.structured(component_schema)
    try:
        merged = OmegaConf.merge(schema, node)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(explain_value_error(error)) from error
    assert isinstance(config, Config)
    problem = next(problems(config), None) or next(_impossible(config), None)
    if problem:
        raise UserError(problem)
    return config


def as_container(config: Config) -> dict[str, Any]:
    """The configuration as plain dicts, lists, strings and numbers, ready for YAML or JSON."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def _plain(node: Any) -> Any:
    """Enumerations as their names."""
    if isinstance(node, dict):
        return {key: _plain(item) for key, item in node.items()}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node.name if isinstance(node, Enum) else node


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model': {'latent_dim': 2}} -> {'model.latent_dim': 2}."""
    flat: dict[str, Any] = {}
    for key, item in plain.items():
        if isinstance(item, dict):
            flat.update(flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def nearest(word: str, choices: typing.Iterable[str]) -> str:
    """' (did you mean …?)' for the nearest choice, or nothing."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def key_names(schema: type[Any]) -> list[str]:
    """The settings of a schema, in order."""
    return [f.name for f in dataclasses.fields(schema)]


# OmegaConf's words -> what to write instead
_FIXES = (
    (r"could not be converted to Float", "must be a number"),
    (r"could not be converted to Integer", "must be a whole number"),
    (r"is not a valid bool", "must be true or false"),
    (r"is not a ListConfig", "must be a list such as [400,200]"),
    (r"is not Optional|mandatory value|Incompatible value 'None'", "must have a value"),
    (r"expected one of \[(.*)\]", r"must be one of \1"),
)


def explain_value_error(error: OmegaConfBaseException) -> str:
    """OmegaConf's message as one line that begins with the setting."""
    first = str(error.msg or error).strip().splitlines()[0]
    schema = getattr(error, "object_type", None)
    key = getattr(error, "full_key", None) or getattr(error, "key", None)
    if not key and (named := re.search(r"field '(\w+)'|value: (\w+)", first)):
        key = named.group(1) or named.group(2)
    if "not in" in first and dataclasses.is_dataclass(schema) and isinstance(schema, type):
        return unknown_key(str(key), schema)
    for pattern, fix in _FIXES:
        if match := re.search(pattern, first):
            return f"{key}: {match.expand(fix)}"
    return f"{key}: {first}" if key else first


def unknown_key(path: str, schema: type[Any]) -> str:
    """The line for a key that a schema does not have."""
    parent, _, last = path.rpartition(".")
    names = key_names(schema)
    close = nearest(last, names)
    where = f"{parent} has " if parent else "settings are "
    return f"{path}: no such setting" + (close or f"; {where}{', '.join(names)}")


def _schema_for(group: str, node: Any) -> type[Any]:
    name = node.get("name") if isinstance(node, dict) else None
    schema = SCHEMAS.get((group, str(name)))
    if schema is None:
        names = sorted(n for g, n in SCHEMAS if g == group)
        raise UserError(
            f"{group}.name={name}: no such {group}{nearest(str(name), names)};"
            f" there are {', '.join(names)}"
        )
    return schema


def _refuse_unknown_keys(plain: dict[Any, Any], schema: type[Any], prefix: str = "") -> None:
    annotations = typing.get_type_hints(schema)
    names = key_names(schema)
    for key, item in plain.items():
        if key not in names:
            raise UserError(unknown_key(f"{prefix}{key}", schema))
        nested = annotations[key]
        # a group's own keys are those of the chosen component, not of its base class
        if isinstance(item, dict) and dataclasses.is_dataclass(nested) and key not in GROUPS:
            assert isinstance(nested, type)
            _refuse_unknown_keys(item, nested, f"{prefix}{key}.")


def problems(node: Any, prefix: str = "") -> Iterator[str]:
    """A line for each value out of range, in the order of the schema."""
    for schema_field in dataclasses.fields(node):
        path, item = prefix + schema_field.name, getattr(node, schema_field.name)
        rule = rule_of(schema_field)
        if dataclasses.is_dataclass(item):
            yield from problems(item, path + ".")
        elif isinstance(item, list):
            if len(item) < rule.items_at_least:
                yield f"{path}={item}: needs at least {rule.items_at_least} item"
            problem = next(filter(None, map(rule.problem, item)), None)
            if problem:
                yield f"{path}={item}: each {problem}"
        elif problem := rule.problem(item):
            yield f"{path}={_shown(item)}: {problem}"


def _shown(item: Any) -> str:
    return f"{item:g}" if isinstance(item, float) else str(item)


def _impossible(c: Config) -> Iterator[str]:
    """Combinations that cannot work; each line names the settings and a way out."""
    model, dataset, likelihood = c.model, c.dataset, c.likelihood
    if dataset.kind is not None and dataset.kind not in model.accepts:
        yield cannot_take(c)
    if likelihood.needs_unit_interval and dataset.unit_interval is False:
        yield (
            f"likelihood={likelihood.name} needs data in [0, 1] and dataset={dataset.name} goes"
            " beyond; use likelihood=squared_error, gaussian or laplace"
        )
    if c.objective.needs_density and model.posterior is Posterior.point:
        yield (
            f"objective={c.objective.name} needs a VAE and model={model.name} has a deterministic"
            " code; use objective=elbo, or model=mlp_vae or conv_vae"
        )
    yield from _impossible_schedules(c)
    if c.manifold_range is not None and not (
        len(c.manifold_range) == 2 and c.manifold_range[0] < c.manifold_range[1]
    ):
        yield f"manifold_range={c.manifold_range}: must be two numbers, the lower one first"
    if c.dataset.val_size == 0 and c.patience is not None:
        yield (
            f"patience={c.patience} needs validation data and dataset.val_size=0;"
            " give dataset.val_size or patience=null"
        )
    if isinstance(dataset, BetaPDFConfig):
        if dataset.x_min >= dataset.x_max:
            yield f"dataset.x_min={dataset.x_min:g}: must be < dataset.x_max={dataset.x_max:g}"
        if dataset.val_size is not None and dataset.val_size >= dataset.num_curves:
            yield (
                f"dataset.val_size={dataset.val_size}: must be less than"
                f" dataset.num_curves={dataset.num_curves}"
            )
    if isinstance(dataset, ImageFolderConfig) and dataset.channels == 2:
        yield "dataset.channels=2: must be 1 (grey) or 3 (RGB)"
    if isinstance(dataset, ArraysConfig) and dataset.test and dataset.test_size is not None:
        yield (
            f"dataset.test_size={dataset.test_size}: the test examples come from"
            f" dataset.test={dataset.test}; give one of the two"
        )
    if isinstance(c.optimizer, SGDConfig) and c.optimizer.nesterov and c.optimizer.momentum == 0:
        yield "optimizer.nesterov=true needs optimizer.momentum > 0"
    if c.on_nonfinite is OnNonfinite.skip and isinstance(c.optimizer, RMSpropConfig):
        yield (
            f"on_nonfinite=skip cannot leave out an update of optimizer={c.optimizer.name};"
            " use optimizer=adam, adamw or sgd"
        )


def cannot_take(c: Config) -> str:
    """The line for a dataset of curves and a model that needs images."""
    return (
        f"model={c.model.name} cannot take dataset={c.dataset.name}: it needs images and these are"
        " 1-D curves; use model=mlp_vae or model=ae"
    )


def _impossible_schedules(c: Config) -> Iterator[str]:
    warmup = c.beta_schedule
    if (
        isinstance(warmup, CapacityBetaConfig)
        or (isinstance(warmup, WarmupBetaConfig) and warmup.steps is None)
    ) and warmup.epochs > c.epochs:
        yield (
            f"beta_schedule.epochs={warmup.epochs:g}: the warm-up is longer than the training"
            f" (epochs={c.epochs}), so beta would never be reached"
        )
    if isinstance(c.scheduler, CosineLRConfig) and c.scheduler.warmup_epochs >= c.epochs:
        yield (
            f"scheduler.warmup_epochs={c.scheduler.warmup_epochs:g}: must be less than"
            f" epochs={c.epochs}"
        )
    if isinstance(c.scheduler, PlateauLRConfig) and c.dataset.val_size == 0:
        yield "scheduler=plateau needs validation data and dataset.val_size=0"
