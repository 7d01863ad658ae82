"""Which run a command line goes on with, and with which settings. Imports no torch.

A resumed run keeps its own saved configuration. What the command line names on top must not
contradict what has been trained; only what the past does not depend on may change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vae_cli.checking import flatten, typed
from vae_cli.config import Config
from vae_cli.errors import UserError, one_line
from vae_cli.identity import differing_keys

LARGEST_YAML = 1 << 20  # bytes; ours have some thousand
CHECKPOINTS = ("last.ckpt", "previous.ckpt")  # to go on from, the newer one first


def requested_folder(overrides: Sequence[Override]) -> Path | None:
    """The folder of `resume=…`, checked to be a run that can go on; None without one."""
    given = [o for o in overrides if o.key_or_group == "resume" and not o.is_delete()]
    if not given or given[-1].value() in (None, "auto"):
        return None
    folder = Path(str(given[-1].value())).expanduser().resolve()
    try:
        if not folder.is_dir():
            raise UserError(f"resume={folder}: no such folder")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UserError(f"resume={folder}: cannot be read: {error.strerror}") from error
    if not (folder / "config.yaml").is_file():
        raise UserError(f"resume={folder}: not a run folder (it has no config.yaml)")
    if not has_checkpoint(folder):
        raise UserError(
            f"resume={folder}: there is no checkpoints/last.ckpt to go on from;"
            " the run ended before its first epoch did, so start it again"
        )
    refuse_links_out(folder)
    return folder


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder has something to go on from."""
    return any((folder / "checkpoints" / name).is_file() for name in CHECKPOINTS)


def refuse_links_out(folder: Path) -> None:
    """Refuse a run folder with a link that leads out of it.

    Whoever goes on with a run, or measures it, would read and write what the link names.
    """
    inside = folder.resolve()
    for parent, folders, files in os.walk(inside):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UserError(
                    f"{path} is a link that leads out of the run folder, which is not followed;"
                    " put what it names in its place"
                )


def saved_config(folder: Path) -> DictConfig:
    """The configuration in a run folder, plain values only. Raises UserError for anything else."""
    loaded = _plain_yaml(folder / "config.yaml")
    if not isinstance(loaded, dict):
        raise UserError(f"{folder / 'config.yaml'} is not a configuration of vae-train")
    for key, item in flatten(loaded).items():
        # a saved configuration is resolved: what is left could read the environment
        if "${" in str(item) or "${" in str(key):
            raise UserError(f"{folder / 'config.yaml'}: {key}={item}: must be a plain value")
    try:
        return OmegaConf.create(loaded)
    except OmegaConfBaseException as error:
        raise UserError(f"{folder / 'config.yaml'}: {one_line(error)}") from error


def saved_overrides(folder: Path) -> list[str]:
    """The settings that a run was started with, less an earlier resume.

    Not those of Hydra itself, which can name code to run, nor interpolations.
    """
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return []
    loaded = _plain_yaml(path) or []
    if not isinstance(loaded, list):
        raise UserError(f"{path} is not a list of settings")
    return [text for text in map(str, loaded) if _ours(text)]


def _ours(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0].strip()
    return "${" not in override and not re.match(r"(hydra|resume|dry_run)\b|-", key)


def _plain_yaml(path: Path) -> Any:
    """What a YAML file of a run folder holds: scalars, lists and mappings, and not too much."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_YAML:
            raise UserError(f"{path} is no file that vae-train has written")
        text = path.read_text("utf-8")
        # an alias could stand for itself a billion times; we write none
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UserError(f"{path} cannot be read: it holds a YAML alias")
        return yaml.load(text, get_yaml_loader())  # a safe loader: it builds no objects
    except (OSError, ValueError, RecursionError, YAMLError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error


def config(folder: Path, composed: DictConfig, overrides: Sequence[Override]) -> Config:
    """The saved configuration with the command line's settings; refused if they contradict.

    composed: the saved and the new overrides, composed together.
    """
    saved = saved_config(folder)
    wanted = saved.copy()
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if key == "experiment":
            wanted = composed
        else:
            OmegaConf.update(wanted, key, OmegaConf.select(composed, key), force_add=True)
    before, after = typed(saved), typed(wanted)
    different = differing_keys(before, after)
    if different:
        raise UserError(
            f"resume={folder}: the checkpoint was trained with other settings: "
            + "; ".join(different)
            + "; leave them out, or start a new run"
        )
    return after


def quoted(value: str | Path) -> str:
    """A string as a quoted value in Hydra's override grammar."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
