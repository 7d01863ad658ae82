"""From a command line to settings: Hydra composes plain YAML, and `typed` checks the result.

A mistake is a UserError of one line that shows what was typed. Imports no torch.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from vae_cli.config.check import nearest, refuse_missing, shown, typed
from vae_cli.config.plugins import refuse_hidden
from vae_cli.config.registry import PLUGINS, SCHEMAS, Schema, config_dir, node_of
from vae_cli.config.settings import GROUPS, Config, rewritten
from vae_cli.console import UserError, one_line

# launchers of Hydra's plug-ins -> the extra of ours that installs each; `slurm` is our preset
EXTRAS = {"joblib": "joblib", "ray": "ray"}
EXTRAS |= dict.fromkeys(("submitit_local", "submitit_slurm", "slurm"), "submitit")
HYDRA_TEXTS = [
    "run.dir",
    "sweep.dir",
    "sweep.subdir",
    "job.name",
    "sweeper.storage",
    "sweeper.study_name",
]


class PluginFolders(SearchPathPlugin):
    """Tells Hydra where the YAML files of plug-ins lie."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders after our own, whenever Hydra composes."""
        for name, folder in PLUGINS.items():
            if folder.is_dir():
                search_path.append(name, f"file://{folder}")


Plugins.instance().register(PluginFolders)


def settings_of(name: str, overrides: Sequence[str], extra_dir: str | None = None) -> Config:
    """Compose and check the settings of one run; arguments as in `composed`. Raises UserError."""
    return checked(composed(name, overrides, extra_dir), overrides)


def checked(cfg: DictConfig, overrides: Sequence[str]) -> Config:
    """Check the settings that the overrides were composed to. Raises UserError."""
    plain = _plain(cfg)
    try:
        config = typed(plain)
        if missing := [name for name in config.plugins if name not in PLUGINS]:
            line = "a YAML file cannot import it; name it on the command line"
            raise UserError(f"plugins={missing[0]}: {line}")
        refuse_missing(config)
        return config
    except UserError as error:
        raise UserError(as_typed(str(error), overrides)) from error


def plain_settings(
    name: str, overrides: Sequence[str], extra_dir: str | None = None
) -> dict[str, Any]:
    """Compose a configuration and return its plain values, unchecked. Raises UserError."""
    return _plain(composed(name, overrides, extra_dir))


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except Exception as error:  # of whatever kind: a reference ${...} that leads nowhere
        raise UserError(one_line(error)) from error


def composed(
    name: str, overrides: Sequence[str], extra_dir: str | None = None, with_hydra: bool = False
) -> DictConfig:
    """Compose configs/NAME.yaml with texts `KEY=VALUE`. Raises UserError.

    extra_dir: a folder with more YAML files. with_hydra: include Hydra's own settings as `hydra`.
    An unknown key is no error here: the schema refuses it, with the nearest one.
    """
    parsed = parse_overrides(hydra_words(overrides))
    with own_hydra(), initialize_config_dir(str(config_dir()), version_base="1.3"):
        path = _search_path(extra_dir)
        words = [_checked_word(*pair, path) for pair in zip(overrides, parsed, strict=True)]
        try:
            return compose(name, [*path, *words], return_hydra_config=with_hydra)
        except Exception as error:  # of whatever kind: Hydra's first line says what is wrong
            if isinstance(error, MissingConfigException) and error.missing_cfg_file == name:
                raise UserError(f"--config-name {name}: no such file in {config_dir()}") from error
            if isinstance(error, HydraException):
                line = str(error).strip().partition("\n")[0]
                no_group = r"Could not override '(\w+)'. No match in the defaults list."
                line = re.sub(no_group, r"\1: no such setting here; --help lists all", line)
                raise UserError(line) from error
            reason = one_line(error) or type(error).__name__
            raise UserError(f"a YAML file of the configuration cannot be read: {reason}") from error


@contextmanager
def own_hydra() -> Iterator[None]:
    """Set aside for the block what the caller, a notebook or a program of Hydra, has begun."""
    others, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = others


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Read texts `KEY=VALUE`. Raises UserError for one that Hydra's grammar does not know."""
    parser = OverridesParser.create()
    parsed = []
    for text in texts:
        try:
            (override,) = parser.parse_overrides([text])
            if not override.key_or_group:
                raise ValueError("no key")
        except Exception as error:  # of whatever kind: the grammar does not fit
            how = (
                "settings are written KEY=VALUE without spaces, groups GROUP=CHOICE, and a value"
                " with special characters in quotes: KEY=\\'…\\'"
            )
            if "=" not in text:  # a word that stands alone
                name, _, value = text.partition(":")
                how = rewritten(name, value) or f"it is no folder, and {how}"
            raise UserError(f"{text}: cannot be read; {how}") from error
        parsed.append(override)
    return parsed


