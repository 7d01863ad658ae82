"""Examples as pictures: what stands where, at every size and number of channels."""

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli.analysis import export, figures
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


def test_a_png_has_its_small_print_below_and_a_film_goes_there_and_back(tmp_path):
    figure, (ax,) = figures.panels(1, 1, (4.0, 3.0), "title", "x", "y")
    figure.legend(ax.plot([0, 1]), ["a line"], loc="outside lower center")
    plain, noted = export.render(figure)[1], export.render(figure, "a run, and more " * 20)[1]
    assert plain.shape[1] + 30 < noted.shape[1]  # some lines of small print
    dark, noted_dark = [(x[:, : plain.shape[1] - 5] < 90).sum() for x in (plain, noted)]
    assert noted_dark == pytest.approx(float(dark), rel=0.05)  # the legend is still above it
    export.save_png(figure, tmp_path / "a.png", "")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGBA"
    images = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 1, 8, 8)
    export.save_gif(images, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (8, (256, 256), 0)
