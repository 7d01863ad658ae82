"""Examples as pictures: what stands where, at every size and number of channels."""

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli.analysis import figures
from vae_cli.data.dataset import Curves

BETA = Curves(torch.linspace(0.1, 0.9, 30), "x", "density", logarithms=True)


def names(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_channels_are_drawn(channels):
    x = torch.rand(2, 3, channels, 9, 14)
    (ax,) = figures.sheet(x, "title", None, rows=("a", "b"), columns=("1", "", "3")).axes
    assert (names(ax.yaxis), names(ax.xaxis)) == (["a", "b"], ["1", "", "3"])
    first = np.asarray(ax.get_images()[0].get_array())[5, 5]
    shown = x[0, 0, :, 0, 0] if channels == 3 else x[0, 0, :1, 0, 0].expand(3)
    np.testing.assert_allclose(first, shown, atol=1e-6)


def test_curves_are_drawn_as_their_exponentials_over_the_grid():
    x = torch.randn(2, 3, 30)
    figure = figures.sheet(x, "title", BETA, rows=("a", "b"), columns=("1", "2", "3"), along="way")
    *panels, _ = figure.axes
    assert [ax.get_title() for ax in panels] == ["a", "b"]
    assert panels[0].get_ylim() == panels[1].get_ylim()  # shows which row moves most
    line = panels[1].get_lines()[2]
    np.testing.assert_allclose(line.get_xdata(), BETA.grid)
    np.testing.assert_allclose(line.get_ydata(), x[1, 2].double().exp())


def test_a_png_and_its_pixels_are_alike_and_a_film_goes_there_and_back(tmp_path):
    figure = figures.sheet(torch.rand(1, 2, 1, 8, 8), "title", None)
    pixels = figures.save_png(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert (np.asarray(picture.convert("RGB")) == pixels.permute(1, 2, 0).numpy()).all()
    images = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 1, 8, 8)
    figures.save_gif(images, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (8, (256, 256), 0)
