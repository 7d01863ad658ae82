"""What a task of vae-eval returns, and how its numbers and arrays are written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vae_cli.config.check import flatten
from vae_cli.runs.files import replacing, write_json


class Report(NamedTuple):
    """What a task has to say: a short table, the files it wrote, and what to keep in mind."""

    rows: dict[str, str]
    files: list[Path]
    notes: Sequence[str] = ()


def write_npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write named arrays or tensors, whole or not at all. Returns the path."""
    plain: dict[str, Any] = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in arrays.items()}
    with replacing(path) as file:
        np.savez_compressed(file, **plain)
    return path


def write_result(path: Path, result: Mapping[str, Any]) -> dict[str, str]:
    """Write a result as JSON; return its numbers as the rows of a table."""
    write_json(path, result)
    return {k: f"{v:.6g}" for k, v in flatten(result).items() if isinstance(v, int | float)}
