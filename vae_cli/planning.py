"""From a command line to checked configurations: compose every job before the first one starts.

A mistake anywhere (also in the last job of a sweep) becomes one line, a UserError, and nothing has
been started. Imports no torch.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vae_cli import resuming
from vae_cli.checking import explain_value_error, nearest, typed, unknown_key
from vae_cli.config import GROUPS, Config
from vae_cli.errors import UserError
from vae_cli.schema.registry import SCHEMAS


def config_dir() -> Path:
    """The folder of the YAML files: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the folder configs/ is missing beside {package}: install vae-cli again")


def register() -> None:
    """Make the schemas known to Hydra and the name of a sweep's job folder to OmegaConf."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for (group, name), schema in SCHEMAS.items():
        store.store(group=f"schema/{group}", name=name, node=schema)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def job_folder(overrides: str, number: Any) -> str:
    """A sweep job's folder: its overrides, made safe and, where too long for a name, shortened."""
    name = re.sub(r"[^\w=,.+\-\[\]]+", "_", overrides) or str(number)
    if len(name.encode()) > 120:
        digest = sha256(overrides.encode()).hexdigest()[:12]
        name = name.encode()[:100].decode(errors="ignore") + "-" + digest
    return name


@dataclass
class Plan:
    """What a command line asks for, composed and checked."""

    configs: list[Config]  # one a job
    multirun: bool
    arguments: list[str]  # put before the user's own, for Hydra
    resumed: Path | None


def plan(args: Namespace) -> Plan:
    """Compose and check all that a command line asks for. Raises UserError."""
    if args.experimental_rerun:
        raise UserError("--experimental-rerun loads a pickle, which can run code: use resume=DIR")
    if args.config_path:
        raise UserError(f"--config-path {args.config_path}: use --config-dir for YAML of your own")
    overrides = parse_overrides(args.overrides)
    resumed = resuming.requested_folder(overrides)
    if resumed and args.multirun:
        raise UserError(f"resume={resumed}: goes on with one run; leave out --multirun")
    before: list[str] = []
    if resumed:
        before = [
            *resuming.saved_overrides(resumed),
            f"hydra.run.dir={resuming.quoted(resumed)}",
            "hydra.output_subdir=null",
        ]
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="train"):
        path = _search_path(args.config_dir)
        name = args.config_name or "config"
        jobs = _jobs(args, name, path) if args.multirun else [[*before, *args.overrides]]
        composed = [_compose(name, [*path, *job]) for job in jobs]
    if resumed:
        return Plan([resuming.config(resumed, composed[0], overrides)], False, before, resumed)
    configs = []
    for number, cfg in enumerate(composed):
        try:
            configs.append(typed(cfg))
        except UserError as error:
            line = with_value(str(error), jobs[number])
            where = f"job {number} ({' '.join(jobs[number])}): " if len(jobs) > 1 else ""
            raise UserError(where + line) from error
    _refuse_twins(jobs, configs)
    return Plan(configs, args.multirun, before, None)


def _jobs(args: Namespace, config_name: str, search_path: list[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra's own sweeper will make them."""
    swept = [o for o in args.overrides if not o.lstrip("+").startswith("hydra")]
    own = [o for o in args.overrides if o not in swept]
    cfg = _compose(config_name, [*search_path, *own], with_hydra=True)
    params = cfg.hydra.sweeper.get("params") or {}
    swept = [f"{key}={item}" for key, item in params.items()] + swept
    batches = BasicSweeper.split_arguments(parse_overrides(swept), None)
    return [[*own, *job] for batch in batches for job in batch]


def _refuse_twins(jobs: list[list[str]], configs: list[Config]) -> None:
    """Two jobs with the same settings would be the same run twice, in the same folder."""
    for number, config in enumerate(configs):
        first = configs.index(config)
        if first != number:
            raise UserError(
                f"jobs {first} ({' '.join(jobs[first])}) and {number} ({' '.join(jobs[number])})"
                " have the same settings; sweep each value once"
            )


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
        return _compose(config_name, overrides)


def _compose(config_name: str, overrides: list[str], with_hydra: bool = False) -> DictConfig:
    try:
        return compose(config_name, overrides, return_hydra_config=with_hydra)
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"a configuration file is not valid YAML: {one_line(error)}") from error
    except RecursionError as error:
        raise UserError("a configuration file includes itself in its defaults list") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_explain(error, config_name, overrides)) from error


def _search_path(config_dir: str | None) -> list[str]:
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


def one_line(text: object) -> str:
    """A text without line breaks and runs of spaces."""
    return " ".join(str(text).split())


def _choices(group: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group)


def _listed(names: list[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there are none"
