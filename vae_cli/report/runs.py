"""Run folders as they are found: finished or not, whole or damaged. Only reads; imports no torch.

Nothing found here is trusted: files have a largest size, symbolic links that lead out of the
searched folder are left alone, and what cannot be read is named and skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_cli.checking import flatten
from vae_cli.config import GROUPS
from vae_cli.errors import UserError
from vae_cli.hparams import PRESET
from vae_cli.report.reading import (
    Unreadable,
    last_lines,
    number,
    read_text,
    read_yaml,
    reason,
    size,
)
from vae_cli.report.text import printable

STATUSES = ("completed", "interrupted", "failed", "running")
MOST_SETTINGS = 1000  # YAML aliases can unfold a small file into a huge one


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says.

    name:      the folder as it is shown, from the searched folder on
    settings:  flat, model.latent_dim -> 2          overrides: the command line's
    status:    one of STATUSES                      error: of a failed run
    metrics:   finite ones; of a run that has not ended, its last epoch's
    epochs:    that are done                        seconds: of training, or None
    about:     versions, device, git_commit         root: the searched folder
    """

    folder: Path
    root: Path
    name: str
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    status: str
    metrics: dict[str, float]
    epochs: int
    seconds: float | None
    error: str
    about: dict[str, Any]

    @property
    def completed(self) -> bool:
        """Whether its test metrics are final."""
        return self.status == "completed"

    @property
    def how_far(self) -> str:
        """The status and, of a run that has not ended, its epochs: 'interrupted, 3/20'."""
        planned = self.settings.get("epochs")
        return self.status if self.completed else f"{self.status}, {self.epochs}/{planned}"


@dataclass(frozen=True)
class Skipped:
    """A folder that was not read, and why."""

    name: str
    reason: str


def collect(roots: Sequence[Path]) -> tuple[list[RunRecord], list[Skipped]]:
    """All runs below (or at) the folders, at any depth, each once; and what was skipped.

    Raises UserError for a folder that is not there, or when there are neither runs nor anything
    that was skipped.
    """
    runs: dict[Path, RunRecord] = {}
    skipped: dict[str, Skipped] = {}
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{printable(root)}: no such folder")
        for found in _search(root, len(roots) > 1):
            if isinstance(found, RunRecord):
                runs.setdefault(found.folder.resolve(), found)
            else:
                skipped.setdefault(found.name, found)
    if not runs:
        where = ", ".join(printable(root) for root in roots)
        first = next(iter(skipped.values()), None)
        why = f"; {first.name} was skipped: {first.reason}" if first else ""
        raise UserError(f"{where}: no run in it or below (folders with a config.yaml){why}")
    return list(runs.values()), list(skipped.values())


def _search(root: Path, several: bool) -> Iterator[RunRecord | Skipped]:
    problems: list[OSError] = []
    for at, folders, _ in os.walk(root, onerror=problems.append):  # does not follow links
        folder = Path(at)
        if not looks_like_a_run(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            continue
        inside = folder.relative_to(root)
        name = printable(folder if several or folder == root else inside)
        try:
            record = read_run(folder, root, name)
        except Unreadable as error:
            yield Skipped(name, str(error))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
        else:
            yield record
            folders.clear()
    for problem in problems:
        yield Skipped(printable(problem.filename), problem.strerror or "cannot be read")


def looks_like_a_run(folder: Path) -> bool:
    """Whether a run was begun in this folder, or Hydra made it for one."""
    return any((folder / name).is_file() for name in ("config.yaml", ".hydra/config.yaml"))


def read_run(folder: Path, root: Path | None = None, name: str = "") -> RunRecord:
    """Read one run folder. Raises Unreadable with the reason.

    root: the folder that links must stay in (None: the run's own).
    """
    root = folder if root is None else root
    begun = (folder / "config.yaml").is_file()
    settings = _settings(
        read_text(folder / ("config.yaml" if begun else ".hydra/config.yaml"), root)
    )
    summary = _summary(folder, root)
    overrides = _overrides(folder, root)
    if presets := [o.partition("=")[2] for o in overrides if o.startswith(f"{PRESET}=")]:
        settings[PRESET] = presets[-1]
    status = str(summary.get("status", "running"))
    if status not in STATUSES:
        raise Unreadable(f"summary.json has no status of ours: {printable(status)[:40]}")
    error = printable(summary.get("error") or "")
    if not begun and (logged := _logged_error(folder, root)):
        status, error = "failed", logged
    last = {} if status == "completed" else _last_line(folder / "metrics.jsonl", root)
    metrics = summary.get("metrics")
    return RunRecord(
        folder=folder,
        root=root,
        name=name or printable(folder.name),
        settings=settings,
        overrides=tuple(overrides),
        status=status,
        metrics=_finite(metrics if isinstance(metrics, dict) else last),
        epochs=int(number(summary.get("epochs")) or number(last.get("epoch")) or 0),
        seconds=number(summary.get("seconds")),
        error=error,
        about={key: summary.get(key) for key in ("versions", "device", "git_commit")},
    )


# ---------------------------------------------------------------------------------------- the files


def _settings(text: str) -> dict[str, Any]:
    """config.yaml, flat. What is still to be resolved (${…}) is left out."""
    plain = read_yaml(text, "config.yaml")
    groups = isinstance(plain, dict) and all(isinstance(plain.get(g), dict) for g in GROUPS[:2])
    if not groups or not {"beta", "seed", "epochs"} <= set(plain):
        raise Unreadable("config.yaml is not a configuration of vae-train")
    if size(plain, MOST_SETTINGS) >= MOST_SETTINGS:
        raise Unreadable(f"config.yaml holds more than {MOST_SETTINGS} values")
    flat = flatten({str(key): item for key, item in plain.items()})
    return {
        printable(key): printable(item) if isinstance(item, str) else item
        for key, item in flat.items()
        if "${" not in str(item)
    }


def _summary(folder: Path, root: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        summary = json.loads(read_text(path, root))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"summary.json cannot be read: {reason(error)}") from error
    if not isinstance(summary, dict):
        raise Unreadable("summary.json is not a summary of vae-train")
    return summary


def _overrides(folder: Path, root: Path) -> list[str]:
    """The command line that Hydra noted; nothing where it did not, or where it is unreadable."""
    path = folder / ".hydra" / "overrides.yaml"
    try:
        given = read_yaml(read_text(path, root), path.name) if path.is_file() else []
    except Unreadable:
        return []
    return [printable(text) for text in given] if isinstance(given, list) else []


def _logged_error(folder: Path, root: Path) -> str:
    """The last error line of a train.log: why a run did not begin."""
    errors = [line for line in last_lines(folder / "train.log", root) if "[ERROR]" in line]
    return printable(errors[-1].partition(" - ")[2]) if errors else ""


def _last_line(path: Path, root: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl; a kill can cut off the one after it."""
    for text in reversed(last_lines(path, root)):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            return line
    return {}


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics have a name such as test/kl; the epoch and the step are none."""
    found = {printable(key): number(item) for key, item in metrics.items() if "/" in key}
    return {key: item for key, item in found.items() if item is not None}
