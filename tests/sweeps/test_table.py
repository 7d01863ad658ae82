"""Runs side by side: what varied, groups over seeds, the best, the Pareto front."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from vae_cli.console import UserError
from vae_cli.runs.saved import read_run
from vae_cli.sweeps.table import compare, load_sweep, monitored, pareto_front


def test_groups_are_over_seeds_and_the_best_comes_first(sweep_folder):
    sweep = compare([sweep_folder])
    assert sweep.swept == {"beta": "beta"}
    assert sweep.metric == "val/elbo"
    assert sweep.fixed == {
        "dataset": "digits",
        "model": "mlp_vae",
        "likelihood": "bernoulli",
        "epochs": "4",
    }
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
    with pytest.raises(UserError, match="metric=elbow"):
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
    assert sweep.groups["front"].tolist() == [True, False, True]
    assert not sweep.has_best
    assert any("cannot be compared" in note for note in sweep.notes())
    digits, mnist = sweep.parts
    assert (digits.title, mnist.title) == ("dataset=digits", "beta=1, dataset=mnist")
    assert digits.has_best
    assert mnist.has_best
    assert digits.swept == {"beta": "beta"}
    assert [run.folder.name for run in digits.saved] == ["c", "a"]
    assert mnist.runs["group"].tolist() == [0]
    assert mnist.means["test/kl"].tolist() == [1]


def test_a_file_with_other_content_is_other_data(tmp_path, write_run, measured):
    """A run that failed before it read its data belongs to those with equal settings."""
    for name, digest in {"a": "1", "b": "2", "c": "1", "d": None}.items():
        run = write_run(tmp_path / name, measured(1, 2), dataset__path=name)
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"data": {"digest": digest}}))
    parts = compare([tmp_path]).parts
    assert [{run.folder.name for run in part.saved} for part in parts] == [{"a", "c", "d"}, {"b"}]


def test_the_validation_decides_with_the_best_epoch_where_all_have_one(
    tmp_path, write_run, measured
):
    for name, best, test in (("a", -5.0, 9), ("b", -4.0, 10)):
        run = write_run(tmp_path / name, measured(0, test), beta=best)  # of the last epoch
        summary = json.loads((run / "summary.json").read_text()) | {"best_epoch": 2}
        (run / "summary.json").write_text(json.dumps(summary))
        lines = [json.dumps({"epoch": i, "val/elbo": i * best / 2}) for i in (1, 2, 3)]
        (run / "metrics.jsonl").write_text("\n".join(lines))
    sweep = compare([tmp_path])
    assert sweep.metric == "val/elbo"
    assert sweep.means["val/elbo"].tolist() == [-4, -5]
    assert sweep.runs["folder"].tolist() == ["b", "a"]
    assert any("in order of val/elbo" in note for note in sweep.notes())
    without = {key: number for key, number in measured(0, 8).items() if "val" not in key}
    write_run(tmp_path / "c", without, beta=7.0)
    sweep = compare([tmp_path])
    assert sweep.metric == "test/elbo"
    assert sweep.runs["folder"].tolist() == ["c", "a", "b"]


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
    assert sweep.metric == "val/loss"
    assert not sweep.has_best
    assert "losses with another objective.weight cannot be compared" in sweep.notes()
    assert not any("the best first" in note for note in sweep.notes())
    assert compare([tmp_path], "reconstruction").has_best


def test_a_run_that_is_measured_once_more_stays_in_its_group(tmp_path, write_run, measured):
    for seed, count in enumerate((0, 10)):
        own = {"overrides": [f"nll_samples={count}"], "nll_samples": count, "seed": seed}
        write_run(tmp_path / str(seed), measured(1, 2), **own)
    assert len(compare([tmp_path]).groups) == 1
    write_run(tmp_path / "2", measured(1, 2), **own | {"nll_samples": 20})
    assert compare([tmp_path]).groups["nll_samples"].nunique() == 3  # another bound each


def test_several_folders_are_one_table(tmp_path, write_run, measured):
    for name in ("a", "b"):
        write_run(tmp_path / name / "run", measured(1, 2), beta=float(ord(name)))
    table = load_sweep(tmp_path / "a", tmp_path / "b", tmp_path / "a")
    assert table["folder"].tolist() == [str(tmp_path / name / "run") for name in "ab"]
    write_run(tmp_path / "c", measured(1, 2), seed=0)
    write_run(tmp_path / "again", measured(1, 2), seed=0)
    twice = compare([tmp_path / "c", tmp_path / "again"])
    assert "equal runs with one seed count several times" in twice.notes()
    write_run(tmp_path / "d", measured(1, 2), seed=1)
    two = compare([tmp_path / "c", tmp_path / "d"])
    assert (two.swept, any("equal runs" in note for note in two.notes())) == ({}, False)
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
