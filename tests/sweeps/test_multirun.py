"""A sweep's settings are composed seldom, and are those that Hydra would compose each time."""

from pathlib import Path

import pytest

from vae_cli.config import compose
from vae_cli.config.compose import settings_of
from vae_cli.console import UserError
from vae_cli.sweeps import multirun
from vae_cli.sweeps.multirun import Composer
from vae_cli.sweeps.plan import plan_sweep

JOBS = (
    ("beta=4", "seed=1"),
    ("seed=1", "dataset=digits", "model.latent_dim=3", "beta=0.5"),
    ("dataset=digits", "model.latent_dim=4", "model.hidden_sizes=[32,16]"),
    ("dataset=digits", "dataset.suggested.latent_dim=5"),
    ("experiment=beta_pdf", "beta=2", "beta_schedule=warmup", "beta_schedule.epochs=3"),
    ("model=ae", "data_dir=1_1", "monitor=null", "+epochs=3"),
    ("beta=${seed}", "seed=2"),
    ("experiment=own", "seed=3"),
)


def test_jobs_have_the_settings_that_each_composition_would_give(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("# @package _global_\nbeta: 7\n")
    composed = []

    def counted(name, overrides, extra_dir):
        composed.append(overrides)
        return compose.composed(name, overrides, extra_dir)

    monkeypatch.setattr(multirun, "composed", counted)
    composer = Composer("config", str(tmp_path))
    for job in JOBS:
        assert composer(job) == settings_of("config", job, str(tmp_path)), job
    assert composer(JOBS[-1]).beta == 7
    assert len(composed) == 6  # the second and third job share one, and the first and the seventh


@pytest.mark.parametrize(
    "job",
    [("beta=x",), ("betta=1",), ("beta.x=1",), ("model.latent_dim=1,2",), ("model=nope",),
     ("model.latentdim=1",), ("~penalty",), ("beta=${nowhere}",)],
)  # fmt: skip
def test_a_mistake_is_answered_as_in_a_single_run(job):
    lines = []
    for composer in (Composer("config", None), lambda texts: settings_of("config", texts)):
        with pytest.raises(UserError) as caught:
            composer(job)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]


def test_hydra_keeps_a_record_of_a_job_as_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = plan_sweep(["dataset=digits", "model=ae,mlp_vae", "hydra.sweep.dir=all"])
    cfg = multirun.Planned(sweep).load_sweep_config(sweep.hydra, sweep.jobs[1].overrides)
    assert cfg.model.name == "mlp_vae"
    assert cfg.hydra.overrides.task == ["dataset=digits", "model=mlp_vae"]
    assert cfg.hydra.runtime.choices.model == "mlp_vae"
    assert Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir) == sweep.jobs[1].folder