def hydra_words(texts: Sequence[str], sweep: bool = False) -> list[str]:
    """Write texts `KEY=VALUE` as Hydra takes them: with quotes around the values of text settings.

    Otherwise `,` and `=` in `run=a,b=c` have a meaning, and 1_1 is the number 11. sweep: a comma
    outside quotes stands between values. A setting loses its `+`: it exists.
    """
    keys = dict.fromkeys((f"hydra.{name}" for name in HYDRA_TEXTS), "null") | _text_keys(Config)
    for (group, name), schema in SCHEMAS.items():
        keys |= _text_keys(schema, node_of(group, name))
    words = []
    for text in texts:
        of_hydra = text.lstrip("+").startswith("hydra")
        word = text if of_hydra else text.lstrip("+")
        key, equals, value = word.partition("=")
        if equals and (bare := keys.get(key.lstrip("+"))):
            choice = re.fullmatch(r"choice\((.*)\)", value)
            # plug-ins are imported before the first job, so a list of them is no sweep; nor of tags
            several = sweep and not of_hydra and key.lstrip("+") not in ("plugins", "tags")
            parts = _items(choice[1] if choice else value) if several else [value]
            word = f"{key}={','.join(_as_text(part, bare) for part in parts)}"
        words.append(word)
    return words


def _text_keys(schema: type[Schema], prefix: str = "") -> dict[str, str]:
    """Find the settings that are texts or lists of them -> a pattern of what is no text there."""
    found = {}
    for name, field in schema.model_fields.items():
        annotation: Any = field.annotation
        kinds = get_args(annotation | None)
        lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
        kinds = get_args(lists[0] | None) if lists else kinds
        if str in kinds and (schema is Config or name not in ("name", "task")):
            bare = r"null|-?\d+" if int in kinds else "null"
            found[prefix + (field.alias or name)] = bare + r"|\[.*\]" * bool(lists)
    return found


def _items(text: str) -> list[str]:
    """Split at the commas that stand in no quotes and in no list."""
    item = r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\[[^\]]*\]|[^,]*)\s*,"""
    return [found.strip() for found in re.findall(item, f"{text},")]


def _as_text(value: str, bare: str) -> str:
    """Put quotes around a value, or each item of a list, unless `bare` or quotes make it clear."""
    if value[:1] == "[" and bare.endswith("]"):
        items = _items(value[1:-1]) if value[1:-1].strip() else []
        return f"[{','.join(_as_text(item, bare) for item in items)}]"
    clear = value[:1] in ("'", '"') or re.fullmatch(bare, value)
    return value if clear else quoted(value)


def quoted(text: str | Path) -> str:
    """Write a text as a quoted value of Hydra's grammar."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), str(text))
    return f"'{escaped}'"


def as_typed(line: str, overrides: Sequence[str]) -> str:
    """Begin the line of a mistake with what was typed: `beta=-1.0: …` instead of `beta=-1: …`."""
    parsed = parse_overrides(hydra_words(overrides))
    for text, override in reversed(list(zip(overrides, parsed, strict=True))):
        for start in (f"{override.key_or_group}={shown(override.value())}", override.key_or_group):
            if line.startswith((f"{start}: ", f"{start} needs")):
                return text + line.removeprefix(start)
    # what was not typed, a preset may have set
    presets = [text for text in overrides if text.startswith("experiment=")]
    return f"{presets[-1]}: {line}" if presets and ": no such setting" in line else line


def _search_path(extra_dir: str | None) -> list[str]:
    """The override that makes the folder of `--config-dir` known to the composition."""
    if extra_dir is None:
        return []
    folder = Path(extra_dir).resolve()
    if not folder.is_dir():
        raise UserError(f"--config-dir {extra_dir}: no such folder")
    refuse_hidden(folder, f"--config-dir {extra_dir}")
    return [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def _checked_word(text: str, override: Override, path: list[str]) -> str:
    """Refuse a choice that a group does not have. Returns the override for our composition.

    A setting is written `++KEY=VALUE`, with which Hydra accepts every key: see `composed`.
    """
    if override.is_sweep_override():
        raise UserError(f"{text}: several values; add -m to run each, or write [..] for a list")
    word, key, choice = str(override.input_line), override.key_or_group, override.value()
    if override.is_delete() or (key.startswith("hydra.") and not key.startswith("hydra.sweeper.")):
        return word
    if key.endswith(".name") and key.removesuffix(".name") in GROUPS:
        raise UserError(f"{text}: write {key.removesuffix('.name')}={choice}")
    choices = GlobalHydra.instance().config_loader().get_group_options(key, overrides=path)
    if not choices or isinstance(choice, dict):
        return f"++{word.lstrip('+')}"
    several = choice if isinstance(choice, list) and key == "logger" else [choice]
    usable = [name for name in choices if name != "slurm" or "submitit_slurm" in choices]
    missing = next((str(name) for name in several if name not in usable), None)
    if missing is None:
        return word
    if key == "hydra/launcher" and missing in EXTRAS:
        raise UserError(f"{text} needs an extra: pip install 'vae-cli[{EXTRAS[missing]}]'")
    if (key, missing) in SCHEMAS:
        raise UserError(f"{text}: it is registered, and its file {key}/{missing}.yaml is missing")
    line = f"{text}: no such {key}{nearest(missing, choices)}; there are {', '.join(choices)}"
    raise UserError(line)
