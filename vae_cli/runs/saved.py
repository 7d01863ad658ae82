"""Read run folders without trusting them, for resume, vae-eval and vae-report. Imports no torch."""

import json
import math
import os
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vae_cli.config.check import HOW_KEYS, typed
from vae_cli.config.registry import PLUGINS, config_dir
from vae_cli.config.settings import Config
from vae_cli.console import UserError, count, one_line

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"  # in the folder checkpoints/
WEIGHTS = "model.safetensors"
OF_BEST = (WEIGHTS, f"checkpoints/{BEST}")  # files of a run with its best weights


@dataclass(frozen=True)
class SavedRun:
    """A run folder as it is on the disk."""

    folder: Path
    settings: dict[str, Any]  # config.yaml: nested plain values, not checked yet
    summary: dict[str, Any]  # summary.json; empty before there is one
    changed: float  # when summary.json, or else config.yaml, was written: seconds since 1970

    @property
    def status(self) -> str:
        """One of completed, interrupted, failed, pruned, running (also after a kill), or ''."""
        return str(self.summary.get("status", ""))

    @property
    def config(self) -> Config:
        """The checked settings. Raises UserError, for one where another version wrote them."""
        try:
            return typed(self.settings)
        except UserError as error:
            if not self.missing:
                raise
            raise UserError(f"{self.folder} needs {self.missing}: {error}") from error

    @property
    def missing(self) -> str:
        """'plugins=a,b': what the run was trained with and nobody has imported here; or ''."""
        named = self.settings.get("plugins")
        names = [*map(str, named)] if isinstance(named, list) else []
        text = ",".join(name for name in names if name not in PLUGINS)
        return text and shlex.quote(f"plugins={text}")  # a stranger wrote it, and it is copied


def read_run(folder: Path) -> SavedRun:
    """Read one run folder. Raises UserError where there is none, or where it cannot be read."""
    path, summary = folder / "config.yaml", folder / "summary.json"
    if not os.path.isfile(path):
        inside = find_runs(folder) if os.path.isdir(folder) else []
        names = [shlex.quote(str(run.folder.relative_to(folder))) for run in inside]
        if names:
            shown = " ".join([*names[:12], *["…"] * (len(names) > 12)])
            raise UserError(
                f"{folder} holds {count(len(names), 'run')}; add the name of one: {shown}"
            )
        lack = "it has no config.yaml" if os.path.isdir(folder) else "it is no folder"
        raise UserError(f"{folder} is not a run folder: {lack}")
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path} is not a configuration of vae-train")
    changed = (summary if summary.is_file() else path).stat().st_mtime
    settings |= {k: value for k, value in _how_settings().items() if k not in settings}
    return SavedRun(folder, settings, read_summary(folder), changed)


def folder_of(path: str | Path, *files: str) -> Path:
    """The run folder that a path names, also where it ends in one of the files of a run."""
    folder = Path(os.path.expanduser(path))
    for file in files:
        if folder.match(file) and os.path.isfile(folder):
            return folder.parents[len(Path(file).parts) - 1]
    return folder


@cache
def _how_settings() -> dict[str, Any]:
    """Values for settings that an older version did not have, and no number depends on."""
    known = read_yaml(config_dir() / "config.yaml")
    return {key: value for key, value in known.items() if key in HOW_KEYS}


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file. Raises UserError."""
    try:
        return yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error


def saved_config(folder: Path) -> Config:
    """The checked settings of a run folder. Raises UserError."""
    return read_run(folder).config


def find_runs(folder: Path, skipped: list[str] | None = None) -> list[SavedRun]:
    """All runs at or below a folder; `skipped` receives a line about each that cannot be read."""
    runs = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "config.yaml" in files:
            try:
                runs.append(read_run(Path(parent)))
                folders.clear()  # a run holds no other runs
            except UserError as error:
                if skipped is not None:
                    skipped.append(str(error))
    return runs


def latest_run(outputs: Path) -> Path:
    """The folder of the run below `outputs` that was completed last. Raises UserError."""
    completed = [run for run in find_runs(outputs) if run.status == "completed"]
    if not completed:
        raise UserError(f"run=latest: no completed run under outputs={outputs}; give run=DIR")
    return max(completed, key=lambda run: run.changed).folder


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, up to one that a kill has cut off. null stands for NaN."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            numbers = {key: math.nan if item is None else item for key, item in line.items()}
            lines.append(numbers | {"epoch": int(line["epoch"])})
        except (ValueError, TypeError, KeyError, AttributeError):  # no line of an epoch
            break
    return lines


def read_summary(folder: Path, name: str = "summary.json") -> dict[str, Any]:
    """The content of a JSON file; empty where there is none yet, or where it is damaged."""
    try:
        return dict(json.loads((folder / name).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint to go on from."""
    return any(os.path.isfile(folder / "checkpoints" / name) for name in (LAST, PREVIOUS))


def refuse_links_out(folder: Path) -> None:
    """Raise UserError for a link that leads out of a run folder: we would write where it leads."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} is a link that leads out of the run folder; remove it")
