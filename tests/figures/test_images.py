"""Reconstructions and samples: what stands where."""

import pytest
import torch

from vae_cli.figures import CurveAxes, reconstructions, samples


def levels(n: int, shape: tuple[int, ...], start: float = 0.0) -> torch.Tensor:
    """Constant examples, start, start + 0.1, ..."""
    values = start + 0.1 * torch.arange(n)
    return values.reshape(n, *[1] * len(shape)).expand(n, *shape)


def tile_levels(ax, x_centres, y_centres) -> list[list[float]]:
    picture = ax.images[0].get_array()
    return [[round(float(picture[int(y), int(x), 0]), 1) for x in x_centres] for y in y_centres]


def tile_centres(count: int, size: int, separator: int = 3) -> list[float]:
    return [i * (size + separator) + size / 2 for i in range(count)]


def test_image_rows_are_original_first_then_as_given():
    x = levels(3, (1, 8, 8))
    figure = reconstructions(x, {"before": x + 0.3, "after": x + 0.6})
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["original", "before", "after"]
    shown = tile_levels(ax, tile_centres(3, 48), ax.get_yticks())
    assert shown == [[0.0, 0.1, 0.2], [0.3, 0.4, 0.5], [0.6, 0.7, 0.8]]
    assert figure.get_suptitle() == "Reconstructions"


def test_many_examples_are_cut_and_it_says_so():
    x = torch.rand(20, 1, 8, 8)
    figure = reconstructions(x, {"made": x})
    assert figure.get_supxlabel() == "first 16 of 20"
    assert figure.axes[0].images[0].get_array().shape[1] == 16 * 48 + 15 * 3


def test_curves_have_a_panel_each_with_all_versions():
    x = torch.rand(5, 100)
    axes = CurveAxes(torch.linspace(0, 1, 100), "x", "density")
    figure = reconstructions(x, {"before": x + 1, "after": x + 2}, axes, title="T")
    assert len(figure.axes) == 5
    for i, ax in enumerate(figure.axes):
        drawn = [torch.tensor(line.get_ydata()) for line in ax.get_lines()]
        for shift, y in enumerate(drawn):
            assert torch.allclose(y, (x[i] + shift).double())
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["original", "before", "after"]
    assert figure.axes[0].get_ylabel() == "density"
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "x", "x", "x"]


def test_an_exploding_reconstruction_leaves_the_original_legible():
    x = torch.rand(2, 30)
    made = x.clone()
    made[1] *= 1e6
    figure = reconstructions(x, {"made": made})
    assert figure.axes[1].get_ylim()[1] < 2
    assert "1 of 4 curves leave" in figure.legends[0].get_title().get_text()


def test_a_flat_reconstruction_does_not_cut_a_peaked_original():
    peaked = torch.zeros(1, 50)
    peaked[0, 25] = 1000
    figure = reconstructions(peaked, {"made": torch.zeros(1, 50)})
    assert figure.axes[0].get_ylim()[1] > 1000


@pytest.mark.parametrize(
    ("n", "shape", "columns"),
    [
        (9, (1, 8, 8), 3),
        (7, (1, 8, 8), 3),
        (1, (3, 32, 48), 1),
        (24, (3, 32, 48), 4),
        (64, (3, 12, 16), 8),
    ],
)
def test_samples_fill_a_grid_near_square(n, shape, columns):
    picture = samples(torch.rand(n, *shape)).axes[0].images[0].get_array()
    rows = -(-n // columns)
    scale = round(48 / min(shape[-2:]))
    assert picture.shape[0] == rows * shape[-2] * scale + (rows - 1) * 3
    assert picture.shape[1] == columns * shape[-1] * scale + (columns - 1) * 3


def test_sample_images_are_clipped():
    picture = samples(torch.tensor([-5.0, 9.0]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8))
    array = picture.axes[0].images[0].get_array()
    assert array.min() == 0
    assert array.max() == 1


def test_sample_images_of_five_channels_say_what_is_shown():
    assert samples(torch.rand(4, 5, 8, 8)).get_supxlabel() == "first of 5 channels"


def test_sample_curves_share_one_axes():
    x = torch.rand(6, 40)
    (ax,) = samples(x, title="mine").axes
    assert len(ax.get_lines()) == 6
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("index", "value")


def test_one_huge_curve_does_not_flatten_the_others():
    x = 1 + torch.rand(20, 40)
    x[7] *= 500
    figure = samples(x)
    assert figure.axes[0].get_ylim()[1] < 3
    assert figure.get_supxlabel().startswith("1 of 20 curves leave the y range")


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"made has shape \(2, 1, 8, 8\)"):
        reconstructions(torch.rand(3, 1, 8, 8), {"made": torch.rand(2, 1, 8, 8)})
    with pytest.raises(ValueError, match="grid"):
        samples(torch.rand(3, 9), CurveAxes(torch.rand(8), "x", "y"))
    with pytest.raises(ValueError, match="original"):
        reconstructions(torch.rand(3, 9), {"original": torch.rand(3, 9)})
