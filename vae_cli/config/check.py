"""From a plain mapping to checked settings, or one line of what to mend; when two runs are equal.

Imports neither torch nor Hydra.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from importlib.util import find_spec
from itertools import takewhile
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vae_cli.config.registry import HOW, HOW_FAR, SCHEMAS, Schema
from vae_cli.config.settings import GROUPS, Config, unknown_key
from vae_cli.console import UserError

AnySchema = TypeVar("AnySchema", bound=Schema)

HOW_KEYS = frozenset(k for k, field in Config.model_fields.items() if HOW in field.metadata)
CHANGEABLE = HOW_KEYS | {k for k, f in Config.model_fields.items() if HOW_FAR in f.metadata}

# pydantic's kind of error -> what a value must be; its context fills in the braces
_MUST_BE = {
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text (in quotes, if it looks like a number)",
    "list_type": "must be a list, as in [{input}]",
    "model_type": "must be a group of settings",
    "too_short": "needs at least {min_length} item(s)",
    "too_long": "needs at most {max_length} items",
    "literal_error": "must be {expected}",
    "missing": "must have a value",
}


def typed(plain: Mapping[str, Any]) -> Config:
    """Check a composed or loaded configuration and return it as typed settings.

    Raises UserError with one line for the first problem: an unknown key (with the nearest valid
    one), a missing or mistyped value, a value out of range, a combination that cannot work.
    """
    nodes = {group: node for group, node in plain.items() if isinstance(node, Mapping)}
    names = {"": ""} | {group: node.get("name") for group, node in nodes.items()}
    if unknown := [key for key in plain if key not in Config.model_fields]:
        raise UserError(unknown_key(str(unknown[0]), Config, names))
    missing = [key for key, item in flatten(plain).items() if item == "???"]
    if missing:
        raise UserError(f"{missing[0]} is missing: give {missing[0]}=…")
    components = {
        group: validated(schema_of(group, plain.get(group)), plain[group], f"{group}.", names)
        for group in GROUPS
    }
    loggers = dict(_loggers(plain.get("logger") or {}))
    config = validated(Config, {**plain, **components, "logger": loggers})
    if problem := next(config.problems(), None):
        raise UserError(problem)
    needed = (component.plugin for _, component in config.components() if component.plugin)
    return config.model_copy(update={"plugins": [*dict.fromkeys([*config.plugins, *needed])]})


def _loggers(nodes: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """Check the settings of each logger. Raises UserError."""
    for name, node in nodes.items():
        if not isinstance(node, Mapping) or node.get("name") != name:
            fix = f"choose it, as in logger=[tensorboard,{name}]"
            own = f"a file of your own begins with # @package logger.{name}"
            raise UserError(f"logger.{name}: no such logger is chosen; {fix} ({own})")
        yield name, validated(schema_of("logger", node), node, f"logger.{name}.")


def refuse_missing(config: Config) -> None:
    """Raise UserError for a logger whose library is not installed, before any work begins."""
    for name, logger in config.logger.items():
        # a folder wandb/, where W&B keeps its files, is a module too, without origin
        if logger.extra and getattr(find_spec(logger.extra), "origin", None) is None:
            raise UserError(f"logger={name} needs an extra: pip install 'vae-cli[{logger.extra}]'")


def validated(
    schema: type[AnySchema],
    values: Mapping[str, Any],
    prefix: str = "",
    chosen: Mapping[str, Any] | None = None,
) -> AnySchema:
    """Check the values of one schema. prefix: what stands before their names, as in "model.".

    chosen: for `unknown_key`. Raises UserError with one line: an unknown key before anything else.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        for problem in problems:
            if problem["type"] == "extra_forbidden":
                path = prefix + ".".join(map(str, problem["loc"]))
                raise UserError(unknown_key(path, schema, chosen or {})) from error
        raise UserError(_explain(problems[0], problems, prefix)) from error


