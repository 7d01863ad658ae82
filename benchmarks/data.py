"""The data of a work as numpy arrays of bytes, read without the code that is measured."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Work

Bytes = NDArray[np.uint8]


def folder(given: str | None) -> Path:
    """Return the folder in which vae-train looks for MNIST; `given`: another one.

    vae-train's own function for it loads torch, which this process must not (see environment.py).
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(given or os.environ.get("VAE_DATA_DIR") or f"{cache}/vae-cli").expanduser()


def load(work: Work, data_dir: Path) -> tuple[Bytes, Bytes]:
    """Return training and test images, each [N, C, H, W] uint8."""
    if work.data == "mnist":
        train, test = mnist(data_dir, "train"), mnist(data_dir, "t10k")
    else:
        train, test = synthetic(work, work.examples, 0), synthetic(work, work.test_examples, 1)
    return train[: work.examples], test[: work.test_examples]


def mnist(data_dir: Path, split: str) -> Bytes:
    """Read MNIST's images [N, 1, 28, 28]. A missing file ends the benchmark."""
    path = data_dir / "MNIST" / "raw" / f"{split}-images-idx3-ubyte"
    if not path.exists():
        raise SystemExit(f"{path} is missing: fetch MNIST with vae-train dry_run=true")
    # a bytearray, so that the array is writable and torch takes it without a warning
    return np.frombuffer(bytearray(path.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)


def synthetic(work: Work, count: int, seed: int) -> Bytes:
    """Make smooth random images: each channel is a wave of random direction and phase."""
    source = np.random.default_rng(seed)
    channels, height, width = work.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    a, b, phase = source.uniform(0, 6.28, (3, count, channels, 1, 1)).astype(np.float32)
    wave = np.sin(a * rows / height + b * columns / width + phase)
    images: Bytes = ((wave + 1) * 127.5).astype(np.uint8)
    return images
