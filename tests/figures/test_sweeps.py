"""Pictures of a sweep, from made-up numbers."""

import numpy as np
import pytest
import torch

from vae_cli.figures import images, sweeps
from vae_cli.figures.output import image_array
from vae_cli.figures.sweeps import Point, Series


def points(count, seeds=3, value=float):
    rng = np.random.default_rng(0)
    return [
        Point(f"beta={2**i}", None if value is None else value(2**i), 20.0 / (i + 1) + 0.1
              * rng.normal(size=seeds), 80.0 + 5 * i + rng.normal(size=seeds), on_front=i < 3)
        for i in range(count)
    ]  # fmt: skip


def test_rate_distortion_has_a_mark_a_group_and_the_front():
    made = points(5)
    figure = sweeps.rate_distortion(made)
    image_array(figure)
    ax = figure.axes[0]
    assert [c[0].get_xdata()[0] for c in ax.containers] == [p.x.mean() for p in made]
    front = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert sorted(p.x.mean() for p in made[:3]) == list(front[0].get_xdata())
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [*(p.label for p in made), "Pareto front"]
    colours = {container[0].get_color() for container in ax.containers}
    assert len(colours) == 5


def test_one_colour_a_label_and_one_shape_a_mark():
    made = [
        Point(f"beta={b}", float(b), np.array([b + lr]), np.array([80.0 + b]), mark=f"lr={lr}")
        for b in (1, 2)
        for lr in (0.1, 0.2)
    ]
    figure = sweeps.rate_distortion(made)
    image_array(figure)
    marks = [container[0] for container in figure.axes[0].containers]
    assert [mark.get_marker() for mark in marks] == ["o", "^", "o", "^"]
    assert marks[0].get_color() == marks[1].get_color() != marks[2].get_color()
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["beta=1", "beta=2", "lr=0.1", "lr=0.2"]


def test_equal_elbo_lies_along_the_pale_lines():
    figure = sweeps.rate_distortion(points(4))
    image_array(figure)
    ax = figure.axes[0]
    pale = [line for line in ax.lines if line.get_color() == sweeps.style.PALE]
    assert len(pale) > 3
    for line in pale:
        totals = np.add(line.get_xdata(), line.get_ydata())
        assert totals[0] == pytest.approx(totals[1])
    assert any(text.get_text().startswith("\N{MINUS SIGN}") for text in ax.texts)


@pytest.mark.parametrize(("count", "value"), [(1, float), (2, None), (40, float), (40, None)])
def test_rate_distortion_of_few_many_and_categories(count, value):
    figure = sweeps.rate_distortion(points(count, seeds=1, value=value), "beta")
    image_array(figure)
    assert (len(figure.axes) == 2) == (count == 40 and value is float)  # a colour bar


def test_a_run_that_diverged_does_not_flatten_the_others():
    far = Point("beta=0", 0.0, np.array([1e12]), np.array([1e15]))
    figure = sweeps.rate_distortion([*points(6), far])
    image_array(figure)
    assert figure.axes[0].get_xlim()[1] < 100
    assert "1 means far" in figure.get_supxlabel()
    runs = [np.array([float(i)]) for i in range(6)] + [np.array([1e12])]
    figure = sweeps.metric_panels({"KL": [Series("", list(range(7)), runs)]}, "beta")
    assert figure.axes[0].get_ylim()[1] < 10


def series(values, label=""):
    return Series(label, values, [np.array([i, i + 1.0]) for i in range(len(values))])


def test_values_over_decades_are_on_a_logarithmic_axis():
    figure = sweeps.metric_panels({"KL": [series([0.1, 1.0, 10.0])]}, "beta")
    image_array(figure)
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.1", "1", "10"]
    assert ax.containers[0][0].get_ydata().tolist() == [0.5, 1.5, 2.5]
    for values in ([0.0, 1.0, 100.0], [1.0, 2.0, 3.0]):
        ax = sweeps.metric_panels({"KL": [series(values)]}, "beta").axes[0]
        assert ax.get_xscale() == "linear"


def test_names_are_categories():
    figure = sweeps.metric_panels({"KL": [series(["adam", "sgd"]), series(["sgd"], "b")]}, "x")
    image_array(figure)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["adam", "sgd"]
    assert ax.containers[1][0].get_xdata().tolist() == [1.0]


def test_lines_are_named_while_they_can_be_told_apart():
    few = [series([1, 2], f"lr={i}") for i in range(3)]
    figure = sweeps.metric_panels({"KL": few, "ELBO": few}, "beta")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["lr=0", "lr=1", "lr=2"]
    many = [series([1, 2], f"lr={i}") for i in range(20)]
    figure = sweeps.metric_panels({"KL": many}, "beta")
    assert not figure.legends
    assert "20 combinations" in figure.get_supxlabel()


def test_a_count_starts_at_nought():
    figure = sweeps.metric_panels({"active": [series([1, 2])]}, "beta", whole=True)
    assert figure.axes[0].get_ylim()[0] <= 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (30,)])
def test_models_side_by_side(shape):
    rows = {f"beta = {b}": torch.rand(4, *shape) for b in (1, 2, 4)}
    samples = images.samples_of_models(rows)
    image_array(samples)
    image_array(images.reconstructions(torch.rand(4, *shape), rows))
    if len(shape) == 3:
        labels = [t.get_text() for t in samples.axes[0].get_yticklabels()]
    else:
        labels = [ax.get_title() for ax in samples.axes]
    assert labels == list(rows)
