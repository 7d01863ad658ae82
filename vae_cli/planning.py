"""From a command line to checked configurations: compose every job before the first one starts.

A mistake anywhere (also in the last job of a sweep) becomes one line, a UserError, and nothing has
been started. Imports no torch.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vae_cli import console, continuing, resuming
from vae_cli.checking import explain_value_error, nearest, typed, unknown_key
from vae_cli.config import GROUPS, Config
from vae_cli.errors import UserError, one_line
from vae_cli.schema.registry import SCHEMAS

# plugins of Hydra that come with an extra of ours
EXTRAS = {
    "hydra/launcher": {
        "joblib": "joblib",
        "submitit_local": "submitit",
        "submitit_slurm": "submitit",
        "ray": "ray",
    }
}


def config_dir() -> Path:
    """The folder of the YAML files: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the folder configs/ is missing beside {package}: install vae-cli again")


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for (group, name), schema in SCHEMAS.items():
        store.store(group=f"schema/{group}", name=name, node=schema)


@dataclass
class Plan:
    """What a command line asks for, composed and checked: one run."""

    config: Config
    arguments: list[str]  # put before the user's own, for Hydra
    resumed: Path | None  # the folder of resume=FOLDER
    auto: bool = False  # resume=auto: go on with what the folder holds
    note: str | None = None  # what resume=auto chose


def plan(args: Namespace) -> Plan:
    """Compose and check a run. Raises UserError."""
    refuse_switches(args)
    overrides = parse_overrides(args.overrides)
    resumed = resuming.requested_folder(overrides)
    before: list[str] = []
    if resumed:
        before = [
            *resuming.saved_overrides(resumed),
            f"hydra.run.dir={resuming.quoted(resumed)}",
            "hydra.output_subdir=null",
        ]
    for override in overrides:
        if override.key_or_group == "sweep" and override.value() is not None:
            raise UserError(f"{override.input_line}: a sweep of several runs; add -m")
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="train"):
        texts = [*search_path(args.config_dir), *before, *args.overrides]
        name = args.config_name or "config"
        if resumed:
            composed = compose_config(name, texts)
            return Plan(resuming.config(resumed, composed, overrides), before, resumed)
        config = checked(name, texts)
        auto = config.resume == continuing.AUTO
        given = any(override.key_or_group == "hydra.run.dir" for override in overrides)
        if not auto and not given:
            return Plan(config, [], None)
        hydra = compose_config(name, texts, with_hydra=True).hydra
    if auto:
        return _go_on(config, hydra, given)
    if not config.dry_run:
        _refuse_occupied(Path(str(hydra.run.dir)))
    return Plan(config, [], None)


def _refuse_occupied(folder: Path) -> None:
    if resuming.has_checkpoint(folder):
        raise UserError(
            f"hydra.run.dir={folder}: holds a run, which is not overwritten; go on with"
            f" resume={console.quoted(folder)}, or with resume=auto, or choose another folder"
        )


def _go_on(config: Config, hydra: DictConfig, given: bool) -> Plan:
    """resume=auto: the folder that is given, else the newest unfinished run's, else a new one."""
    config.resume = None
    if given:
        folder = Path(str(hydra.run.dir)).absolute()
        continuing.refuse_other(folder, config)
        there = resuming.has_checkpoint(folder)
        note = f"resume=auto: {'going on' if there else 'a new run'} in {folder}"
        return Plan(config, [], None, True, note)
    template = OmegaConf.to_container(hydra.run)
    assert isinstance(template, dict)
    base = Path(str(template["dir"]).partition("${")[0] or ".")
    found = continuing.newest_unfinished(base, config)
    if found is None:
        note = f"resume=auto: no unfinished run with these settings below {base}: a new one"
        return Plan(config, [], None, True, note)
    place = f"hydra.run.dir={resuming.quoted(found.absolute())}"
    return Plan(config, [place], None, True, f"resume=auto: going on in {found}")


def refuse_switches(args: Namespace) -> None:
    """Refuse those of Hydra's switches that go round our checks."""
    if args.experimental_rerun:
        raise UserError("--experimental-rerun loads a pickle, which can run code: use resume=DIR")
    if args.config_path:
        raise UserError(f"--config-path {args.config_path}: use --config-dir for YAML of your own")


