"""Loss curves from a list of epochs."""

import math

import numpy as np
import pytest

from vae_cli.figures import loss_curves


def epochs(n: int, *splits: str) -> list[dict[str, float]]:
    names = ("loss", "reconstruction", "kl")
    return [
        {"epoch": i} | {f"{s}/{m}": 10.0 * j + 1 / i for s in splits for j, m in enumerate(names)}
        for i in range(1, n + 1)
    ]


def test_a_panel_a_metric_and_a_line_a_split():
    figure = loss_curves(epochs(5, "train", "val"))
    assert [ax.get_title() for ax in figure.axes] == ["loss", "reconstruction", "KL"]
    for j, ax in enumerate(figure.axes):
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "nats per example")
        train, val = ax.get_lines()
        assert train.get_xdata().tolist() == [1, 2, 3, 4, 5]
        assert np.allclose(val.get_ydata(), [10 * j + 1 / i for i in range(1, 6)])
        assert train.get_linestyle() != val.get_linestyle()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["train", "val"]


def test_without_validation():
    figure = loss_curves(epochs(5, "train"))
    assert [len(ax.get_lines()) for ax in figure.axes] == [1, 1, 1]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["train"]


def test_elbo_gets_a_panel_when_it_was_logged():
    history = epochs(3, "train")
    history[2]["val/elbo"] = -100.0
    figure = loss_curves(history)
    assert [ax.get_title() for ax in figure.axes] == ["loss", "reconstruction", "KL", "ELBO"]
    (line,) = figure.axes[3].get_lines()
    assert line.get_marker() == "o"  # a lone point has no line


@pytest.mark.parametrize("history", [[], [{"epoch": 1.0}], [{"train/loss": math.nan}]])
def test_nothing_to_draw(history):
    figure = loss_curves(history)
    assert [ax.get_title() for ax in figure.axes] == ["loss"]
    assert figure.get_supxlabel() == "nothing was logged"


def test_epochs_count_up_when_not_given_and_broken_values_are_gaps():
    figure = loss_curves([{"train/loss": 3.0}, {"train/loss": math.inf}, {"train/loss": 1.0}])
    (line,) = figure.axes[0].get_lines()
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert math.isnan(line.get_ydata()[1])


def test_a_wild_first_epoch_does_not_flatten_the_rest():
    history = [{"train/loss": 1e6 if i == 0 else 100 - i} for i in range(30)]
    figure = loss_curves(history)
    assert figure.axes[0].get_ylim()[1] < 110
    assert "1 values far" in figure.legends[0].get_title().get_text()
