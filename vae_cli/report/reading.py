"""Files of strangers: a largest size, no link that leads out, safe YAML, one-line reasons."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from vae_cli.errors import one_line
from vae_cli.report.text import printable

LARGEST = 16 * 2**20  # bytes of a file that is read whole
TAIL = 2**16  # bytes at a file's end that hold its last line

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """A folder that looks like a run and cannot be read as one; the reason."""


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path is, or lies behind, a link to somewhere outside the folder."""
    return not path.resolve().is_relative_to(root.resolve())


def read_text(path: Path, root: Path) -> str:
    """A text file of this folder. Raises Unreadable."""
    if leads_out(path, root):
        raise Unreadable(f"{path.name} is a link that leads out of the folder")
    try:
        if path.stat().st_size > LARGEST:
            raise Unreadable(f"{path.name} is larger than {LARGEST // 2**20} MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path.name} cannot be read: {reason(error)}") from error


def read_yaml(text: str, name: str) -> Any:
    """What a YAML text holds; nothing in it is run. Raises Unreadable."""
    try:
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(f"{name} cannot be read: {reason(error)}") from error


def size(node: Any, limit: int) -> int:
    """How many values a tree holds, counted up to a limit."""
    count, waiting = 0, [node]
    while waiting and count < limit:
        item = waiting.pop()
        count += 1
        parts = item.values() if isinstance(item, dict) else item
        waiting += parts if isinstance(item, dict | list) else ()
    return count


def last_lines(path: Path, root: Path) -> list[str]:
    """The lines at a file's end; none where it cannot be read."""
    if not path.is_file() or leads_out(path, root):
        return []
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read(TAIL).decode(errors="replace").splitlines()
    except OSError:
        return []


def number(item: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None
    try:
        return float(item) if math.isfinite(item) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def reason(error: Exception) -> str:
    """Why something could not be read, in a line."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return printable(one_line(error)[:120] or type(error).__name__)
