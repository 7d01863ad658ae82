"""Plug-ins: modules outside this package that bring components of a user's own.

The user names them (plugins=…, VAE_CLI_PLUGINS), or an installed package does (entry points).
A run folder may name them too, as a text: nothing is imported because it stands there.
"""

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vae_cli.config.check import nearest
from vae_cli.config.registry import PLUGINS, SCHEMAS, config_dir, listed
from vae_cli.config.settings import GROUPS, Config, LoggerConfig
from vae_cli.console import UserError, one_line

VARIABLE = "VAE_CLI_PLUGINS"  # of the environment: names of modules with commas between


def load_plugins(given: str | Sequence[str] = ()) -> None:
    """Import each plug-in once: `given` ("a,b" or a list), of the environment, of entry points.

    Modules are also looked for in the current folder, after all other places. Raises UserError.
    """
    for point in entry_points(group="vae_cli.plugins"):
        _load(point.module, f"entry point {point.name}")
    for source, names in ((VARIABLE, os.environ.get(VARIABLE, "")), ("plugins", given)):
        for name in listed(names):
            if (here := os.getcwd()) not in sys.path:  # a console script does not look there
                sys.path.append(here)
            _load(name, f"{source}={name}")


def named_plugins(overrides: Iterable[str]) -> str:
    """The value of `plugins=…` among texts KEY=VALUE: known before Hydra reads the others."""
    pairs = (text.lstrip("+").partition("=") for text in overrides)
    return ",".join(value.strip("[]'\" ") for key, _, value in pairs if key == "plugins")


def refuse_hidden(folder: Path, source: str) -> None:
    """Raise UserError for a file of a user's folder that Hydra would not read, but one of ours."""
    for other in (config_dir(), *PLUGINS.values()):
        for path in other.rglob("*.yaml") if other != folder else ():
            if (mine := folder / path.relative_to(other)).exists():
                line = f"{other} has a file of this name, which is read; choose another"
                raise UserError(f"{source}: {mine}: {line}")


def _load(name: str, source: str) -> None:
    """Import a module and check what it brings. source: who named it."""
    if name in PLUGINS:
        return
    known, is_new = dict(SCHEMAS), name not in sys.modules
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:  # of whatever kind: it is the user's code
        if os.environ.get("HYDRA_FULL_ERROR"):
            traceback.print_exc()
        # of a.b the missing part may be a
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            line = "no such module in this folder, in PYTHONPATH or among what is installed"
            raise UserError(f"{source}: {line}") from error
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        line = f"cannot be imported: {kind}{one_line(error)[:300]}"
        raise UserError(f"{source} {line} (HYDRA_FULL_ERROR=1 shows where)") from error
    brought = {key: schema for key, schema in SCHEMAS.items() if key not in known}
    for (group, choice), schema in brought.items():
        bases: dict[str, Any] = {name: Config.model_fields[name].annotation for name in GROUPS}
        bases |= {"logger": LoggerConfig, "task": object}
        if group not in bases:
            raise UserError(f"{source}: {group}={choice}: no such group{nearest(group, bases)}")
        base = bases[group]
        if not issubclass(schema, base):
            line = f"its schema {schema.__name__} must extend {base.__name__}"
            raise UserError(f"{source}: {group}={choice}: {line}")
        schema.plugin = name
    folder = Path(module.__file__ or f"{name}/__init__.py").resolve().with_name("configs")
    if is_new and not brought and not folder.is_dir():
        line = f"{module.__file__} registers no component and has no configs/ beside it"
        raise UserError(f"{source}: {line}")
    refuse_hidden(folder, source)
    PLUGINS[name] = folder
