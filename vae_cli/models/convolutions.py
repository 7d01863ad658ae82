"""The convolutions of `conv.py`: torch's own, computed as matrix products where that is faster.

Parameters, their names and the results are those of `nn.Conv2d` and `nn.ConvTranspose2d`. Images
lie in memory pixel by pixel (torch's channels_last), which every kernel here is fastest with.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.models.layers import linear


class Down(nn.Conv2d):
    """Halves an image of `size`, rounding up. BatchNorm follows, so a bias would be idle.

    What becomes a single pixel meets only the taps that lie on the image: one product.
    """

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        super().__init__(before, after, 3, stride=2, padding=1, bias=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        if max(height, width) > 2:
            return super().forward(x)
        taps = _by_pixel(self.weight[:, :, 1 : 1 + height, 1 : 1 + width])
        return linear(_by_pixel(x).flatten(1), taps.flatten(1))[:, :, None, None]


class Up(nn.ConvTranspose2d):
    """Undoes `Down` to exactly `size`: without extra padding n becomes 2n - 1."""

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        height, width = size
        extra = (1 - height % 2, 1 - width % 2)
        super().__init__(before, after, 3, stride=2, padding=1, output_padding=extra, bias=False)
        self.size = size

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = self.size
        if max(height, width) > 2:
            return super().forward(x, output_size)
        taps = _by_pixel(self.weight[:, :, 1 : 1 + height, 1 : 1 + width])
        pixels = linear(x.flatten(1), taps.flatten(1).t()).unflatten(1, taps.shape[1:])
        image: Tensor = pixels.permute(0, 3, 1, 2)
        return image


class Last(nn.Conv2d):
    """The layer that makes the image, of few channels: every pixel's nine products first (one
    matrix product), then their sum where they belong."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__(before, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        size = x.shape[2:]
        # a pixel's share goes where its tap points from: the kernel, turned around
        taps = _by_pixel(self.weight.flip(2, 3)).flatten(0, 2)  # [channels * 9, before]
        pixels = _by_pixel(x).flatten(1, 2)  # [B, H * W, before]
        shares = linear(pixels.flatten(0, 1), taps).unflatten(0, pixels.shape[:2])
        image: Tensor = F.fold(shares.transpose(1, 2), size, 3, padding=1)
        return image + self.bias[:, None, None]


def _by_pixel(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C]; no copy where it lies in memory like that."""
    return x.permute(0, 2, 3, 1)
