"""MNIST and Fashion-MNIST: 28x28 grey images in ten classes."""

from __future__ import annotations

from pathlib import Path

import torch

from vae_cli.data import download
from vae_cli.data.idx import read_idx
from vae_cli.data.interface import Data, Split, carve_validation
from vae_cli.schema.datasets import IdxImagesConfig

FILES = {"mnist": download.MNIST, "fashion_mnist": download.FASHION_MNIST}
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
}


def load(config: IdxImagesConfig, data_dir: Path) -> Data:
    """Fetch what is missing, check every file and read it. Raises UserError where that fails."""
    paths = download.fetch(FILES[config.name], data_dir)

    def split(prefix: str) -> Split:
        images = torch.from_numpy(read_idx(paths[f"{prefix}-images-idx3-ubyte"]))
        labels = torch.from_numpy(read_idx(paths[f"{prefix}-labels-idx1-ubyte"]))
        return Split(images.unsqueeze(1), labels.long())

    train, val = carve_validation(split("train"), config.val_size, config.name)
    return Data(
        name=config.name,
        train=train,
        val=val,
        test=split("t10k"),
        class_names=CLASSES[config.name],
        binarize=config.binarize,
    )
