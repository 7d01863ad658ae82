"""Scatter plots of codes: who gets which colour, and what is left out."""

import torch
from matplotlib.colors import to_rgba

from vae_cli.figures import latent_scatter, style


def legend_texts(ax) -> list[str]:
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_plain_points():
    codes = torch.randn(30, 2)
    (ax,) = latent_scatter(codes).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z1", "z2")
    assert torch.allclose(torch.tensor(ax.collections[0].get_offsets()), codes.double())
    assert ax.get_legend() is None


def test_points_take_the_colour_of_their_class():
    codes = torch.randn(6, 2)
    labels = torch.tensor([2, 0, 2, 5, 0, 5])
    (ax,) = latent_scatter(codes, labels, ["a", "b", "c"]).axes
    assert legend_texts(ax) == ["a", "c", "5"]  # only classes that occur; no name: the number
    (points,) = ax.collections
    faces = points.get_facecolors()
    for i, label in enumerate(labels):
        assert tuple(faces[i][:3]) == to_rgba(style.PALETTE[label])[:3]


def test_thirty_classes_differ_in_colour_or_marker():
    labels = torch.arange(60) % 30
    (ax,) = latent_scatter(torch.randn(60, 2), labels, [f"c{i}" for i in range(30)]).axes
    handles = ax.get_legend().legend_handles
    assert len(handles) == 30
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 30
    assert len(ax.collections) == 3


def test_more_classes_than_looks_get_a_colour_bar():
    figure = latent_scatter(torch.randn(300, 2), torch.arange(300) % 100)
    assert figure.axes[0].get_legend() is None
    assert figure.axes[1].get_ylabel() == "class"


def test_labels_beyond_the_palette_still_differ():
    (ax,) = latent_scatter(torch.randn(4, 2), torch.tensor([1000, 2000, 1000, -1])).axes
    assert legend_texts(ax) == ["-1", "1000", "2000"]
    assert len({h.get_color() for h in ax.get_legend().legend_handles}) == 3


def test_a_panel_and_a_colour_bar_for_each_parameter():
    a, b = torch.rand(50), 5 + torch.rand(50)
    figure = latent_scatter(torch.randn(50, 2), parameters={"a": a, "b": b}, dims=(3, 7))
    first, second, *bars = figure.axes
    assert (first.get_xlabel(), second.get_ylabel()) == ("z4", "z8")
    assert [bar.get_ylabel() for bar in bars] == ["a", "b"]
    assert bars[1].get_ylim()[0] >= 5


def test_labels_and_parameters_together():
    figure = latent_scatter(torch.randn(9, 2), torch.arange(9) % 2, None, {"a": torch.rand(9)})
    assert len(figure.axes) == 3
    assert legend_texts(figure.axes[0]) == ["0", "1"]


def test_axis_names_of_an_embedding():
    (ax,) = latent_scatter(torch.randn(5, 2), axis_names=("t-SNE 1", "t-SNE 2")).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t-SNE 1", "t-SNE 2")


def test_broken_and_remote_points_are_counted():
    codes = torch.randn(500, 2)
    codes[3, 0], codes[4, 1] = float("nan"), float("inf")
    codes[5] = 1e5
    figure = latent_scatter(codes, torch.zeros(500))
    assert figure.axes[0].collections[0].get_offsets().shape == (498, 2)
    assert figure.axes[0].get_xlim()[1] < 100
    note = figure.get_supxlabel()
    assert "left out: 2 of 500 points" in note
    assert "far outside the picture: 1 of 500 points" in note


def test_unknown_and_constant_parameters():
    values = torch.ones(20)
    values[0] = float("nan")
    figure = latent_scatter(torch.randn(20, 2), parameters={"a": values})
    assert len(figure.axes[0].collections[0].get_offsets()) == 1  # pale: no value
    assert len(figure.axes[0].collections[1].get_offsets()) == 19


def test_nothing_finite_at_all():
    figure = latent_scatter(torch.full((3, 2), float("nan")), torch.tensor([0, 1, 2]))
    assert "3 of 3" in figure.get_supxlabel()
