"""A command line of a sweep becomes jobs, each checked and with its folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vae_cli.config.check import given_keys, short_names
from vae_cli.config.compose import composed, config_dir, settings_of
from vae_cli.console import UserError
from vae_cli.sweeps.plan import folder_name, output_folder, plan_sweep

PRESETS = sorted(path.stem for path in (config_dir() / "sweep").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(*overrides):
    return plan_sweep(overrides)


def test_a_job_has_its_settings_and_a_folder_named_by_what_is_swept():
    sweep = plan("beta=1,4", "epochs=3", "seed=0,1", "hydra.sweep.dir=all")
    names = ["beta=1,seed=0", "beta=1,seed=1", "beta=4,seed=0", "beta=4,seed=1"]
    assert [job.folder for job in sweep.jobs] == [Path("all", name).absolute() for name in names]
    assert [(job.config.beta, job.config.seed) for job in sweep.jobs][2] == (4, 0)
    assert {job.config.epochs for job in sweep.jobs} == {3}
    assert sweep.jobs[2].swept == {"beta": "4", "seed": "0"}
    assert sweep.swept == ["beta", "seed"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("2024_01_15,2024_01_16", ["2024_01_15", "2024_01_16"]),
        ("1e3, on,it's", ["1e3", "on", "it's"]),
        ("'a,b',1_1", ["a,b", "1_1"]),
        ("choice(1_1,1_2)", ["1_1", "1_2"]),
    ],
)
def test_texts_that_are_swept_are_what_was_typed(typed, expected):
    (Path("own") / "sweep").mkdir(parents=True)
    preset = f"# @package _global_\nhydra:\n  sweeper:\n    params: {{data_dir: {typed!r}}}\n"
    Path("own/sweep/days.yaml").write_text(preset.replace("\\'", "''"))
    for sweep in (plan(f"data_dir={typed}"), plan_sweep(["sweep=days"], extra_dir="own")):
        assert [job.config.data_dir for job in sweep.jobs] == expected
        assert sweep.jobs[0].swept == {"data_dir": expected[0]}
        again = settings_of("config", sweep.jobs[1].overrides, "own")  # as a saved run repeats them
        assert again.data_dir == expected[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes_and_the_command_line_wins(preset):
    sweep = plan(f"sweep={preset}", "dataset=digits")
    assert sweep.search or len(sweep.jobs) >= 5
    if preset == "beta":
        sweep = plan("sweep=beta", "beta=3,5", "seed=7")
        assert [(job.config.beta, job.config.seed) for job in sweep.jobs] == [(3, 7), (5, 7)]


def test_a_job_can_be_run_alone_with_its_settings():
    """Without sweep=NAME, which a single run refuses, unless the preset holds other settings."""
    (Path("own") / "sweep").mkdir(parents=True)
    preset = "# @package _global_\nhydra:\n  sweeper:\n    params: {seed: '0,1'}\n"
    Path("own/sweep/seeds2.yaml").write_text(preset)
    Path("own/sweep/long.yaml").write_text(preset + "beta: 7\n")
    for name, own in (("seeds2", []), ("long", ["sweep=long"])):
        sweep = plan_sweep(["epochs=3", f"sweep={name}"], extra_dir="own")
        assert [*sweep.jobs[1].overrides] == ["seed=1", "epochs=3", *own]
        assert sweep.jobs[1].config.beta == (7 if own else 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["beta=1,2", "image_every=2"], True),
        (["hydra/sweeper=optuna", "beta=interval(1,2)", "image_every=2"], True),
        (["beta=1,2", "image_every=2", "figures=none,all"], False),
        (["beta=1,2", "image_every=0"], False),
        (["beta=1,2"], False),
    ],
)
def test_a_setting_without_effect_is_named(line, said, capsys):
    plan(*line)
    assert ("image_every: a sweep draws no pictures" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["seed=0,1,0"], "job 1 (seed=0) and job 3 (seed=0) have equal settings"),
        (["beta=1,1.0"], "have equal settings"),
        (["seed=0,1", "beta=-1"], "job 1 (seed=0 beta=-1): beta=-1"),
        (["beta=1,x"], "job 2 (beta=x): beta=x"),
        (["beta=interval(0,1)"], "beta=interval(0,1): only a search"),
        (["beta=1,2", "hydra/sweeper=nope"], "hydra/sweeper"),
        (["model=glob(*)"], "model=glob(*)"),
        (["sweep=betta"], "sweep=betta: no such sweep (did you mean beta?)"),
        (["resume=nowhere"], "resume=nowhere"),
    ],
)
def test_what_a_sweep_refuses(overrides, line, tmp_path):
    with pytest.raises(UserError) as caught:
        plan(*overrides)
    assert line in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_found_by_its_settings_where_no_folder_has_its_name(make_config, write_run):
    config = make_config("beta=4", "figures=none")
    there = write_run(Path("all/somewhere/else"), config=config, status="running").absolute()
    sweep = plan("beta=1,4", "hydra.sweep.dir=all")
    assert [job.folder for job in sweep.jobs] == [Path("all/beta=1").absolute(), there]
    assert plan("beta=4,1", "hydra.sweep.dir=all").jobs[0].folder == there


def test_more_epochs_go_on_and_other_settings_are_not_overwritten(make_config, write_run):
    folder = write_run(Path("all/beta=1"), config=make_config("epochs=3"))
    (folder / "metrics.jsonl").write_text('{"epoch": 3}\n')
    job, _ = plan("beta=1,2", "epochs=4", "hydra.sweep.dir=all").jobs
    assert job.folder == folder.absolute()
    assert not job.is_finished
    for other in ("epochs=2", "model.latent_dim=3"):
        with pytest.raises(UserError, match=r"job 1 \(.*holds a run with other settings"):
            plan("beta=1,2", other, "hydra.sweep.dir=all")


def test_resume_auto_takes_the_newest_sweep_of_these_jobs(capsys):
    sweep = plan("beta=1,2", "resume=auto")
    assert "a new sweep" in capsys.readouterr().err
    for name, jobs in (("a", sweep), ("b", plan("beta=1,3"))):
        folder = Path("outputs/sweeps/day") / name
        folder.mkdir(parents=True)
        (folder / "jobs.json").write_text(json.dumps({"identity": jobs.identity}))
    again = plan("beta=2,1", "figures=none", "resume=auto")
    assert again.folder == Path("outputs/sweeps/day/a").absolute()
    assert "going on" in capsys.readouterr().err
    assert plan("beta=1,2").folder != again.folder
    assert plan("beta=1,2").folder.name.startswith("mnist_mlp_vae_beta=1,2_")


def test_a_sweep_that_begins_says_what_is_left_and_notes_its_jobs(make_config, write_run, capsys):
    write_run(Path("all/done"), config=make_config("beta=1"))
    half = write_run(Path("all/half"), config=make_config("beta=2"), status="interrupted")
    (half / "checkpoints").mkdir()
    (half / "checkpoints" / "last.ckpt").touch()
    sweep = plan("beta=1,2,4", "hydra.sweep.dir=all")
    with sweep.begun():
        jobs = json.loads(Path("all/jobs.json").read_text())
        with pytest.raises(UserError, match="in use"), sweep.begun():
            pass
    assert "3 jobs: 1 are finished, 1 go on, 1 begin" in capsys.readouterr().err
    assert [job["folder"] for job in jobs["jobs"]] == ["done", "half", "beta=4"]
    assert jobs["command"] == ["vae-train", "-m", "beta=1,2,4", "hydra.sweep.dir=all"]
    Path("own").mkdir()
    again = plan_sweep(["beta=1,2"], extra_dir="own").command
    assert again == ["vae-train", "-m", "--config-dir=own", "beta=1,2"]
    assert [job["swept"] for job in jobs["jobs"]] == [{"beta": value} for value in "124"]


def test_names_of_settings():
    keys = given_keys(["model=ae,mlp_vae", "beta=1", "beta=2", "~penalty"])
    assert keys == ["model.name", "beta", "penalty.name"]
    names = {
        "model.latent_dim": "latent_dim",
        "model.name": "model",
        "a.lr": "a.lr",
        "b.lr": "b.lr",
    }
    assert short_names(names) == names


def test_a_folder_is_named_by_what_is_swept():
    assert folder_name({"a.b": "[400,200]", "seed": "0"}) == "a.b=400,200,seed=0"
    assert folder_name({"dataset.train": "'a/b c'"}) == "dataset.train=a_b_c"
    assert folder_name({}) == "0"
    long = {folder_name({"x": "é" * 200 + end}) for end in "ab"}
    assert len(long) == 2
    assert all(len(name.encode()) <= 120 for name in long)


def test_planning_needs_no_torch():
    code = (
        "import sys; from vae_cli.sweeps.plan import plan_sweep; plan_sweep(sys.argv[1:]);"
        "sys.exit(str({'torch', 'pandas'} & {*sys.modules} or 0))"
    )
    for overrides in (["beta=1,2"], ["hydra/sweeper=optuna", "beta=interval(0,1)"]):
        command = [sys.executable, "-c", code, *overrides]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stderr.strip() == "0"


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([], "mnist_mlp_vae"),
        (
            ["beta=4", "dataset=digits", "quiet=true", "+optimizer.lr=0.1"],
            "digits_mlp_vae_beta=4,lr=0.1",
        ),
        (["dataset=arrays", "dataset.train='/a b/c d.npz'"], "arrays_mlp_vae_train=c_d.npz"),
        (
            ["model=conv_vae", "model.hidden_sizes=[8,4]", "hydra.job.name=x"],
            "mnist_conv_vae_hidden_sizes=8,4",
        ),
        (["name=-my run: $1/2", "beta=4"], "my_run_1_2"),
        (["name='..'"], "run"),
    ],
)
def test_a_run_s_folder_is_named_by_what_was_set_and_the_time(texts, name):
    folders = [
        output_folder(composed("config", texts, with_hydra=True), "run", texts) for _ in "ab"
    ]
    time = r"_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}"
    assert all(re.fullmatch(re.escape(name) + time, folder.name) for folder in folders)
    assert folders[0] != folders[1]
    assert folders[0].parent == Path("outputs").absolute()
    long = ["name=" + "é" * 200]
    cfg = composed("config", long, with_hydra=True)
    assert len(output_folder(cfg, "sweep", long).name.encode()) < 160
