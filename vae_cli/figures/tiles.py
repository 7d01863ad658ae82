"""Images as raw tiles: one big picture out of many small ones. Imports no matplotlib."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GAP_COLOUR = (1.0, 1.0, 1.0)


def is_images(x: Tensor) -> bool:
    """Whether x [N, *shape] holds images [C,H,W] (True) or curves [P] (False)."""
    if x.ndim not in (2, 4):
        raise ValueError(f"examples of shape {tuple(x.shape[1:])}: expected [C,H,W] or [P]")
    if 0 in x.shape:
        raise ValueError(f"nothing to draw in a tensor of shape {tuple(x.shape)}")
    return x.ndim == 4


def check_same(name: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    """Raise a ValueError unless both shapes agree."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name} has shape {tuple(shape)}, expected {tuple(expected)}")


def tile_grid(x: Tensor, columns: int) -> Tensor:
    """Raw tiles without axes, for TensorBoard. [N,C,H,W] -> float32 [C,H',W'] in [0,1].

    Row by row from the top left, a separator of 1 or 2 pixels between tiles, missing tiles
    white. NaN and inf become 0. Other C than 1 and 3: the first channel, so the result has one.
    """
    is_images(x)
    tiles, _ = shown_channels(x.detach().cpu().float())
    tiles = torch.where(tiles.isfinite(), tiles, 0.0).clamp(0, 1)
    gap = 2 if min(x.shape[-2:]) >= 32 else 1
    return paste(tiles, min(columns, len(x)), gap)


def shown_channels(x: Tensor) -> tuple[Tensor, str]:
    """Grey and colour images as they are, of others the first channel; and a note."""
    channels = x.shape[1]
    if channels in (1, 3):
        return x, ""
    return x[:, :1], f"first of {channels} channels"


def paste(tiles: Tensor, columns: int, gap: int) -> Tensor:
    """[N,C,H,W] -> [C,H',W'], row by row, separators inside and none around."""
    n, channels, height, width = tiles.shape
    rows = math.ceil(n / columns)
    size = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    picture = torch.ones(size, dtype=tiles.dtype)
    picture *= torch.tensor(GAP_COLOUR, dtype=tiles.dtype)[:channels, None, None]
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        picture[:, top : top + height, left : left + width] = tile
    return picture