def schema_of(group: str, node: Any) -> type[Schema]:
    """The schema of a group's choice, by the `name` in its node. Raises UserError."""
    if not isinstance(node, Mapping):
        raise UserError(f"{group}={shown(node)}: must be a group of settings with a name")
    name = str(node.get("name"))
    if (schema := SCHEMAS.get((group, name))) is None:
        names = [n for g, n in SCHEMAS if g == group]
        raise UserError(
            f"{group}.name={name}: no such {group}{nearest(name, names)};"
            f" there are {', '.join(names)}"
        )
    return schema


def _explain(problem: ErrorDetails, problems: list[ErrorDetails], prefix: str) -> str:
    """One line for a problem that pydantic has: the setting, its value, what it must be."""
    # behind the number of an item stand the types that it could have
    parts = takewhile(lambda part: isinstance(part, str), problem["loc"])
    names = [str(part) for part in parts] or ["settings"]
    value = shown(problem["input"])
    # for a setting of one type or another, pydantic names the type behind the setting
    same = [p for p in problems if p["loc"][:1] == (names[0],)]
    several = len(same) > 1 and all(p["input"] == problem["input"] for p in same)
    texts = [_must_be(each) for each in (same if several else [problem])]
    text = " or ".join([texts[0], *(t.removeprefix("must be ") for t in texts[1:])])
    name = prefix + ".".join(names[:1] if several else names)
    if any(isinstance(part, int) for part in problem["loc"]):
        return f"{name}: each {text}, and one is {value}"
    return f"{name}: {text}" if problem["type"] == "missing" else f"{name}={value}: {text}"


def _must_be(problem: ErrorDetails) -> str:
    """What a value must be, as 'must be …'."""
    context = {"input": shown(problem["input"]), **problem.get("ctx", {})}
    text = _MUST_BE.get(problem["type"], problem["msg"]).format(**context)
    return text.replace("'", "")


def nearest(word: str, choices: Iterable[str]) -> str:
    """' (did you mean …?)' for the nearest choice, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ------------------------------------------------------------------------------ equal settings


def as_container(config: Schema) -> dict[str, Any]:
    """The settings as plain dicts, lists, strings and numbers, ready for YAML or JSON."""
    return config.model_dump(by_alias=True)


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model': {'latent_dim': 2}} -> {'model.latent_dim': 2}."""
    flat: dict[str, Any] = {}
    for key, item in plain.items():
        if isinstance(item, Mapping):
            flat |= flatten(cast(Mapping[str, Any], item), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """model.latent_dim -> latent_dim, model.name -> model, where that stays clear."""
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    names = list(short.values())
    return {key: name if names.count(name) == 1 else key for key, name in short.items()}


def given_keys(texts: Iterable[str]) -> list[str]:
    """The settings that texts KEY=VALUE name, each once; of a config group its `name`."""
    keys = [text.lstrip("+~").partition("=")[0].partition("@")[0] for text in texts]
    return list(dict.fromkeys(f"{key}.name" if key in GROUPS else key for key in keys))


def is_among(key: str, names: frozenset[str]) -> bool:
    """Whether a setting, or the whole that it is a part of, is one of these."""
    return not names.isdisjoint((key, key.partition(".")[0]))


def differing(
    before: Config, after: Config, ignore: frozenset[str] = HOW_KEYS
) -> dict[str, tuple[Any, Any]]:
    """{'beta': (1.0, 4.0)} for each setting that differs; those in `ignore` are left out."""
    old, new = flatten(as_container(before)), flatten(as_container(after))
    return {
        key: (old.get(key, "absent"), new.get(key, "absent"))
        for key in {**old, **new}
        if not is_among(key, ignore) and old.get(key, "absent") != new.get(key, "absent")
    }


def higher_is_better(metric: str) -> bool:
    """Whether a larger number of a metric, such as val/elbo, is better: bounds of log p(x)."""
    return metric.endswith(("elbo", "bound", "active_units", "per_second"))


def identity(config: Config) -> str:
    """A name for what a run computes: equal for runs that would give equal numbers."""
    flat = flatten(as_container(config))
    return digest({key: item for key, item in flat.items() if not is_among(key, HOW_KEYS)})


def digest(content: Any) -> str:
    """16 hexadecimal digits that stand for plain data."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
