"""Files that are either the old or the new version, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

_TEMPORARY = re.compile(r"\..{1,40}\.[0-9a-f]{32}\.tmp")


@contextmanager
def replacing(path: Path, former: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place when the block ends well.

    Written beside it, flushed to the disk, then renamed; removed if the block fails. `former`: the
    name that the file in that place gets, so that at any moment one of the two is there and whole.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _put(temporary, path, former)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link(source: Path, path: Path, former: Path | None = None) -> None:
    """Let `path` be the same file as `source`, or a copy where the file system has no links.

    Nobody writes into a file that is there, so the two never change together. `former` as above.
    """
    temporary = _beside(path)
    try:
        temporary.hardlink_to(source)
    except OSError:
        write_bytes(path, source.read_bytes(), former)
    else:
        _put(temporary, path, former)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:40]}.{uuid4().hex}.tmp")


def _put(temporary: Path, path: Path, former: Path | None) -> None:
    if former is not None:
        with suppress(FileNotFoundError):
            path.replace(former)
    temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left half done in a folder."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, former: Path | None = None) -> None:
    """Replace a file's content; `former` as in `replacing`."""
    with replacing(path, former) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content by UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Replace a file's content by indented JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")
