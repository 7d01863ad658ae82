"""The idx format of MNIST: a magic number, the length of every axis, then bare bytes."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UINT8 = 0x08  # the format's code for the only element type that these datasets use
MAX_RANK = 32  # as many axes as numpy 1 can hold


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an uncompressed idx file of unsigned bytes -> writable array of the declared shape.

    Nothing is allocated before the file proves to be as long as its header says.
    Raises ValueError naming the file where it is not what it should be, OSError where it
    cannot be read.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != bytes([0, 0, UINT8]):
            raise ValueError(
                f"{path}: not an idx file of bytes: starts with {magic.hex() or 'nothing'},"
                " not 000008"
            )
        rank = magic[3]
        if not 1 <= rank <= MAX_RANK:
            raise ValueError(f"{path}: declares {rank} axes, must be 1 to {MAX_RANK}")
        axes = file.read(4 * rank)
        if len(axes) < 4 * rank:
            raise ValueError(f"{path}: ends within the header")
        shape = tuple(int.from_bytes(axes[i : i + 4], "big") for i in range(0, 4 * rank, 4))
        if 0 in shape:
            raise ValueError(f"{path}: declares an empty axis: {shape}")
        declared, length = 4 + 4 * rank + math.prod(shape), os.fstat(file.fileno()).st_size
        if declared != length:
            raise ValueError(f"{path}: {length:,} bytes long, its header {shape} says {declared:,}")
        values = np.fromfile(file, np.uint8)
        if values.size != math.prod(shape):
            raise ValueError(f"{path}: changed while it was read")
        return values.reshape(shape)
