"""Pictures against geometry: areas, centres and axes that are known without drawing."""

import math

import pytest
import torch

from vae_cli.config.datasets import TURNS
from vae_cli.console import UserError
from vae_cli.data.shapes import REACH, draw

SMALL = {"positions": 4, "scales": 3, "rotations": 5, "size": 24}
# of shapes in the unit circle: half a diagonal squared, pi a b, two half
# discs on a square, which the heart has 1 / 0.63 times as large
AREAS = {
    "square": 2.0,
    "ellipse": math.pi / 2,
    "heart": (0.5 + math.pi / 8) / 0.63**2,
}


def moments(picture: torch.Tensor) -> tuple[float, float, float, float]:
    """Area in sides squared, centre (right, up) in sides, and the angle of the long axis."""
    weight, size = picture.double() / 255, len(picture)
    cells = (torch.arange(size) + 0.5).double() / size
    right, up = cells.expand(size, size), (1 - cells)[:, None].expand(size, size)
    area = weight.sum()
    x, y = (weight * right).sum() / area, (weight * up).sum() / area
    a, b = right - x, up - y
    xx, yy, xy = ((weight * product).sum() for product in (a * a, b * b, a * b))
    angle = 0.5 * math.degrees(math.atan2(2 * xy, xx - yy))
    return float(area) / size**2, float(x), float(y), angle


def one(name: str, x: float, y: float, scale: float, rotation: float, size: int = 32):
    return draw(name, size, *torch.tensor([x, y, scale, rotation])[:, None])[0]


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("rotation", [0, 37])
def test_the_area_is_that_of_the_shape(name, rotation):
    for scale in (0.5, 1.0):
        expected = AREAS[name] * (REACH * scale) ** 2
        assert moments(one(name, 0.41, 0.73, scale, rotation, 64))[0] == pytest.approx(
            expected, rel=0.02
        )


def test_place_and_rotation_are_those_of_the_factors():
    for x, y, rotation in ((0.0, 1.0, 0), (0.3, 0.8, 20), (1.0, 0.1, 75)):
        found = moments(one("ellipse", x, y, 0.8, rotation, 64))[1:]
        expected = (REACH + (1 - 2 * REACH) * x, REACH + (1 - 2 * REACH) * y, rotation)
        assert found == pytest.approx(expected, abs=0.5 if rotation else 0.02)
        assert found[:2] == pytest.approx(expected[:2], abs=1e-3)
    upright = one("heart", 0.5, 0.5, 1.0, 0).double().sum(1)
    assert upright[12] > 2 * upright[20]  # its tip is down


def test_the_grid_is_whole_split_and_every_picture_is_another(load):
    data = load("shapes", **SMALL)
    parts = (data.train, data.val, data.test)
    count = 3 * 4 * 4 * 3 * 5
    assert [len(part) for part in parts] == [count - 72 - 64, 64, 72]
    assert data.shape == (1, 24, 24)
    assert len(torch.cat([part.x.flatten(1) for part in parts]).unique(dim=0)) == count
    known = torch.stack([torch.cat([p.known[k].double() for p in parts]) for k in data.test.known])
    assert list(data.test.known) == ["class", "x", "y", "scale", "rotation"]
    assert len(known.unique(dim=1).T) == count
    assert [len(values.unique()) for values in known] == [3, 4, 4, 3, 5]
    # factors of a full grid are independent
    assert torch.corrcoef(known).sub(torch.eye(5)).abs().max() < 1e-6
    for i in (0, 40, 71):
        name = data.class_names[data.test.labels[i]]
        factors = {k: v[i : i + 1] for k, v in data.test.parameters.items()}
        assert data.test.x[i, 0].equal(draw(name, 24, **factors)[0])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("dataset.max_rotation=180",), "max_rotation=180: must be <= 90"),
        (("dataset.shapes=[heart,heart]",), "must name each shape once"),
    ],
)
def test_rotations_that_cannot_be_seen_are_refused(make_config, overrides, words):
    with pytest.raises(UserError, match=words):
        make_config("dataset=shapes", *overrides)
    assert make_config("dataset=shapes", "dataset.shapes=[heart]", "dataset.max_rotation=360")


@pytest.mark.parametrize("name", ["square", "ellipse"])
def test_a_shape_looks_alike_after_its_turn_and_not_before(name):
    pictures = [one(name, 0.5, 0.5, 1.0, angle).int() for angle in (0, TURNS[name], 9)]
    assert (pictures[0] - pictures[1]).abs().max() <= 1
    assert (pictures[0] - pictures[2]).abs().max() > 50
