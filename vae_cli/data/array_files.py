"""Numbers from a file: .npy, .npz, .safetensors, .csv. Nothing in a file is ever run.

What a header promises is compared with the file's size and with the free memory before anything of
that size is allocated.
"""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vae_cli.data import memory
from vae_cli.errors import one_line

Array = NDArray[Any]
LABEL_NAMES = ("y", "labels", "label")


class Unusable(Exception):
    """A file that does not give examples; says why, as the end of a sentence about the file."""


def read(path: Path, key: str | None, labels: str | None) -> tuple[Array, Array | None]:
    """The array of examples in a file and, if there are any, their labels. Raises Unusable.

    key, labels: the names of the two; None: the only array or x, and one of LABEL_NAMES.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Unusable(f"must be one of {', '.join(READERS)}")
    try:
        if not path.is_file():
            raise Unusable("no such file")
        values, known = reader(path, key, labels)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Unusable(f"is damaged: {error}") from error
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from error
    if values.dtype.kind not in "buif":
        raise Unusable(f"holds {values.dtype} and must hold real numbers")
    if values.ndim < 1 or 0 in values.shape:
        raise Unusable(f"holds an array of shape {list(values.shape)}: there is nothing in it")
    if known is not None and known.shape != values.shape[:1]:
        raise Unusable(f"has {len(values):,} examples and labels of shape {list(known.shape)}")
    return values, known


def _npy(path: Path, key: str | None, labels: str | None) -> tuple[Array, None]:
    if key or labels:
        raise Unusable("has one array without a name: leave out dataset.key and dataset.labels")
    with path.open("rb") as file:
        return _array(file, path.stat().st_size), None


def _npz(path: Path, key: str | None, labels: str | None) -> tuple[Array, Array | None]:
    with zipfile.ZipFile(path) as archive:
        sizes = {
            member.filename.removesuffix(".npy"): (member, member.file_size)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }

        def load(name: str) -> Array:
            member, size = sizes[name]
            with archive.open(member) as stream:
                return _array(stream, size)

        return _chosen(sizes, load, key, labels)


def _safetensors(path: Path, key: str | None, labels: str | None) -> tuple[Array, Array | None]:
    _refuse_too_big(path.stat().st_size)
    try:
        with safe_open(path, framework="pt") as file:

            def load(name: str) -> Array:
                tensor = file.get_tensor(name)
                narrow = tensor.is_floating_point() and tensor.element_size() < 4
                array: Array = (tensor.float() if narrow else tensor).numpy()
                return array

            return _chosen(file.keys(), load, key, labels)
    except SafetensorError as error:
        raise Unusable(f"is damaged: {error}") from error


def _chosen(
    names: Iterable[str], load: Callable[[str], Array], key: str | None, labels: str | None
) -> tuple[Array, Array | None]:
    """The examples and labels among named arrays."""
    there = sorted(names)
    for name, setting in ((key, "key"), (labels, "labels")):
        if name is not None and name not in there:
            raise Unusable(f"has no array {name!r} (dataset.{setting}) but {', '.join(there)}")
    named = labels or next((name for name in LABEL_NAMES if name in there), None)
    others = [name for name in there if name != named]
    wanted = key or ("x" if "x" in others else others[0] if len(others) == 1 else None)
    if wanted is None:
        what = f"has several arrays ({', '.join(there)})" if there else "has no arrays"
        raise Unusable(what + ("; choose one with dataset.key=NAME" if there else ""))
    return load(wanted), None if named is None or named == wanted else load(named)


def _array(stream: IO[bytes], length: int) -> Array:
    """An array in NumPy's format from a stream of `length` bytes."""
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):  # 2.0 and 3.0 exist for records with very many or special names
            raise Unusable(f"is in version {version[0]}.{version[1]} of NumPy's format, not 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            raise Unusable("holds Python objects, which are never loaded; save plain numbers")
        needed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or stream.tell() + needed > length:
            promised = f"its header promises {memory.human(needed)} and it has"
            raise Unusable(f"is damaged: {promised} {memory.human(length)}")
        _refuse_too_big(needed)
        stream.seek(0)
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array
    except (ValueError, SyntaxError, TypeError, OverflowError) as error:
        raise Unusable(f"is not in NumPy's format: {one_line(error)}") from error


def _refuse_too_big(needed: int) -> None:
    limit = memory.allowed(torch.device("cpu"))
    if needed > limit:
        raise Unusable(
            f"needs {memory.human(needed)} of memory and a dataset may take {memory.human(limit)}"
        )


# --------------------------------------------------------------------------------------------- CSV


def _csv(path: Path, key: str | None, labels: str | None) -> tuple[Array, Array | None]:
    if key:
        raise Unusable("has no named arrays: leave out dataset.key")
    _refuse_too_big(4 * path.stat().st_size)  # a number takes two characters or more
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            delimiter = next((mark for mark in ",;\t" if mark in first), ",")
            cells = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
            header = cells if _is_header(cells) else None
            if header is not None and not any(line.strip() for line in file):
                raise Unusable("has a header line and no rows")
    except UnicodeDecodeError as error:
        raise Unusable(f"is not UTF-8 text: {error.reason} at byte {error.start:,}") from error
    if not cells:
        raise Unusable("is empty")
    table = _table(path, delimiter, len(cells), header is not None)
    column = _label_column(header, labels)
    if column is None:
        return table, None
    return np.delete(table, column, axis=1), table[:, column]


def _table(path: Path, delimiter: str, columns: int, header: bool) -> NDArray[np.float64]:
    """All rows below the header. [N, columns]. Raises Unusable naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while header and not next(file).strip():
                pass
            table: NDArray[np.float64] = np.loadtxt(
                file, np.float64, comments=None, delimiter=delimiter, ndmin=2, quotechar='"'
            )
    except ValueError as error:
        found = _first_bad_line(path, delimiter, columns, header)
        raise Unusable(found or one_line(error)) from error
    if table.shape[1] != columns:
        raise Unusable(f"has {columns} names in its first line and {table.shape[1]} numbers below")
    return table


def _first_bad_line(path: Path, delimiter: str, columns: int, header: bool) -> str | None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter)
        for row in rows:
            if not any(cell.strip() for cell in row) or (header and _is_header(row)):
                header = header and not any(cell.strip() for cell in row)
                continue
            header = False
            if len(row) != columns:
                return f"line {rows.line_num}: {len(row)} numbers and {columns} in the first line"
            bad = next((cell for cell in row if not _is_number(cell)), None)
            if bad is not None:
                return f"line {rows.line_num}: {bad.strip()[:40]!r} is not a number"
    return None


def _label_column(header: list[str] | None, labels: str | None) -> int | None:
    names = [name.lower() for name in header or []]
    if labels is not None:
        if labels.lower() not in names:
            raise Unusable(f"has no column {labels!r} (dataset.labels) in a header line")
        return names.index(labels.lower())
    return next((names.index(name) for name in LABEL_NAMES if name in names), None)


def _is_header(cells: list[str]) -> bool:
    """Whether a first line holds names. An empty cell is a missing number, not a name."""
    return any(cell.strip() and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


Reader = Callable[[Path, str | None, str | None], tuple[Array, Array | None]]
READERS: dict[str, Reader] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".csv": _csv,
}
