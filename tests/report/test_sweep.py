"""Groups over seeds, the best, the Pareto front."""

import json

import numpy as np
import pytest

from vae_cli.errors import UserError
from vae_cli.report.data import csv_text, json_text
from vae_cli.report.page import html_page
from vae_cli.report.sweep import pareto_front, read_sweep, statistic
from vae_cli.report.table import markdown, terminal


def test_groups_are_over_seeds_the_best_first(sweep_folder):
    sweep = read_sweep([sweep_folder])
    assert sweep.swept == ["beta"]
    assert sweep.metric == "test/elbo"
    assert [group.settings for group in sweep.groups] == [{"beta": 1.0}, {"beta": 0.5}, {"beta": 4}]
    assert [len(group.runs) for group in sweep.groups] == [2, 2, 2]
    assert [len(group.completed) for group in sweep.groups] == [2, 2, 0]
    assert sweep.best is sweep.groups[0]
    assert [run.status for run in sweep.unfinished] == ["failed", "interrupted"]
    assert [r.settings["seed"] for r in sweep.runs] == [0, 1, 0, 1, 0, 1]


def test_the_numbers_are_numpys(sweep_folder):
    stats = read_sweep([sweep_folder]).groups[0].stats
    kl = np.array([3.0, 3.5])
    assert stats["test/kl"].mean == pytest.approx(kl.mean(), rel=1e-12)
    assert stats["test/kl"].std == pytest.approx(kl.std(ddof=1), rel=1e-12)
    assert stats["test/kl"].n == 2
    values = np.random.default_rng(0).normal(1e6, 1e-3, 50)
    found = statistic(values.tolist())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert statistic([3.0]).std is None


def test_another_metric_can_decide(sweep_folder):
    sweep = read_sweep([sweep_folder], "reconstruction")
    assert sweep.metric == "test/reconstruction"
    assert sweep.groups[0].settings == {"beta": 0.5}
    assert read_sweep([sweep_folder], "val/elbo").metric == "val/elbo"
    with pytest.raises(UserError, match="--metric elbow: no run has it"):
        read_sweep([sweep_folder], "elbow")


def test_the_front_holds_what_nothing_beats():
    points = [(1, 5), (2, 3), (3, 3), (4, 1), (5, 2), (1, 6), (2, 3)]
    assert pareto_front(points) == [0, 1, 3, 6]  # a point does not beat its equal
    assert pareto_front([]) == []


def test_the_front_is_over_means(sweep_folder, write_run, measured):
    write_run(sweep_folder / "worse", measured(8, 25), beta=9.0)
    fronts = {g.settings["beta"]: g.on_front for g in read_sweep([sweep_folder]).groups}
    assert fronts == {1.0: True, 0.5: True, 4.0: False, 9.0: False}


def test_nats_of_different_data_are_not_compared(tmp_path, write_run, measured):
    write_run(tmp_path / "a", measured(1, 2))
    write_run(tmp_path / "b", measured(3, 4), dataset__name="mnist")
    sweep = read_sweep([tmp_path])
    assert sweep.swept == ["dataset.name"]
    assert not any(group.on_front for group in sweep.groups)
    assert any("cannot be compared" in note for note in sweep.notes)


def test_runs_alike_are_one_group(tmp_path, write_run, measured):
    for seed in (0, 1, 1):
        write_run(tmp_path / f"{len(list(tmp_path.iterdir()))}", measured(1, seed), seed=seed)
    sweep = read_sweep([tmp_path])
    assert sweep.swept == []
    assert sweep.groups[0].stats["test/kl"].n == 3
    assert any("the same seed" in note for note in sweep.notes)


def test_nothing_is_completed(tmp_path, write_run):
    write_run(tmp_path / "a", None, "running")
    sweep = read_sweep([tmp_path])
    assert sweep.best is None
    assert sweep.metric == "test/elbo"


def test_a_monitor_decides(tmp_path, write_run, measured):
    write_run(tmp_path / "a", measured(1, 9), monitor="val/kl", beta=1.0)
    write_run(tmp_path / "b", measured(2, 1), monitor="val/kl", beta=2.0)
    sweep = read_sweep([tmp_path])
    assert sweep.metric == "test/kl"
    assert sweep.best.settings == {"beta": 1.0}


def test_settings_of_any_type_do_no_harm(tmp_path, write_run, measured):
    """A folder that somebody else made: lists, mappings and dates where numbers belong."""
    for i, odd in enumerate(([1], {"a": 1}, "x", 10**400, 1.5, None)):
        run = write_run(tmp_path / f"{i}", measured(i, 1), beta=odd, seed=odd, epochs=odd)
        summary = json.loads((run / "summary.json").read_text())
        summary |= {"git_commit": {"a": [odd]}, "versions": [odd], "seconds": odd, "epochs": odd}
        (run / "summary.json").write_text(json.dumps(summary))
    sweep = read_sweep([tmp_path])
    assert len(sweep.runs) == 6
    for text in (terminal(sweep, 80), markdown(sweep), csv_text(sweep), html_page(sweep, [])):
        assert len(text) > 100
    json.loads(json_text(sweep))
