"""The data of a work, as numpy arrays of bytes, read without the code that is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Work
from vae_cli.data.download import default_data_dir

Bytes = NDArray[np.uint8]


def folder(given: str | None) -> Path:
    """Where MNIST lies in torchvision's layout: as vae-train looks for it."""
    return Path(given).expanduser() if given else default_data_dir()


def load(work: Work, data_dir: Path) -> tuple[Bytes, Bytes]:
    """Training and test images, each [N, C, H, W] uint8."""
    if work.data == "mnist":
        train, test = mnist(data_dir, "train"), mnist(data_dir, "t10k")
    else:
        train, test = synthetic(work, work.examples, 0), synthetic(work, work.test_examples, 1)
    return train[: work.examples], test[: work.test_examples]


def mnist(data_dir: Path, split: str) -> Bytes:
    """MNIST's images [N, 1, 28, 28]; a missing file ends the benchmark with the way to get it."""
    path = data_dir / "MNIST" / "raw" / f"{split}-images-idx3-ubyte"
    if not path.exists():
        raise SystemExit(f"{path} is missing: fetch MNIST with vae-train dry_run=true")
    # a bytearray, so that the array is writable and torch takes it without a warning
    return np.frombuffer(bytearray(path.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)


def synthetic(work: Work, count: int, seed: int) -> Bytes:
    """Smooth random images: waves of random direction, frequency and phase, one a channel."""
    source = np.random.default_rng(seed)
    channels, height, width = work.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    a, b, phase = source.uniform(0, 6.28, (3, count, channels, 1, 1)).astype(np.float32)
    wave = np.sin(a * rows / height + b * columns / width + phase)
    images: Bytes = ((wave + 1) * 127.5).astype(np.uint8)
    return images
