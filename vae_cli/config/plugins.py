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
from vae_cli.config.compose import config_dir
from vae_cli.config.registry import PLUGINS, SCHEMAS
from vae_cli.config.settings import GROUPS, Config, listed
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
    """The value of `plugins=…` among texts KEY=VALUE, which must be known before Hydra reads any."""
    pairs = (text.lstrip("+").partition("=") for text in overrides)
    return ",".join(value.strip("[]'\" ") for key, _, value in pairs if key == "plugins")


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
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            line = "no such module in this folder, in PYTHONPATH or among what is installed"
            raise UserError(f"{source}: {line}") from error
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        line = f"cannot be imported: {kind}{one_line(error)[:300]}"
        raise UserError(f"{source} {line} (HYDRA_FULL_ERROR=1 shows where)") from error
    brought = {key: schema for key, schema in SCHEMAS.items() if key not in known}
    for (group, choice), schema in brought.items():
        if group not in (*GROUPS, "task"):
            raise UserError(f"{source}: {group}={choice}: no such group{nearest(group, GROUPS)}")
        base: Any = Config.model_fields[group].annotation if group in GROUPS else object
        if not issubclass(schema, base):
            line = f"its schema {schema.__name__} must extend {base.__name__}"
            raise UserError(f"{source}: {group}={choice}: {line}")
        schema.plugin = name
    folder = Path(module.__file__ or f"{name}/__init__.py").absolute().with_name("configs")
    if is_new and not brought and not folder.is_dir():
        line = f"{module.__file__} registers no component and has no configs/ beside it"
        raise UserError(f"{source}: {line}")
    for other in (config_dir(), *PLUGINS.values()):
        for path in folder.rglob("*.yaml") if other != folder else ():
            if (other / path.relative_to(folder)).exists():  # the first one would hide it
                raise UserError(f"{source}: {path} has the name of a file in {other}")
    PLUGINS[name] = folder
