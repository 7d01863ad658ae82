"""Pictures of simple shapes, computed from known factors as in dSprites (Matthey et al. 2017)."""

import math
from pathlib import Path

import torch
from torch import Tensor

from vae_cli.config.datasets import ShapesConfig
from vae_cli.data.dataset import Data, Split, carve, carve_validation, fingerprint

REACH = 0.25  # radius of a shape's circle at scale 1, in sides of the picture
BLOCK = 2**22  # pixels that are computed at a time
NOT_DRAWN = ("val_size", "test_size", "binarize", "suggested")  # settings that change no picture


def load(config: ShapesConfig, data_dir: Path) -> Data:
    """Draw every combination of the factors.

    Labels are the shapes; parameters are x and y (the centre, from 0 to 1 between the places where
    the largest shape meets the border), scale, and rotation in degrees, counter-clockwise. The
    factors are independent, and no rotation repeats a picture: max_rotation, which is left out, is
    at most the angle after which a shape of the list looks alike (square 90, ellipse 180).
    """
    places = (torch.arange(config.positions) + 0.5) / config.positions
    scales = torch.linspace(1, config.min_scale, config.scales).flip(0)  # one scale: 1
    angles = torch.arange(config.rotations) * (config.max_rotation / config.rotations)
    values = (torch.arange(len(config.shapes)).float(), scales, angles, places, places)
    kind, scale, angle, x, y = torch.cartesian_prod(*values).unbind(1)
    factors = {"x": x, "y": y, "scale": scale, "rotation": angle}
    images = torch.empty(len(kind), 1, config.size, config.size, dtype=torch.uint8)
    for label, name in enumerate(config.shapes):
        for rows in (kind == label).nonzero()[:, 0].split(max(1, BLOCK // config.size**2)):
            images[rows, 0] = draw(name, config.size, **{k: v[rows] for k, v in factors.items()})
    rest, test = carve(Split(images, kind.long(), factors), config.test_size, "test_size")
    train, val = carve_validation(rest, config.val_size)
    # not of the pictures, whose rounding differs between machines
    digest = fingerprint(str(config.model_dump(exclude={*NOT_DRAWN})))
    return Data(config.name, train, val, test, tuple(config.shapes), None, config.binarize, digest)


def draw(name: str, size: int, x: Tensor, y: Tensor, scale: Tensor, rotation: Tensor) -> Tensor:
    """Draw white shapes on black from factors [N] each, see `load`. -> [N, size, size] uint8.

    A pixel's grey is the share of it that the shape covers: a half minus the distance of its
    centre from the outline, in pixels.
    """
    radius, turn = REACH * scale[:, None, None], rotation.deg2rad()[:, None, None]
    cells = (torch.arange(size) + 0.5) / size
    right = cells - REACH - (1 - 2 * REACH) * x[:, None, None]
    up = (1 - cells)[:, None] - REACH - (1 - 2 * REACH) * y[:, None, None]
    u, v = turn.cos() * right + turn.sin() * up, turn.cos() * up - turn.sin() * right
    distance = OUTLINES[name](u / radius, v / radius) * (radius * size)
    grey: Tensor = (0.5 - distance).clamp_(0, 1).mul_(255).round_().byte()
    return grey


# distances from outlines that lie in the unit circle, negative inside: exact near the outline,
# but for corners


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - math.sqrt(0.5)


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Half as high as wide; to first order, f / |grad f| (Taubin 1994)."""
    level = torch.hypot(u, 2 * v)
    return (level - 1) * level.clamp_min(1e-6) / torch.hypot(u, 4 * v).clamp_min(1e-6)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its corner and discs over its two upper sides."""
    u, v = 0.63 * u.abs(), 0.63 * (v + 1)  # the square is from (0, 0) to (0, 1)
    square, disc = (u + (v - 0.5).abs() - 0.5) * 0.5**0.5, torch.hypot(u - 0.25, v - 0.75)
    return torch.minimum(square, disc - 0.125**0.5) / 0.63


OUTLINES = {"square": _square, "ellipse": _ellipse, "heart": _heart}
