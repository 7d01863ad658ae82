"""Ranges and settings of a search; searches whose trials write what a run would have left."""

import json
from types import SimpleNamespace

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from vae_cli.config.compose import parse_overrides
from vae_cli.console import UserError
from vae_cli.sweeps import search
from vae_cli.sweeps.plan import plan_sweep

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # SQLAlchemy's connections
LR = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
SPACE = (LR, "model.latent_dim=int(interval(2,8))", "hydra.sweeper.pruner=none")
CHOICES = CategoricalDistribution


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=interval(1e-4,1e-2)", FloatDistribution(1e-4, 1e-2)),
        ("lr=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("z=int(interval(2,32))", IntDistribution(2, 32)),
        ("z=int(tag(log,interval(2,32)))", IntDistribution(2, 32, log=True)),
        ("z=range(2,33,2)", IntDistribution(2, 32, step=2)),
        ("z=range(1,9)", IntDistribution(1, 8)),  # the end excluded, as in a grid
        ("b=range(0.5,2.1,0.5)", FloatDistribution(0.5, 2.0, step=0.5)),
        ("h=choice([4,4],[8])", CHOICES(("[4,4]", "[8]"))),
        ("p='a b',c", CHOICES(("'a b'", "c"))),
    ],
)
def test_ranges_of_the_override_grammar(text, expected):
    assert search.distribution(*parse_overrides([text])) == expected


@pytest.mark.parametrize(
    "text",
    ["lr=interval(2,1)", "lr=tag(log,interval(0,1))", "lr=tag(logg,interval(1,2))", "z=range(5,5)"],
)
def test_ranges_that_cannot_be(text):
    with pytest.raises(UserError) as caught:
        search.distribution(*parse_overrides([text]))
    assert str(caught.value).startswith(f"{text}: ")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([], "a search needs a range"),
        (["optimizer.lr=interval(0,1)"], "optimizer.lr=0"),
        (["model.latent_dim=range(0,5)"], "model.latent_dim=0"),
        ([LR, "optimizer=adam,adamm"], "optimizer=adamm: no such optimizer (did you mean adam?)"),
        ([LR, "objective=iwae", "model=mlp_vae,ae"], "objective=iwae needs a VAE"),
        ([LR, "hydra.sweeper.n_trial=3"], "hydra.sweeper.n_trial: no such setting (did you"),
        ([LR, "hydra.sweeper.n_jobs=2"], "hydra.sweeper.n_jobs=2"),
        ([LR, "hydra.sweeper.metric=val/elbo"], "hydra.sweeper.metric=val/elbo: must be a list"),
        ([LR, "hydra.sweeper.metric=[val/elbo,val/kl]"], "hydra.sweeper.direction"),
        ([LR, "hydra.sweeper.metric=[test/elbo]"], "hydra.sweeper.pruner=none"),
        ([LR, "dataset.val_size=0"], "metric=[val/elbo] needs validation data"),
        ([LR, "dry_run=true"], "dry_run=true"),
        ([LR, "seed=0,1"], "seed: a search would find a lucky one"),
    ],
)
def test_a_mistake_is_found_before_the_first_trial(overrides, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        plan_sweep(["hydra/sweeper=optuna", "dataset=digits", *overrides])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def plan(tmp_path, *overrides, trials=4, folder="all"):
    start = ["hydra/sweeper=optuna", "dataset=digits", "hydra.sweeper.startup_trials=2"]
    start += [f"hydra.sweep.dir={tmp_path / folder}", f"hydra.sweeper.n_trials={trials}"]
    sweep = plan_sweep([*start, *overrides])
    sweep.folder.mkdir(exist_ok=True)
    return sweep


def test_a_search_is_known_by_its_space_not_by_its_length(tmp_path):
    known = plan(tmp_path, LR, "beta=4")
    assert known.swept == ["optimizer.lr"]
    assert plan(tmp_path, "beta=4", LR, "figures=none", trials=7).identity == known.identity
    for other in ("beta=5", "model.latent_dim=2,3", "hydra.sweeper.direction=[minimize]"):
        assert plan(tmp_path, LR, "beta=4", other).identity != known.identity


def run(sweep, train):
    return search.run_search(sweep.search, sweep.folder, train)


def trials_of(sweep):
    storage = f"sqlite:///{sweep.folder}/study.db"
    return optuna.load_study(study_name="vae-train", storage=storage).trials


def leave(folder, elbo, status="completed", **summary):
    """Leave what a run leaves."""
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "val/elbo": elbo}) + "\n")
    summary |= {"status": status, "best_epoch": 1, "metrics": {"test/elbo": elbo}}
    (folder / "summary.json").write_text(json.dumps(summary))


class FakeTraining:
    """A training whose ELBO is best at a learning rate of 1e-3; it can be told when to stop."""

    def __init__(self, stop_at=None):
        self.trained, self.stop_at = [], stop_at

    def __call__(self, config, overrides, folder, observers):
        self.trained.append(folder.name)
        leave(folder, -abs(config.optimizer.lr - 1e-3))
        return 130 if len(self.trained) - 1 == self.stop_at else 0


