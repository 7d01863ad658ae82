"""The same command again: what a folder holds already, and how a run goes on in it.

A run is known by its settings (`identity.py`), never by its folder's name or a job's number.
Imports no torch.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vae_cli.checking import typed
from vae_cli.config import Config
from vae_cli.errors import UserError
from vae_cli.files import remove_leftovers
from vae_cli.identity import EXTENDABLE, INCIDENTAL, differing
from vae_cli.resuming import has_checkpoint, saved_config

AUTO = "auto"  # resume=auto

# what a run that never came to its first checkpoint leaves: a fresh start removes it
_BEGINNINGS = ("config.yaml", "summary.json", "metrics.jsonl", "events.out.tfevents.*")


@dataclass(frozen=True)
class Held:
    """A run that a folder holds."""

    folder: Path
    config: Config
    status: str  # of summary.json; "" before there is one
    changed: float  # when summary.json was last written, seconds

    def differences(self, config: Config) -> list[str]:
        """'beta: 1.0, now 4.0' for each setting because of which `config` cannot go on here."""
        found = differing(self.config, config, INCIDENTAL)
        # more epochs go on; fewer would pass off a longer training's numbers as theirs
        if config.epochs >= self.config.epochs:
            found = {key: pair for key, pair in found.items() if key not in EXTENDABLE}
        return [f"{key}: {old}, now {new}" for key, (old, new) in found.items()]

    def is_same(self, config: Config) -> bool:
        """Whether this run gives, or gave, the numbers that `config` asks for."""
        return not differing(self.config, config, INCIDENTAL)

    def is_finished(self, config: Config) -> bool:
        """Whether nothing is left to do for `config`."""
        return self.status == "completed" and self.is_same(config)


def held(folder: Path) -> Held | None:
    """The run in a folder; None without one, or for one of another version's settings."""
    if not (folder / "config.yaml").is_file():
        return None
    summary = read_json(folder / "summary.json")
    path = folder / ("summary.json" if summary else "config.yaml")
    try:
        config = typed(saved_config(folder))
        changed = path.stat().st_mtime
    except (UserError, OSError):
        return None
    return Held(folder, config, str(summary.get("status", "")), changed)


def runs_below(folder: Path) -> list[Held]:
    """All runs in a folder and the folders in it."""
    paths = sorted(folder.rglob("config.yaml")) if folder.is_dir() else []
    found = [held(path.parent) for path in paths if path.parent.name != ".hydra"]
    return [run for run in found if run is not None]


def refuse_other(folder: Path, config: Config) -> None:
    """Refuse to begin in a folder that holds a run with other settings. Raises UserError."""
    if not (folder / "config.yaml").is_file():
        return
    run = held(folder)
    different = ["it cannot be read"] if run is None else run.differences(config)
    if different:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join(different)}), which is not"
            " overwritten; choose another folder"
        )


def ready(config: Config, folder: Path) -> Config:
    """The settings with which a run begins or goes on in its folder, whatever the folder holds.

    With a checkpoint of the same settings there, `resume` is set to the folder; else what an
    attempt that was killed early has left is removed.
    """
    refuse_other(folder, config)
    if has_checkpoint(folder):
        return replace(config, resume=str(folder))
    for pattern in _BEGINNINGS:
        for path in folder.glob(pattern):
            path.unlink()
    if (folder / "checkpoints").is_dir():
        shutil.rmtree(folder / "checkpoints")
    remove_leftovers(folder)
    return replace(config, resume=None)


def newest_unfinished(outputs: Path, config: Config) -> Path | None:
    """The newest single run below a folder that `config` can go on with and that is not done."""
    runs = [
        run
        for run in runs_below(outputs)
        if run.status != "completed" and not run.differences(config) and not _is_job(run.folder)
    ]
    return max(runs, key=lambda run: run.changed).folder if runs else None


def _is_job(folder: Path) -> bool:
    """Whether a run is a job of a sweep, which its sweep goes on with."""
    return any((parent / "jobs.json").is_file() for parent in list(folder.parents)[:3])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; nothing where there is none or it cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
