"""Manifolds, traversals, interpolations: order and orientation."""

import pytest
import torch

from vae_cli.figures import CurveAxes, interpolation, manifold, traversals


def constant(levels, shape) -> torch.Tensor:
    levels = torch.as_tensor(levels, dtype=torch.float32)
    return levels.reshape(-1, *[1] * len(shape)).expand(-1, *shape).clone()


def names(ticks) -> list[str]:
    return [t.get_text() for t in ticks]


def test_manifold_runs_right_and_up():
    # Level 0.3 r + 0.1 c at (c, r): the picture must be darkest at the bottom left.
    decoded = constant([0.3 * r + 0.1 * c for r in range(2) for c in range(3)], (1, 28, 28))
    figure = manifold(decoded, torch.tensor([-1.0, 0, 1]), torch.tensor([-2.0, 2]))
    (ax,) = figure.axes
    assert names(ax.get_xticklabels()) == ["−1", "0", "1"]
    assert names(ax.get_yticklabels()) == ["−2", "2"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z1", "z2")
    picture = ax.images[0].get_array()
    for r, y in enumerate(ax.get_yticks()):
        for c, x in enumerate(ax.get_xticks()):
            assert picture[int(y), int(x), 0] == pytest.approx(0.3 * r + 0.1 * c, abs=0.01)
    to_screen = ax.transData.transform
    (left, low), (right, high) = to_screen(
        [(ax.get_xticks()[0], ax.get_yticks()[0]), (ax.get_xticks()[2], ax.get_yticks()[1])]
    )
    assert left < right
    assert low < high


def test_manifold_of_curves_has_the_same_orientation():
    decoded = constant([10.0 * r + c for r in range(2) for c in range(3)], (5,))
    decoded += torch.linspace(0, 0.5, 5)
    axes = CurveAxes(torch.linspace(0, 1, 5), "x", "density")
    figure = manifold(decoded, torch.arange(3.0), torch.arange(2.0), axes, dims=(4, 6))
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z5", "z7")
    assert "x from 0 to 1, density from 0 to 12.5" in figure.get_supxlabel()
    cells = {(int(s[0, 0]), int(s[0, 1])): s for s in ax.collections[0].get_segments()}
    y_of = dict(zip(names(ax.get_yticklabels()), ax.get_yticks(), strict=True))
    assert y_of == {"0": 1.5, "1": 0.5}  # in data coordinates that grow downwards
    assert ax.yaxis_inverted()
    lowest, highest = cells[(0, 1)], cells[(2, 0)]
    assert lowest[0, 1] - 1 > highest[0, 1]  # the smallest curve is deepest in its cell
    assert highest[-1, 1] < highest[0, 1]  # an ascending curve goes up the screen


def test_manifold_labels_do_not_touch_when_there_are_many_columns():
    decoded = torch.rand(40 * 40, 1, 8, 8)
    values = torch.linspace(-3, 3, 40)
    (ax,) = manifold(decoded, values, values).axes
    assert 5 < len(ax.get_xticks()) < 40
    assert names(ax.get_xticklabels())[0] == "−3"


def test_rounding_noise_around_zero_is_zero():
    values = torch.linspace(-3, 3, 15)
    assert values[7] != 0
    (ax,) = manifold(torch.rand(15, 1, 8, 8), values, torch.zeros(1)).axes
    assert "0" in names(ax.get_xticklabels())


def test_manifold_needs_a_picture_for_each_pair():
    with pytest.raises(ValueError, match="decoded"):
        manifold(torch.rand(5, 1, 8, 8), torch.zeros(2), torch.zeros(3))


def test_traversals_have_a_row_a_dimension():
    decoded = constant([0.0, 0.1, 0.2, 0.5, 0.6, 0.7], (1, 8, 8)).reshape(2, 3, 1, 8, 8)
    kl = torch.tensor([2.13, 0.04])
    (ax,) = traversals(decoded, torch.tensor([-2.0, 0, 2]), [2, 0], kl).axes
    assert names(ax.get_yticklabels()) == ["z3 (KL 2.1)", "z1 (KL 0.04)"]
    assert names(ax.get_xticklabels()) == ["−2", "0", "2"]
    picture = ax.images[0].get_array()
    shown = [[picture[int(y), int(x), 0] for x in ax.get_xticks()] for y in ax.get_yticks()]
    assert torch.allclose(torch.tensor(shown).flatten(), decoded[..., 0, 0, 0].flatten().double(),
                          atol=0.01)  # fmt: skip


def test_many_dimensions_and_values_are_thinned_and_it_says_so():
    decoded = torch.rand(128, 31, 1, 8, 8)
    figure = traversals(decoded, torch.linspace(-3, 3, 31), range(128))
    assert figure.get_supxlabel() == "first 16 of 128 dimensions; 16 of 31 values"
    (ax,) = figure.axes
    assert len(ax.get_yticks()) == 16
    ends = names(ax.get_xticklabels())
    assert (ends[0], len(ends)) == ("−3", 16)
    assert ends[-1] == "3"


def test_traversals_of_curves_have_a_panel_a_dimension_and_a_colour_bar():
    decoded = torch.rand(3, 7, 20)
    figure = traversals(decoded, torch.linspace(-3, 3, 7), [4, 1, 0])
    *panels, bar = figure.axes
    assert [ax.get_title() for ax in panels] == ["z5", "z2", "z1"]
    assert [len(ax.get_lines()) for ax in panels] == [7, 7, 7]
    assert len({ax.get_ylim() for ax in panels}) == 1
    assert bar.get_ylabel() == "value of the code"
    assert bar.get_ylim() == (-3, 3)
    first, last = (panels[0].get_lines()[i].get_color() for i in (0, -1))
    assert tuple(first) != tuple(last)


def test_interpolation_names_the_ends_of_every_leg():
    decoded = constant([0.0, 0.2, 0.4, 0.6, 0.6, 0.7, 0.8, 0.9], (3, 32, 48))
    (ax,) = interpolation(decoded.unflatten(0, (2, 4)), ["a seven", "a two", "a one"]).axes
    assert names(ax.get_yticklabels()) == ["a seven", "a two"]
    assert names(ax.texts) == ["a two", "a one"]
    picture = ax.images[0].get_array()
    rows = [int(y) for y in ax.get_yticks()]
    ends = [(picture[y, 20, 0], picture[y, -20, 0]) for y in rows]
    assert torch.allclose(torch.tensor(ends).float(), torch.tensor([[0, 0.6], [0.6, 0.9]]),
                          atol=0.01)  # fmt: skip


def test_interpolation_needs_a_stop_more_than_legs():
    with pytest.raises(ValueError, match="stops"):
        interpolation(torch.rand(1, 4, 1, 8, 8), ["one"])


def test_long_interpolations_keep_both_ends():
    decoded = constant(torch.linspace(0, 1, 50), (1, 8, 8))[None]
    figure = interpolation(decoded, ["a", "b"])
    assert figure.get_supxlabel() == "16 of 50 steps"
    picture = figure.axes[0].images[0].get_array()
    assert (picture[0, 0, 0], picture[0, -1, 0]) == (0, 1)


def test_interpolated_curves_carry_the_ends_on_the_colour_bar():
    ax, bar = interpolation(torch.rand(1, 6, 20), ["from", "to"]).axes
    assert len(ax.get_lines()) == 6
    assert names(bar.get_yticklabels()) == ["from", "to"]


def test_a_plain_traversal_says_what_its_values_are():
    decoded = torch.rand(1, 3, 1, 8, 8)
    (ax,) = traversals(decoded, torch.arange(3.0), [0], value_name="deviations").axes
    assert ax.get_xlabel() == "deviations"
