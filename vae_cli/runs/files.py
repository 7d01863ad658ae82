"""Write files whole, and let one process at a time work in a folder. Imports no torch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from filelock import FileLock, Timeout

from vae_cli.console import UserError

LOCK = ".lock"


@contextmanager
def replacing(path: Path, former: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path`, whole or not at all; that moves to `former`."""
    temporary = path.with_name(f".{path.name[:40]}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a disk may say only here that it is full
        if former is not None and path.exists():
            path.replace(former)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote into a folder."""
    for path in folder.rglob(".*." + "[0-9a-f]" * 32 + ".tmp"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, former: Path | None = None) -> None:
    """Replace the content of a file; the old file moves to `former`."""
    with replacing(path, former) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file by UTF-8 text."""
    write_bytes(path, text.encode())


def as_json(content: Any, indent: int | None = None) -> str:
    """Write plain data as JSON, which has no NaN and no infinity: they become null."""
    strict = json.loads(json.dumps(content), parse_constant=lambda name: None)
    return json.dumps(strict, indent=indent) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Replace the content of a file by indented JSON."""
    write_text(path, as_json(content, indent=2))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it until this one ends. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder} is in use by another process: wait for its end") from error
    except OSError as error:
        line = f"{folder} cannot be written: {error.strerror}"
        raise UserError(f"{line}; set hydra.run.dir, or hydra.sweep.dir of a sweep") from error
    with lock:
        yield
