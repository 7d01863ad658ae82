"""Pictures of a comparison, from made-up numbers and from tiny models."""

import numpy as np
import pytest
from PIL import Image

from vae_cli.analysis.export import render
from vae_cli.analysis.figures import PALE
from vae_cli.sweeps import figures
from vae_cli.sweeps.table import compare


@pytest.fixture
def made(tmp_path, write_run, measured):
    """Make a comparison of runs with these betas, each with two learning rates and two seeds."""

    def make(betas=(0.5, 1.0, 4.0), rates=(0.1, 0.2)):
        for beta in betas:
            for lr in rates:
                for seed in (1, 0):
                    kl = 20 / (beta + 1) + 0.1 * seed
                    metrics = measured(kl, 80 + 5 * beta + lr + seed)
                    name = f"beta={beta},lr={lr},seed={seed}"
                    write_run(tmp_path / name, metrics, beta=beta, seed=seed, optimizer__lr=lr)
        return compare([tmp_path])

    return make


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_rate_distortion_has_a_mark_a_group_and_equal_elbo_along_pale_lines(made):
    sweep = made()
    figure = figures.rate_distortion(sweep, "title")
    render(figure)
    ax = figure.axes[0]
    points = {(c[0].get_xdata()[0], c[0].get_ydata()[0]) for c in ax.containers}
    means = sweep.means
    assert points == set(zip(means["test/kl"], means["test/reconstruction"], strict=True))
    assert labels(figure)[2:] == ["beta=0.5", "beta=1", "beta=4"]
    assert len({tuple(container[0].get_color()) for container in ax.containers}) == 3
    pale = [line for line in ax.lines if str(line.get_color()) == PALE]
    assert len(pale) > 3
    for line in pale:
        totals = np.add(line.get_xdata(), line.get_ydata())
        assert totals[0] == pytest.approx(totals[1])


def test_values_over_decades_are_on_a_logarithmic_axis(made):
    sweep = made()
    figure = figures.over_setting(sweep, "beta", figures.METRICS, "title")
    render(figure)
    assert [ax.get_title() for ax in figure.axes] == ["ELBO", "reconstruction", "KL"]
    ax = figure.axes[2]
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.5", "1", "4"]
    means = [20 / (beta + 1) + 0.05 for beta in (0.5, 1, 4)]
    assert ax.containers[0][0].get_ydata() == pytest.approx(means)
    assert labels(figure) == ["lr=0.1", "lr=0.2"]
    other = figures.over_setting(sweep, "optimizer.lr", figures.METRICS, "")
    assert other.axes[0].get_xscale() == "linear"


def test_names_are_categories(tmp_path, write_run, measured):
    for i, name in enumerate(("sgd", "adam")):
        write_run(tmp_path / name, measured(i, 1), optimizer__name=name)
    figure = figures.over_setting(compare([tmp_path]), "optimizer.name", {"test/kl": "KL"}, "")
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["adam", "sgd"]
    assert ax.containers[0][0].get_ydata().tolist() == [1, 0]


def test_models_side_by_side_are_like_the_best_and_of_one_seed(made):
    chosen = figures.side_by_side(made(), "beta")
    assert {label: run.folder.name for label, run in chosen.items()} == {
        f"beta = {beta:g}": f"beta={beta},lr=0.1,seed=0" for beta in (0.5, 1.0, 4.0)
    }


TINY = ("dataset=digits", "epochs=1", "model.hidden_sizes=[16]")


def test_every_picture_of_a_beta_sweep(tmp_path, trained):
    runs = [trained(*TINY, *text.split()) for text in ("beta=1", "beta=4", "beta=4 seed=1")]
    drawn, failed = figures.draw_all(compare(runs), tmp_path)
    assert failed == []
    assert [path.name for _, path in drawn] == [
        "rate_distortion.png",
        "metrics_by_beta.png",
        "active_units_by_beta.png",
        "samples_by_beta.png",
        "reconstructions_by_beta.png",
    ]
    for _, path in drawn:
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_a_picture_names_the_runs_that_it_shows(tmp_path, write_run, measured, monkeypatch):
    for name in ("digits", "mnist"):
        for beta in (1.0, 2.0):
            run = tmp_path / f"{name}{beta}"
            write_run(run, measured(beta, 1), dataset__name=name, beta=beta)
    said = set()
    monkeypatch.setattr(figures, "save_png", lambda figure, path, text: said.add(text))
    figures.draw_all(compare([tmp_path]), tmp_path / "out")
    assert {text.partition(": ")[2] for text in said} == {
        f"{name}, mlp_vae, beta = 1 / 2; 2 runs" for name in ("digits", "mnist")
    }
