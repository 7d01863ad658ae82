"""Raw tile grids, and the colours of image tiles."""

import pytest
import torch

from vae_cli.figures import mosaic, style, tile_grid, tiles


def test_tiles_run_by_rows_with_a_white_separator_and_white_rest():
    levels = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    grid = tile_grid(levels.reshape(5, 1, 1, 1).expand(5, 1, 8, 6), columns=3)
    assert grid.shape == (1, 8 + 1 + 8, 3 * 6 + 2)
    assert grid.dtype == torch.float32
    for i, level in enumerate(levels):
        top, left = (i // 3) * 9, (i % 3) * 7
        assert (grid[0, top : top + 8, left : left + 6] == level).all()
    assert (grid[0, 8] == 1).all()
    assert (grid[0, :, 6] == 1).all()
    assert (grid[0, 9:, 14:] == 1).all()


def test_large_tiles_have_a_wider_separator():
    assert tile_grid(torch.rand(4, 3, 32, 48), columns=2).shape == (3, 66, 98)


def test_grid_is_no_wider_than_its_tiles():
    assert tile_grid(torch.rand(2, 1, 4, 4), columns=8).shape == (1, 4, 9)


def test_grid_clips_and_blackens_what_is_not_finite():
    x = torch.tensor([-1.0, 2.0, float("nan"), float("inf")]).reshape(1, 1, 2, 2)
    assert tile_grid(x, 1).flatten().tolist() == [0, 1, 0, 0]


def test_grid_of_other_channel_counts_shows_the_first():
    x = torch.rand(2, 5, 4, 4)
    grid = tile_grid(x, 2)
    assert grid.shape[0] == 1
    assert torch.equal(grid[0, :, :4], x[0, 0])


def test_grid_takes_any_float_type_and_gradients():
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.bfloat16, requires_grad=True)
    grid = tile_grid(x, 1)
    assert not grid.requires_grad
    assert (grid == 0.5).all()


def test_grey_is_black_at_zero_and_white_at_one():
    rgb, note = mosaic.coloured_tiles(torch.tensor([-3.0, 0, 1, 7]).reshape(1, 1, 2, 2))
    assert rgb[0, 0].flatten().tolist() == [0, 0, 1, 1]
    assert note == ""


def test_broken_pixels_stand_out_in_grey_and_in_colour():
    for channels in (1, 3):
        x = torch.zeros(1, channels, 2, 2)
        x[0, channels - 1, 0, 1] = float("inf")
        rgb, note = mosaic.coloured_tiles(x)
        assert torch.allclose(rgb[0, :, 0, 1], torch.tensor(style.NOT_FINITE_COLOUR).double())
        assert rgb[0, :, 1].sum() == 0
        assert "NaN" in note


def test_colour_tiles_keep_their_channels():
    x = torch.tensor([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    rgb, _ = mosaic.coloured_tiles(x)
    assert torch.allclose(rgb, x.double())


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 1, 4, 4), (3, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        tiles.is_images(torch.zeros(shape))
