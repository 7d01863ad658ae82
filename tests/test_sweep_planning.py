import json
from pathlib import Path

import pytest

from vae_cli import planning, sweep_planning
from vae_cli.cli import _parser
from vae_cli.errors import UserError

PRESETS = sorted(path.stem for path in (planning.config_dir() / "sweep").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(*arguments: str) -> sweep_planning.Sweep:
    planning.register()
    return sweep_planning.plan(_parser().parse_args(["-m", *arguments]))


def test_a_job_has_its_settings_and_a_folder_named_by_what_is_swept():
    sweep = plan("beta=1,4", "epochs=3", "seed=0,1", "hydra.sweep.dir=all")
    assert [job.folder.name for job in sweep.jobs] == [
        "beta=1,seed=0",
        "beta=1,seed=1",
        "beta=4,seed=0",
        "beta=4,seed=1",
    ]
    assert {job.folder.parent for job in sweep.jobs} == {Path("all").absolute()}
    assert [(job.config.beta, job.config.seed) for job in sweep.jobs][2] == (4, 0)
    assert {job.config.epochs for job in sweep.jobs} == {3}


def test_a_job_folder_of_ones_own():
    sweep = plan("beta=1,4", "hydra.sweep.subdir='${hydra.job.num}/b_${beta}'")
    assert [str(job.folder.relative_to(sweep.folder)) for job in sweep.jobs] == [
        "0/b_1.0",
        "1/b_4.0",
    ]
    with pytest.raises(UserError, match=r"job 0 \(.*\) and job 1 \(.*\) would share the folder x"):
        plan("beta=1,4", "hydra.sweep.subdir=x")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes_and_the_command_line_wins(preset):
    sweep = plan(f"sweep={preset}", "dataset=digits")
    assert sweep.search or len(sweep.jobs) >= 5
    if preset == "beta":
        assert len(sweep.jobs) == 15
        betas = {job.config.beta for job in plan("sweep=beta", "beta=3,5").jobs}
        assert betas == {3, 5}
        assert len(plan("sweep=beta", "seed=7").jobs) == 5


def test_presets_can_be_swept_themselves():
    sweep = plan("experiment=vae_2d,ae_2d", "sweep=seeds")
    assert len(sweep.jobs) == 10
    assert {job.config.model.name for job in sweep.jobs} == {"mlp_vae", "ae"}


def test_the_presets_are_those_that_the_documentation_names():
    assert {"beta", "seeds", "latent_dim", "search"} <= set(PRESETS)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["seed=0,1,0"], "jobs 0 (seed=0) and 2 (seed=0) have the same settings"),
        (["beta=1,1.0"], "have the same settings"),
        # a preset's value and the default: what is swept changes nothing
        (["optimizer=adam,adam"], "have the same settings"),
        (["beta=interval(0,1)"], "beta=interval(0,1): only a search can draw from an interval"),
        (["beta=1,2", "hydra/sweeper=nope"], "no such hydra/sweeper"),
        (["model=glob(*)"], ""),
        (["sweep=betta"], "sweep=betta: no such sweep (did you mean beta?)"),
        (["resume=nowhere"], "no such folder"),
    ],
)
def test_what_a_sweep_refuses(arguments, line, tmp_path):
    with pytest.raises(UserError) as caught:
        plan(*arguments)
    assert line in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_found_by_its_settings_not_its_folder_or_number(make_config, write_run):
    there = write_run(Path("all") / "somewhere" / "else", make_config("beta=4", "figures=none"))
    sweep = plan("beta=1,4", "hydra.sweep.dir=all")
    assert [job.folder for job in sweep.jobs] == [Path("all/beta=1").absolute(), there.absolute()]
    assert plan("beta=4,1", "hydra.sweep.dir=all").jobs[0].folder == there.absolute()


def test_jobs_that_compute_the_same_keep_their_own_runs(make_config, write_run):
    folders = {
        text: write_run(Path("all") / text, make_config(text)).absolute()
        for text in ("compile=true", "compile=false")
    }
    sweep = plan("compile=false,true", "hydra.sweep.dir=all")
    assert [job.folder for job in sweep.jobs] == [folders["compile=false"], folders["compile=true"]]


def test_more_epochs_go_on_and_other_settings_are_not_overwritten(make_config, write_run):
    write_run(Path("all") / "beta=1", make_config("epochs=3"), "completed")
    assert plan("beta=1,2", "epochs=4", "hydra.sweep.dir=all").jobs[0].folder.name == "beta=1"
    for other in ("epochs=2", "model.latent_dim=3"):
        with pytest.raises(UserError, match=r"job 0 \(.*holds a run with other settings"):
            plan("beta=1,2", other, "hydra.sweep.dir=all")


def test_resume_auto_takes_the_newest_sweep_of_the_same_jobs():
    sweep = plan("beta=1,2", "resume=auto")
    assert "no sweep of these jobs" in sweep.note
    for name, jobs in (("a", sweep), ("b", plan("beta=1,3"))):
        folder = Path("outputs/sweeps/day") / name
        folder.mkdir(parents=True)
        (folder / "jobs.json").write_text(json.dumps({"identity": jobs.identity}))
    again = plan("beta=2,1", "figures=none", "resume=auto")
    assert again.folder == Path("outputs/sweeps/day/a").absolute()
    assert "going on with the sweep in" in again.note
    assert all(job.config.resume is None for job in again.jobs)
    assert plan("beta=1,2").folder != again.folder
