"""Residuals, curve fits, and the y range that curves get."""

import numpy as np
import pytest
import torch

from vae_cli.figures import CurveAxes, curve_fit, curves, residuals, style

NAN = float("nan")


def test_residual_is_reconstruction_minus_original():
    x = torch.rand(3, 30)
    made = x + torch.tensor([0.1, 0.2, -0.4])[:, None]
    axes = CurveAxes(torch.linspace(-1, 1, 30), "t", "u")
    figure = residuals(x, made, axes)
    assert len(figure.axes) == 6
    for i, shift in enumerate([0.1, 0.2, -0.4]):
        upper, lower = figure.axes[i], figure.axes[3 + i]
        assert np.allclose(upper.get_lines()[0].get_ydata(), x[i])
        assert np.allclose(upper.get_lines()[1].get_ydata(), made[i])
        assert np.allclose(lower.get_lines()[1].get_ydata(), shift, atol=1e-6)
        assert sum(lower.get_ylim()) == pytest.approx(0)
        assert lower.get_xlabel() == "t"
    assert figure.axes[0].get_ylabel() == "u"
    assert figure.axes[3].get_ylabel() == "residual"


def test_residuals_of_many_examples():
    x = torch.rand(9, 30)
    figure = residuals(x, x)
    assert len(figure.axes) == 12
    assert "first 6 of 9" in figure.legends[0].get_title().get_text()


def test_curve_fit_shows_both_and_the_error():
    target = torch.sin(torch.linspace(0, 3, 50))
    left, right = curve_fit(target, target + 0.1, None, "Beta(2, 3)", "decoder").axes
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["Beta(2, 3)", "decoder"]
    assert np.allclose(right.get_lines()[1].get_ydata(), 0.1, atol=1e-6)
    assert right.get_title() == "decoder minus Beta(2, 3)"
    with pytest.raises(ValueError, match="fitted"):
        curve_fit(target, target[1:])


def test_a_fit_that_is_all_nan_leaves_the_target():
    target = torch.rand(50)
    left, right = curve_fit(target, target * NAN).axes
    assert left.get_ylim()[1] < 2
    assert right.texts[0].get_text() == "no finite value"


def test_gaps_stay_gaps():
    target = torch.rand(50)
    target[10], target[20] = NAN, float("-inf")
    left, _ = curve_fit(target, target).axes
    assert np.flatnonzero(np.isnan(left.get_lines()[0].get_ydata())).tolist() == [10, 20]


def test_limits_hold_everything_when_nothing_is_odd():
    drawn = np.random.default_rng(0).normal(size=(30, 20))
    assert curves.curve_limits(drawn) == (drawn.min(), drawn.max(), 0)


def test_limits_ignore_odd_curves_on_both_sides():
    drawn = np.random.default_rng(0).normal(size=(30, 20))
    usual = (drawn[2:].min(), drawn[2:].max())
    drawn[0, 3], drawn[1, 5] = 1e4, -1e4
    low, high, leaving = curves.curve_limits(drawn)
    assert leaving == 2
    assert usual[0] <= low < high <= usual[1]


def test_one_curve_is_never_cut():
    peak = np.zeros((1, 100))
    peak[0, 50] = 1e6
    assert curves.curve_limits(peak) == (0, 1e6, 0)


def test_limits_without_a_finite_number():
    assert curves.curve_limits(np.full((3, 4), NAN)) == (0, 1, 0)


def test_an_index_has_no_ticks_between_its_points():
    left, _ = curve_fit(torch.rand(4), torch.rand(4)).axes
    assert all(tick == int(tick) for tick in left.get_xticks())
    assert left.get_xlabel() == "index"
    assert left.get_lines()[0].get_marker() == "o"


def test_few_keeps_both_ends():
    assert style.few(3, 5) == [0, 1, 2]
    chosen = style.few(50, 16)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (0, 49, 16)


def test_numbers_are_short():
    assert style.number(-0.857142) == "−0.857"
    assert style.number(-3e-8, scale=3.0) == "0"
    assert style.number(2.13, 2) == "2.1"