def test_a_stopped_search_goes_on_as_the_uninterrupted_one(tmp_path, capsys):
    whole, parts = plan(tmp_path, *SPACE, folder="whole"), plan(tmp_path, *SPACE)
    assert run(whole, FakeTraining()) == 0
    assert run(parts, FakeTraining(stop_at=1)) == 130
    going_on = FakeTraining()
    assert run(parts, going_on) == 0
    assert going_on.trained == ["trial-001", "trial-002", "trial-003"]
    assert "1 of 4 trials are done" in capsys.readouterr().err
    for one, other in zip(trials_of(whole), trials_of(parts), strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
    # more trials are added; another search is refused
    assert run(plan(tmp_path, *SPACE, trials=5), FakeTraining()) == 0
    assert len(trials_of(parts)) == 5
    with pytest.raises(UserError, match="another search"):
        run(plan(tmp_path, *SPACE, "beta=3"), FakeTraining())


def test_the_best_trial_is_printed_and_kept(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    line = ["hydra/sweeper=optuna", "dataset=digits", *SPACE, "hydra.sweeper.n_trials=4"]
    sweep = plan_sweep([*line, f"hydra.sweep.dir={tmp_path}/all"], extra_dir=f"{tmp_path}/own")
    sweep.folder.mkdir()
    run(sweep, FakeTraining())
    content = yaml.safe_load((sweep.folder / "best.yaml").read_text())
    assert content["trials"] == {"complete": 4}
    (best,) = content["best"]
    wanted = max(trials_of(sweep), key=lambda trial: trial.value)
    assert best["values"] == {"val/elbo": wanted.value}
    assert best["folder"] == f"trial-{wanted.number:03d}"
    assert f"optimizer.lr={wanted.params['optimizer.lr']!r}" in best["command"]
    start = f"vae-train --config-dir={tmp_path}/own dataset=digits optimizer.lr="
    assert best["command"].startswith(start)
    printed = capsys.readouterr().out
    assert best["command"] in printed
    assert f"best: trial-{wanted.number:03d}, val/elbo" in printed
    assert "trial-001 (2/4) optimizer.lr=" in printed


def test_failed_trials_and_combinations_that_cannot_work_do_not_end_a_search(tmp_path):
    def train(config, overrides, folder, observers):
        number = int(folder.name[-1])
        leave(folder, float("nan") if number == 2 else -1.0, error="not finite")
        return int(number == 1)

    sweep = plan(tmp_path, *SPACE, trials=3)
    assert run(sweep, train) == 1
    assert [trial.state.name for trial in trials_of(sweep)] == ["COMPLETE", "FAIL", "FAIL"]
    assert trials_of(sweep)[1].user_attrs["error"] == "not finite"
    choices = ("model=mlp_vae,ae", "objective=elbo,iwae", "hydra.sweeper.sampler=random", SPACE[-1])
    sweep, fake = plan(tmp_path, *choices, trials=12, folder="other"), FakeTraining()
    assert run(sweep, fake) == 1
    failed = [trial for trial in trials_of(sweep) if trial.state.name == "FAIL"]
    assert {tuple(trial.params.values()) for trial in failed} == {("ae", "iwae")}
    assert len(fake.trained) == 3  # settings that were tried are not trained again


def test_a_trial_that_falls_behind_is_given_up(tmp_path):
    pruner = ("hydra.sweeper.pruner_startup_trials=1", "hydra.sweeper.pruner_warmup_epochs=0")

    def train(config, overrides, folder, observers):
        number, training = int(folder.name[-1]), SimpleNamespace(stopped=None)
        for epoch in range(1, 6):
            if not training.stopped:
                observers[0].epoch(training, {"epoch": epoch, "val/elbo": -float(number)})
        leave(folder, -float(number), "pruned" if training.stopped else "completed")
        return 0

    sweep = plan(tmp_path, *SPACE[:2], *pruner, trials=3)
    assert run(sweep, train) == 0
    assert [trial.state.name for trial in trials_of(sweep)] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert len(trials_of(sweep)[1].intermediate_values) == 1


def test_a_metric_of_ones_own_decides_and_one_that_no_run_writes_is_named(tmp_path):
    epochs = []

    def train(config, overrides, folder, observers):
        training = SimpleNamespace(stopped=None)
        for epoch in range(1, 4):
            if not training.stopped:
                epochs.append({"epoch": epoch, "val/mine": config.optimizer.lr})
                observers[0].epoch(training, epochs[-1])
        leave(folder, 0.0, "pruned" if training.stopped else "completed")
        (folder / "metrics.jsonl").write_text(json.dumps({"best_epoch": 1} | epochs[-1]) + "\n")
        return 0

    mine = plan(tmp_path, LR, "hydra.sweeper.metric=[val/mine]", trials=2)
    assert run(mine, train) == 0
    assert [trial.value for trial in trials_of(mine)] == [
        trial.params["optimizer.lr"] for trial in trials_of(mine)
    ]
    typo = plan(tmp_path, LR, "hydra.sweeper.metric=[val/mina]", folder="typo")
    epochs.clear()
    with pytest.raises(UserError, match=r"writes no val/mina \(did you mean val/mine\?\)"):
        run(typo, train)
    assert len(epochs) == 1


def test_several_metrics_give_a_pareto_front(tmp_path):
    def train(config, overrides, folder, observers):
        number = int(folder.name[-1])
        leave(folder, float(number), parameters=(5, 9, 7)[number])  # 2 is better than 1 in both
        return 0

    metrics = ("hydra.sweeper.metric=[test/elbo,parameters]", "hydra.sweeper.storage=journal")
    direction = "hydra.sweeper.direction=[maximize,minimize]"
    sweep = plan(tmp_path, *SPACE, *metrics, direction, trials=3)
    assert run(sweep, train) == 0
    assert (sweep.folder / "study.log").exists()
    best = yaml.safe_load((sweep.folder / "best.yaml").read_text())["best"]
    assert [entry["trial"] for entry in best] == [0, 2]
