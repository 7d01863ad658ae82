"""Pixels, PNG, GIF."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli.figures import (
    CurveAxes,
    animation_frames,
    image_array,
    kl_bars,
    save_gif,
    save_png,
)


def figure():
    return kl_bars(torch.rand(3), torch.tensor([True, False, True]))


def test_image_array_is_the_figure_in_rgb():
    drawn = figure()
    pixels = image_array(drawn)
    width, height = (drawn.get_size_inches() * drawn.dpi).astype(int)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[0] == 255).all()
    assert pixels.min() < 100


def test_png_is_written_whole(tmp_path):
    path = tmp_path / "kl.png"
    path.write_text("old")
    written = save_png(figure(), path)
    assert path.read_bytes() == written
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 300
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "kl.png"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(figure(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("steps", "order"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3, 2, 1])])
def test_frames_go_there_and_back(steps, order):
    decoded = (torch.arange(steps) / 10).reshape(steps, 1, 1, 1).expand(steps, 1, 8, 8)
    frames = animation_frames(decoded)
    assert [round(f.getpixel((5, 5))[0] / 25.5) for f in frames] == order
    assert {f.size for f in frames} == {(256, 256)}


def test_frames_keep_the_shape_and_colour_of_images():
    decoded = torch.zeros(2, 3, 32, 48)
    decoded[:, 0, :, :24] = 2.0  # clipped
    frame = animation_frames(decoded)[0]
    assert frame.size == (48 * 5, 32 * 5)
    assert frame.getpixel((0, 0)) == (255, 0, 0)
    assert frame.getpixel((239, 159)) == (0, 0, 0)


def test_curve_frames_differ_but_their_axes_stand_still():
    decoded = torch.linspace(0, 1, 3)[:, None] * torch.linspace(0, 1, 20)
    axes = CurveAxes(torch.linspace(0, 1, 20), "x", "density")
    frames = [np.asarray(f).astype(int) for f in animation_frames(decoded, axes)]
    assert len(frames) == 4
    left = [f[:, : f.shape[1] // 10] for f in frames]  # tick labels of the y axis
    assert (left[0] == left[2]).all()
    assert (frames[0] != frames[2]).any()
    assert (frames[1] == frames[3]).all()


def test_gif_loops_and_takes_the_time_it_was_given(tmp_path):
    frames = animation_frames(torch.rand(6, 1, 8, 8))
    path = tmp_path / "walk.gif"
    save_gif(frames, path, seconds=2.0)
    with Image.open(path) as picture:
        assert picture.n_frames == 10
        assert picture.info["duration"] == 200
        assert picture.info["loop"] == 0
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="no frames"):
        save_gif([], path)
