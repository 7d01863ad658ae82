"""1,797 real handwritten digits, 8x8 grey, bundled with scikit-learn (UCI, Alpaydin & Kaynak)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

from vae_cli.data.interface import SPLIT_SEED, Data, Split, carve_validation
from vae_cli.errors import UserError
from vae_cli.schema.datasets import DigitsConfig


def load(config: DigitsConfig, data_dir: Path) -> Data:
    """Read the bundled images, resize them if asked, and hold out a test set."""
    from sklearn.datasets import load_digits  # takes 0.8 s, so only where it is needed

    bundle = load_digits()
    x = torch.from_numpy(bundle.images).float().div_(16).unsqueeze(1)  # 17 grey levels
    if config.size is not None and config.size != x.shape[-1]:
        size = (config.size, config.size)
        x = F.interpolate(x, size, mode="bilinear", antialias=True).clamp_(0, 1)
    everything = Split(x, torch.from_numpy(bundle.target).long())
    if config.test_size >= len(everything):
        raise UserError(
            f"dataset.test_size={config.test_size}: must be less than the {len(everything):,}"
            " digits there are"
        )
    # the bundle is ordered by writer: shuffle before splitting
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rest = everything.take(order[config.test_size :])
    train, val = carve_validation(rest, config.val_size, config.name)
    return Data(
        name=config.name,
        train=train,
        val=val,
        test=everything.take(order[: config.test_size]),
        class_names=tuple("0123456789"),
        binarize=config.binarize,
    )
