"""Runs side by side: what varied, groups over seeds, the best, the Pareto front."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vae_cli.console import UserError
from vae_cli.runs.saved import SavedRun, read_run
from vae_cli.sweeps.plan import given_keys
from vae_cli.sweeps.table import cells, compare, load_sweep, monitored, pareto_front, text, varied

BASE = {"beta": 1.0, "seed": 0, "device": "auto", "model.name": "ae", "model.size": "[8]",
        "dataset.name": "a", "dataset.suggested.size": 1, "optimizer.lr": 0.1}  # fmt: skip


def runs(*changes):
    return [BASE | change for change in changes]


def test_what_differs_comes_in_the_order_of_the_command_line():
    jobs = runs({"beta": 1, "seed": 1}, {"beta": 2, "seed": 2}, {"optimizer.lr": 0.2})
    assert varied(jobs) == ["beta", "seed", "optimizer.lr"]
    given = given_keys(["optimizer.lr=0.1,0.2", "seed=0,1,2", "+beta=1,2"])
    assert varied(jobs, given) == ["optimizer.lr", "seed", "beta"]
    assert varied([{"x": 1}, {}]) == []  # a setting that a run lacks says nothing
    assert varied(runs({"beta": 1}, {"beta": 1.0})) == []


def test_what_follows_from_a_choice_or_says_how_is_left_out_unless_it_was_given():
    jobs = runs({}, {"dataset.name": "b", "model.size": "[9]", "dataset.suggested.size": 2})
    assert varied(jobs) == ["dataset.name"]
    given = given_keys(["dataset=a,b", "model.size=[8],[9]"])
    assert varied(jobs, given) == ["dataset.name", "model.size"]
    # one choice, two sizes: the choice does not decide the size
    assert varied([*jobs, BASE | {"model.size": "[7]"}]) == ["model.size", "dataset.name"]
    jobs = runs({"experiment": "x"}, {"experiment": "y", "beta": 4, "model.name": "b"})
    assert varied(jobs) == ["experiment"]
    assert varied(runs({}, {"device": "cuda"})) == []
    assert varied(runs({}, {"device": "cuda"}), ["device"]) == ["device"]


def test_values_are_shown_as_they_are_typed():
    settings = {"a": {"x": True, "y": None, "z": [4, 2]}, "b": 0.5, "c": 3}
    flat = {"a.x": "true", "a.y": "null", "a.z": "[4,2]", "b": 0.5, "c": 3}
    run = SavedRun(Path(), settings, {}, 0)
    assert cells(run, ["experiment=vae_2d", "b=3"]) == flat | {"experiment": "vae_2d"}
    shown = [text(value) for value in (0.5, 1.0, 1e-5, float("nan"), "[4]")]
    assert shown == ["0.5", "1", "1e-05", "", "[4]"]


def test_groups_are_over_seeds_and_the_best_comes_first(sweep_folder):
    sweep = compare([sweep_folder])
    assert sweep.swept == {"beta": "beta"}
    assert sweep.metric == "test/elbo"
    assert sweep.has_best
    assert sweep.groups["beta"].tolist() == [1, 0.5, 4]
    assert sweep.groups["runs"].tolist() == [2, 2, 2]
    assert sweep.groups["completed"].tolist() == [2, 2, 0]
    assert sweep.runs["seed"].tolist() == [0, 1] * 3
    assert sweep.runs["group"].tolist() == [0, 0, 1, 1, 2, 2]
    assert [run.folder.name for run in sweep.saved] == sweep.runs["folder"].tolist()
    kl = np.array([3.0, 3.5])
    assert sweep.means["test/kl"][0] == pytest.approx(kl.mean(), rel=1e-12)
    assert sweep.stds["test/kl"][0] == pytest.approx(kl.std(ddof=1), rel=1e-12)
    assert np.isnan(sweep.means["test/kl"][2])


def test_a_run_has_its_final_metrics_or_those_of_its_last_epoch(sweep_folder):
    (sweep_folder / "beta=0.5,seed=1" / "summary.json").unlink()
    table = load_sweep(sweep_folder).set_index("folder")
    done, failed = table.loc["beta=1,seed=0"], table.loc["beta=4,seed=0"]
    assert (done["beta"], done["test/elbo"], done["status"]) == (1, -24, "completed")
    assert (failed["status"], failed["error"]) == ("failed", "RunFailed: loss is not finite")
    assert table.loc["beta=4,seed=1", "val/elbo"] == -29
    assert np.isnan(table.loc["beta=4,seed=1", "test/elbo"])
    assert table.loc["beta=0.5,seed=1", "status"] == "running"


def test_the_monitor_of_the_runs_or_another_metric_decides(tmp_path, write_run, measured):
    write_run(tmp_path / "a", measured(1, 9), monitor="val/kl", beta=1.0)
    write_run(tmp_path / "b", measured(2, 1), monitor="val/kl", beta=2.0)
    assert compare([tmp_path]).metric == "test/kl"
    assert compare([tmp_path]).groups["beta"].tolist() == [1, 2]
    sweep = compare([tmp_path], "reconstruction")
    assert sweep.metric == "test/reconstruction"
    assert sweep.groups["beta"].tolist() == [2, 1]
    assert compare([tmp_path], "val/elbo").metric == "val/elbo"
    settings = {"objective": {"name": "of a plug-in"}, "monitor": None}
    run = read_run(write_run(tmp_path / "c", measured(1, 9), **settings))
    assert monitored(run) == "val/elbo"
    assert monitored(replace(run, summary={"monitor": "val/bound"})) == "val/bound"
    with pytest.raises(UserError, match="--metric elbow"):
        compare([tmp_path], "elbow")


def test_the_front_holds_what_nothing_beats(sweep_folder, write_run, measured):
    points = [(1, 5), (2, 3), (3, 3), (4, 1), (5, 2), (1, 6), (2, 3), (0, float("nan"))]
    front = [True, True, False, True, False, False, True, False]  # a point beats no equal one
    assert pareto_front(points) == front
    write_run(sweep_folder / "worse", measured(8, 25), beta=9.0)
    groups = compare([sweep_folder]).groups
    on_it = dict(zip(groups["beta"], groups["front"], strict=True))
    assert on_it == {1: True, 0.5: True, 4: False, 9: False}


def test_different_datasets_are_not_ranked_together(tmp_path, write_run, measured):
    write_run(tmp_path / "a", measured(3, 9))
    write_run(tmp_path / "b", measured(1, 2), dataset__name="mnist")
    write_run(tmp_path / "c", measured(1, 4), beta=2.0)
    sweep = compare([tmp_path])
    assert list(sweep.swept) == ["beta", "dataset.name"]
    assert sweep.groups["dataset.name"].tolist() == ["digits", "digits", "mnist"]
    assert sweep.groups["beta"].tolist() == [2, 1, 1]
    assert not sweep.has_best
    assert not sweep.groups["front"].any()
    assert any("cannot be compared" in note for note in sweep.notes())


def test_runs_with_different_monitors_are_compared_by_the_likelihood_they_all_have(
    tmp_path, write_run, measured
):
    how = {"monitor": None, "nll_samples": 100}
    iwae, elbo = how | {"objective__name": "iwae"}, how | {"objective__name": "elbo"}
    write_run(tmp_path / "a", measured(1, 9), **iwae)
    write_run(tmp_path / "b", measured(1, 2), **elbo)
    sweep = compare([tmp_path])
    assert not sweep.has_best
    assert any("nll_samples=100" in note for note in sweep.notes())
    write_run(tmp_path / "a", measured(1, 9) | {"test/nll": 8.5}, **iwae)
    assert compare([tmp_path]).metric != "test/nll"  # one run lacks it
    write_run(tmp_path / "b", measured(1, 2) | {"test/nll": 9.0}, **elbo)
    sweep = compare([tmp_path])
    assert sweep.metric == "test/nll"
    assert sweep.has_best
    assert sweep.groups["objective.name"].tolist() == ["iwae", "elbo"]
    assert any("by test/nll, as here" in note for note in sweep.notes())
    write_run(tmp_path / "b", measured(1, 2) | {"test/nll": 9.0}, **elbo | {"nll_samples": 10})
    assert not compare([tmp_path]).has_best  # bounds of another number of codes


def test_losses_with_other_weights_are_not_ranked(tmp_path, write_run, measured):
    for weight in (1.0, 100.0):
        numbers = measured(1, 9) | {"test/loss": weight}
        own = {"monitor": "val/loss", "objective__weight": weight}
        write_run(tmp_path / str(weight), numbers | {"val/loss": weight}, **own)
    sweep = compare([tmp_path])
    assert sweep.metric == "test/loss"
    assert not sweep.has_best
    assert "losses with another objective.weight cannot be compared" in sweep.notes()
    assert compare([tmp_path], "reconstruction").has_best


def test_several_folders_are_one_table(tmp_path, write_run, measured):
    for name in ("a", "b"):
        write_run(tmp_path / name / "run", measured(1, 2), beta=float(ord(name)))
    table = load_sweep(tmp_path / "a", tmp_path / "b", tmp_path / "a")
    assert table["folder"].tolist() == [str(tmp_path / name / "run") for name in "ab"]
    write_run(tmp_path / "c", measured(1, 2), seed=0)
    write_run(tmp_path / "d", measured(1, 2), seed=1)
    assert compare([tmp_path / "c", tmp_path / "d"]).swept == {}
    (tmp_path / "d" / "config.yaml").write_text(
        (tmp_path / "d" / "config.yaml").read_text().replace("epochs: 4", "epochs: 8")
    )
    assert load_sweep(tmp_path / "c", tmp_path / "d")["epochs"].tolist() == [4, 8]


DAMAGE = [
    ("config.yaml", b"beta: [1", "config.yaml cannot be read"),
    ("config.yaml", b"name: other\n", "not a configuration of vae-train"),
    ("config.yaml", b"!!python/object/apply:os.system ['touch pwned']", "cannot be read"),
    (".hydra/overrides.yaml", b"\xff", "overrides.yaml cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "reason"), DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_run_is_named_and_the_others_are_read(
    tmp_path, monkeypatch, name, content, reason, write_run
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad") / name).write_bytes(content)
    sweep = compare([tmp_path])
    assert sweep.runs["folder"].tolist() == ["good"]
    (line,) = sweep.skipped
    assert "bad" in line
    assert reason in line
    assert not (tmp_path / "pwned").exists()


def test_what_is_no_number_or_not_there_is_left_out_or_said(tmp_path, write_run, measured):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_sweep(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run in it or below"):
        load_sweep(tmp_path)
    run = write_run(tmp_path / "run", measured(float("nan"), 2))
    assert json.loads((run / "summary.json").read_text())["metrics"]["test/kl"] != 0
    table = load_sweep(tmp_path)
    assert not {"test/kl", "test/elbo"} & set(table.columns)
    assert table["test/reconstruction"].tolist() == [2]


def test_a_table_needs_no_torch(sweep_folder):
    code = (
        "import sys, vae_cli; from vae_cli.sweeps import report; vae_cli.load_sweep(sys.argv[1]);"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(sweep_folder)]).returncode == 0