def checked(config_name: str, overrides: list[str]) -> Config:
    """The settings of one run, inside `initialize_config_dir`. Raises UserError."""
    cfg = compose_config(config_name, overrides)
    try:
        return typed(cfg)
    except UserError as error:
        raise UserError(with_value(str(error), overrides)) from error


def refuse_line_breaks(argv: Sequence[str]) -> None:
    """No word of a command line has a line break in it. Raises UserError."""
    for text in argv:
        if "\n" in text:
            raise UserError(f"{text!r}: a setting has no line breaks")


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Read `KEY=VALUE` texts. Raises UserError for one that Hydra's grammar does not know."""
    parsed = []
    parser = OverridesParser.create()
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
            if not override.key_or_group:
                raise ValueError("no key")
            parsed.append(override)
        except (HydraException, ValueError) as error:
            raise UserError(
                f"{text}: cannot be read; settings are written KEY=VALUE, groups GROUP=CHOICE,"
                " and a value with special characters in quotes: KEY=\\'…\\'"
            ) from error
    return parsed


def composed(config_name: str, overrides: list[str]) -> DictConfig:
    """A configuration of `configs/` with these overrides. Raises UserError."""
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name=config_name):
        return compose_config(config_name, overrides)


def compose_config(config_name: str, overrides: list[str], with_hydra: bool = False) -> DictConfig:
    """The same inside `initialize_config_dir`; with_hydra: Hydra's own settings too."""
    try:
        return compose(config_name, overrides, return_hydra_config=with_hydra)
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"a configuration file is not valid YAML: {one_line(error)}") from error
    except RecursionError as error:
        raise UserError("a configuration file includes itself in its defaults list") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_explain(error, config_name, overrides)) from error


def search_path(config_dir: str | None) -> list[str]:
    """The override that makes `--config-dir` known to the composition."""
    if config_dir is None:
        return []
    path = Path(config_dir).resolve()
    if not path.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    return [f"hydra.searchpath=[{resuming.quoted('file://' + str(path))}]"]


def _explain(error: Exception, config_name: str, overrides: list[str]) -> str:
    """One line for an error of the composition: the setting, its value and the way out."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return with_value(explain_value_error(cause), overrides)
    text = str(error)
    parsed = parse_overrides(overrides)
    if "NoneType" in text:
        nulls = [o.input_line for o in parsed if o.value() is None]
        return f"{', '.join(map(str, nulls))}: a group must be one of its choices"
    given = {o.key_or_group: o for o in parsed if o.key_or_group}
    if match := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        group, choice = match.groups()
        if extra := EXTRAS.get(group, {}).get(choice):
            return f"{group}={choice} needs an extra: pip install 'vae-cli[{extra}]'"
        names = _choices(group)
        return f"{group}={choice}: no such {group}{nearest(choice, names)}; {_listed(names)}"
    if match := re.search(r"Could not (?:override|find|append|add)[^']*'([^'@]+)'", text):
        key = match.group(1)
        if key in given and key.partition(".")[0] not in (*GROUPS, "hydra"):
            return f"{given[key].input_line}: " + unknown_key(key, Config)
    if match := re.search(r"Key '\S+' not in '(\w+)'.*full_key: (\S+)", text, re.DOTALL):
        schemas = [schema for schema in SCHEMAS.values() if schema.__name__ == match.group(1)]
        return unknown_key(match.group(2), next(iter(schemas), Config))
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match.group(1)}: several values; add -m to run each, or write [..] for a list"
    if match := re.search(r"Primary config directory|Cannot find primary config '([^']+)'", text):
        return f"--config-name {config_name}: no such file in {config_dir()}"
    return one_line(text)


def with_value(line: str, overrides: list[str]) -> str:
    """Put the override's own text in front, so that the line shows the value too."""
    key = line.partition(":")[0]
    for text in overrides:
        if text.lstrip("+").partition("=")[0] == key:
            return f"{text}: {line.partition(': ')[2]}"
    return line


def _choices(group: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group)


def _listed(names: list[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there are none"
