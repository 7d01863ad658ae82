import subprocess
import sys

import pytest

from vae_cli import planning, sweep_planning
from vae_cli.cli import _parser
from vae_cli.errors import UserError

LR = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def plan(*arguments: str) -> sweep_planning.Sweep:
    planning.register()
    line = ["-m", "hydra/sweeper=optuna", "dataset=digits", *arguments]
    return sweep_planning.plan(_parser().parse_args(line))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "a search needs a range"),
        (["optimizer.lr=interval(0,1)"], "optimizer.lr=0: must be > 0"),
        (["model.latent_dim=range(0,5)"], "model.latent_dim=0: must be >= 1"),
        ([LR, "optimizer=adam,adamm"], "optimizer=adamm: no such optimizer (did you mean adam?)"),
        ([LR, "epochs=0"], "epochs=0: must be >= 1"),
        (
            ["beta=interval(0,1)", "objective=iwae", "model=mlp_vae,ae"],
            "objective=iwae needs a VAE",
        ),
        ([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: must be >= 1"),
        ([LR, "hydra.sweeper.n_trials=a"], "hydra.sweeper.n_trials: must be a whole number"),
        ([LR, "hydra.sweeper.n_trial=3"], "n_trial"),
        (
            [LR, "+hydra.sweeper.n_trial=3"],
            "hydra.sweeper.n_trial: no such setting (did you",
        ),
        ([LR, "hydra.sweeper.sampler=cmaes"], "hydra.sweeper.sampler: must be one of"),
        ([LR, "hydra.sweeper.direction=[up]"], "hydra.sweeper.direction"),
        ([LR, "hydra.sweeper.metric=val/elbo"], "hydra.sweeper.metric: must be a list"),
        ([LR, "hydra.sweeper.metric=[val/fid]"], "each must be one of val/elbo"),
        ([LR, "hydra.sweeper.metric=[val/elbo,val/kl]"], "give one for each of"),
        (
            [
                LR,
                "hydra.sweeper.metric=[val/elbo,parameters]",
                "hydra.sweeper.direction=[maximize,minimize]",
            ],
            "give hydra.sweeper.pruner=none",
        ),
        ([LR, "hydra.sweeper.metric=[test/elbo]"], "is not known before the end"),
        ([LR, "dataset.val_size=0"], "metric=val/elbo needs validation data"),
        ([LR, "dry_run=true"], "dry_run=true: not for a search"),
    ],
)
def test_a_mistake_is_found_before_the_first_trial(arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        plan(*arguments)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_known_by_its_space_not_by_its_length():
    search = plan(LR, "beta=4")
    assert search.search.fixed == ["dataset=digits", "beta=4"]
    same = plan("beta=4", LR, "hydra.sweeper.n_trials=7", "figures=none")
    assert same.identity == search.identity
    for other in ("beta=5", "model.latent_dim=2,3", "hydra.sweeper.direction=[minimize]"):
        assert plan(LR, "beta=4", other).identity != search.identity


def test_planning_a_search_needs_neither_optuna_nor_torch(tmp_path):
    code = (
        "import sys; from vae_cli import planning, sweep_planning, cli; planning.register();"
        "sweep_planning.plan(cli._parser().parse_args(['-m', *sys.argv[1:]]));"
        "sys.exit(sorted({'torch', 'optuna'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, "hydra/sweeper=optuna", LR, "dataset=digits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("vae_cli.search.planning.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Optuna: pip install 'vae-cli\[optuna\]'"):
        plan(LR)
