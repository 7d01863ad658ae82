"""Tables of numbers in .csv files, as pandas, numpy and spreadsheets write them."""

import csv
import re
import warnings
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_cli.config.datasets import ArraysConfig
from vae_cli.console import say

NAMES = ("y", "label", "labels", "target", "class", "species")  # that mark labels
LABELS = (*NAMES, *map(str.capitalize, NAMES))
# whole numbers or texts under such a name, each another, tell rows apart: id, PassengerId, row_id
ID = re.compile(r"(?i:(.+[ _.-])?(id|idx|index))|.*[a-z](Id|ID)")
NUMBER = re.compile(r"[-+]?[.\d][-+.\de]*|[-+]?inf(inity)?|nan|n/?a|null|", re.IGNORECASE)


def read(
    path: Path, config: ArraysConfig, like: list[str] | None
) -> tuple[NDArray[Any], NDArray[Any] | None, str, list[str] | None]:
    """Read a table, and say which columns are used. Raises ValueError.

    like: names of the columns of the training file, whose order a file with names takes over.
    -> values [N, P]; labels [N] and the name of their column, None and "" if there are none; names
    of the values' columns, None if the file has no names.
    """
    import pandas as pd  # takes 0.5 s, so only where it is needed

    with path.open(encoding="utf-8-sig") as file:
        lines = [line.strip() for line in islice(file, 100)]
    notes = [*takewhile(lambda line: line.startswith("#"), lines)]  # numpy's line of names
    rows = [line for line in lines[len(notes) :] if line]
    mark = next((mark for mark in ";\t, " if rows and mark in rows[-1]), ",")
    decimal = "," if mark in ";\t" and "," in rows[-1] else "."
    first, second, note = (
        next(csv.reader([line.lstrip("# ")], delimiter=mark, skipinitialspace=True), [])
        for line in (*[*rows, "", ""][:2], ["", *notes][-1])
    )
    noted = len(note) == len(first) and config.header is not False
    named = noted or config.header is True
    if config.header == "auto" and not noted:
        named = _are_names(*([c.replace(decimal, ".") for c in row] for row in (first, second)))
    loss = pd.errors.ParserWarning  # rows of more values than there are names
    with warnings.catch_warnings(action="error", category=loss):
        table = pd.read_csv(
            path, sep=r"\s+" if mark == " " else mark, decimal=decimal, skiprows=len(notes),
            header=0 if named and not noted else None, names=note if noted else None,
            index_col=False, encoding="utf-8-sig", skipinitialspace=True, low_memory=False,
        )  # fmt: skip
    columns = {str(name): column for name, column in table.items()}
    without = {
        name: "empty" if column.isna().all() else "an index"
        for name, column in columns.items()
        if (column.isna().all() and (not named or name.startswith("Unnamed: ")))
        or (name.startswith("Unnamed: 0") and column.dtype.kind == "i" and column.is_unique)
    }
    every = [name for name in columns if name not in without]
    label = next((name for name in LABELS if name in every), "")
    label = _found(config.labels, every) if config.labels else label
    ids = {
        name
        for name in every
        if ID.fullmatch(name) and columns[name].dtype.kind != "f" and columns[name].is_unique
    }
    plain = [name for name in every if name != label and name not in ids]
    wanted = config.columns or (like if named else None) or plain
    used = [_found(name, every) for name in wanted]
    if texts := [name for name in used if columns[name].dtype.kind not in "buif"]:
        raise ValueError(
            f"has texts in the column {texts[0]} (as {columns[texts[0]].iloc[0]!r}), which are not"
            f" numbers; if these are labels, write 'dataset.labels={texts[0]}'; else name the"
            " columns to use by dataset.columns"
        )
    why = {name: "an index" if name in ids else "not asked for" for name in every}
    without |= {name: why[name] for name in every if name not in (*used, label)}
    said = [f"{len(table):,} rows of {len(used)} values, {'a' if named else 'no'} line of names"]
    said += [f"labels in {label}"] if label else []
    x = np.column_stack([columns[name].to_numpy() for name in used])
    if not named and x.shape[1] > 1 and (x[:, 0] == np.arange(len(x))).all():
        said.append("the first of them counts 0, 1, 2, … (if it is an index, use dataset.columns)")
    said += [f"without {name or 'a nameless column'} ({why})" for name, why in without.items()]
    say(f"{path}: {', '.join(said[:9])}{' …' if len(said) > 9 else ''}")
    y = columns[label].to_numpy() if label else None
    y = y.astype(str) if y is not None and y.dtype == object else y  # of a missing one: nan
    return x, y, label, used if named else None


def _are_names(first: list[str], second: list[str]) -> bool:
    """Is the first line one of names: does a text stand over a number, or are they 0, 1, 2, …?"""
    pairs = zip(first, second, strict=False)
    if any(not NUMBER.fullmatch(a) and NUMBER.fullmatch(b) for a, b in pairs):
        return True
    counted = [cell for cell in first if cell and NUMBER.fullmatch(cell)]
    certain = len(counted) > 2 or first[:1] == [""] or any("." in cell for cell in second)
    return certain and counted == [str(i) for i in range(len(counted))] != []


def _found(wanted: str | int, names: list[str]) -> str:
    """Find a column by its name or its position, from the end if negative. Raises ValueError."""
    text = str(wanted)
    if text in names:
        return text
    if re.fullmatch(r"-?\d+", text) and -len(names) <= int(text) < len(names):
        return names[int(text)]
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    raise ValueError(f"no column {text} among {shown}; see dataset.labels, dataset.columns")
