"""Randomness from (seed, what for, when), never from hidden state, so that a resume is exact."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor


def derive(seed: int, *path: str | int) -> int:
    """A seed for one purpose, e.g. derive(0, 'noise', 1234). 63 bits, well mixed."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device, seed: int, *path: str | int) -> torch.Generator:
    """A fresh generator for one purpose."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


def epoch_order(device: torch.device, seed: int, epoch: int, examples: int) -> Tensor:
    """In which order an epoch trains on the examples. -> [examples] int64, on the device."""
    drawn = generator(device, seed, "order", epoch)
    return torch.randperm(examples, generator=drawn, device=device)
