"""What the commands answer in this process: help, settings, exit codes, folders, sweeps."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import vae_cli
from vae_cli import cli
from vae_cli.console import RunFailed, UserError
from vae_cli.runs.interrupt import Interrupted
from vae_cli.runs.saved import read_summary
from vae_cli.training import loop

TINY = ("dataset=digits", "figures=none", "image_every=0", "epochs=1", "batch_size=256")


@pytest.fixture
def fake_training(monkeypatch) -> list[Path]:
    """In place of training: write what a completed run leaves, or raise what `beta` stands for."""
    folders: list[Path] = []
    errors = {
        2: UserError("dataset.path=x: nothing there"),
        3: RunFailed("the loss is not finite"),
        4: Interrupted("interrupted; 3 epochs are kept", by_signal=False),
        5: Interrupted("interrupted; 3 epochs are kept", by_signal=True),
        6: ZeroDivisionError("a bug\nof ours"),
    }

    def train(config, folder, observers=(), swept=()) -> None:
        folders.append(folder)
        if config.beta in errors:
            raise errors[config.beta]
        plain = config.model_dump(by_alias=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
        summary = {"status": "completed", "epochs": config.epochs, "seconds": 0.0}
        metrics = {f"test/{name}": config.beta for name in ("elbo", "reconstruction", "kl")}
        finished = {"swept": list(swept), "metrics": metrics, "finished": "2026-01-01T00:00:00"}
        (folder / "summary.json").write_text(json.dumps(summary | finished))

    monkeypatch.setattr(loop, "train", train)
    return folders


# ------------------------------------------------------------------------------ without a run


def test_version_is_ours(vae_train_here):
    done = vae_train_here("--version")
    assert done.stdout.startswith(f"vae-train {vae_cli.__version__}, torch ")
    assert "hydra-core" in done.stdout


def test_help_is_asked_for_anywhere_in_the_line(vae_train_here):
    done = vae_train_here("model=conv_vae", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "model.channels=" in done.stdout
    assert "vae-train" in done.stdout.splitlines()[0]


def test_cfg_shows_the_resolved_settings_of_ones_own_files_too(vae_train_here, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "defaults: [mlp_vae, _self_]\nhidden_sizes: [11]\n"
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text(text)
    line = ("dataset=beta_pdf", "--cfg", "job", "--resolve", "+beta=2", "--config-dir", "mine")
    done = vae_train_here(*line, "data_dir=a,b", "model=tiny")
    shown = yaml.safe_load(done.stdout)
    assert (shown["model"]["latent_dim"], shown["beta"], shown["data_dir"]) == (2, 2, "a,b")
    assert shown["model"]["hidden_sizes"] == [11]
    assert "hydra" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_was_typed_cannot_move_the_cursor(vae_train_here):
    done = vae_train_here("\x1b[2Jbeta=\n1")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_answers_need_no_torch(tmp_path):
    code = (
        "import sys; from vae_cli import cli; codes = [cli.run(line.split()) for line in"
        " ('--help', '--version', 'beta=-1', 'model=x', '--cfg job', '-m beta=1,-1')];"
        "heavy = {'torch', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules);"
        "sys.exit(str(heavy or '') + str(codes))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[0, 0, 2, 2, 0, 2]"
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_imported_before_the_first_step_than_it_needs(tmp_path):
    code = (
        "import sys; from vae_cli import cli; from vae_cli.training import loop;"
        "loop.fit = lambda *arguments: sys.exit(' '.join(set(sys.modules) & {'torch._dynamo',"
        " 'torchvision', 'pandas', 'scipy', 'sympy'}) or None); cli.run(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "dataset=beta_pdf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "4,500 training" in done.stderr) == (0, True), done.stderr


def test_completion_knows_groups(vae_train_here, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "vae-train model=")
    monkeypatch.setenv("COMP_POINT", "16")
    assert "model=conv_vae" in vae_train_here("-sc", "query=bash").stdout


def test_completion_of_the_other_commands_knows_tasks_settings_and_forms(monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "vae-eval task=nll num")
    assert cli._eval(["-sc", "query=bash"]) == cli._report(["-sc", "query=fish"]) == 0
    words = capsys.readouterr().out.splitlines()
    assert {"task=nll", "run=", "num_samples=", "format=csv", "--no-figures"} <= {*words}
    assert not {"from=", "model="} & {*words}  # of another task, of another command
    for command, call in (("vae-eval", cli._eval), ("vae-report", cli._report)):
        monkeypatch.setattr("sys.argv", [command])
        assert call(["-sc", "install=bash"]) == 0
        assert capsys.readouterr().out.endswith(f"-F hydra_bash_completion {command}\n")


def test_the_public_names_are_there():
    for name in vae_cli.__all__:
        assert getattr(vae_cli, name).__name__ == name
    with pytest.raises(AttributeError, match="nowhere"):
        vae_cli.nowhere  # noqa: B018


# ------------------------------------------------------------------------------ a single run


@pytest.mark.parametrize(
    ("beta", "code", "words"),
    [
        (1, 0, ""),
        (2, 2, "nothing there"),
        (3, 1, "not finite"),
        (4, 130, "interrupted"),
        (5, 143, "interrupted"),
        (6, 1, "a bug of ours"),
    ],
)
def test_a_run_s_end_is_an_exit_code_and_a_line(
    vae_train_here, fake_training, tmp_path, beta, code, words
):
    done = vae_train_here(*TINY, f"beta={beta}")
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.count("\n") == 1 + (code > 0)
    assert done.stderr.startswith("mlp_vae on digits, 1 epoch -> outputs/")  # before torch
    (folder,) = fake_training
    assert folder.parts[-2] == "outputs"
    if code in (0, 6):
        assert (folder / ".hydra" / "overrides.yaml").exists()
    if beta == 6:
        assert "Traceback" in (folder / "train.log").read_text()
    if code == 2:  # no run began
        assert list(tmp_path.iterdir()) == []


def test_a_run_s_log_is_closed_and_the_command_line_kept(vae_train_here, fake_training):
    handlers = logging.getLogger().handlers[:]
    vae_train_here(*TINY, "beta=1.5", "+seed=3")
    assert logging.getLogger().handlers == handlers
    texts = yaml.safe_load((fake_training[0] / ".hydra" / "overrides.yaml").read_text())
    assert texts == [*TINY, "beta=1.5", "seed=3"]


def test_a_folder_that_holds_a_run_is_not_begun_again(vae_train_here, tmp_path):
    assert vae_train_here(*TINY, "hydra.run.dir=r u n").returncode == 0
    again = vae_train_here(*TINY, "hydra.run.dir=r u n")
    assert (again.returncode, "resume" in again.stderr) == (2, True)
    refused = vae_train_here("resume=r u n", "beta=4", "model.latent_dim=3")
    assert refused.returncode == 2
    assert "beta: 1.0, now 4" in refused.stderr
    assert "model.latent_dim: 8, now 3" in refused.stderr
    finished = vae_train_here("resume=r u n")
    assert (finished.returncode, "finished" in finished.stderr) == (0, True)
    longer = vae_train_here("resume=r u n", "epochs=2")
    assert longer.returncode == 0, longer.stderr
    assert read_summary(tmp_path / "r u n")["epochs"] == 2
    texts = yaml.safe_load((tmp_path / "r u n" / ".hydra" / "overrides.yaml").read_text())
    assert texts == list(TINY)  # as the run was begun


def test_resume_auto_finds_the_folder(vae_train_here, fake_training, tmp_path):
    first = vae_train_here(*TINY, "resume=auto")
    assert "a new run" in first.stderr
    (folder,) = fake_training
    (folder / "summary.json").write_text('{"status": "interrupted"}')
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    assert "going on" in vae_train_here(*TINY, "resume=auto").stderr
    assert "a new run" in vae_train_here(*TINY, "resume=auto", "beta=1.5").stderr
    assert "a new run" in vae_train_here(*TINY, "resume=auto", "hydra.run.dir=own").stderr
    assert [path == folder for path in fake_training] == [True, True, False, False]
    assert fake_training[-1] == tmp_path / "own"


def test_a_dry_run_says_sizes_and_leaves_nothing(vae_train_here, tmp_path):
    done = vae_train_here(*TINY, "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_of_several_processes_has_a_folder_and_speaks(
    vae_train_here, fake_training, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    done = vae_train_here(*TINY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not fake_training[0].exists()
    assert vae_train_here(*TINY, "beta=2").stderr == ""
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    assert vae_train_here(*TINY).returncode == 0
    assert fake_training[-1].exists()
    refused = vae_train_here(*TINY, "-m", "seed=0,1")
    assert (refused.returncode, "-m" in refused.stderr) == (2, True)


# ------------------------------------------------------------------------------ sweeps


def test_a_sweep_leaves_a_run_a_job_and_skips_them_the_next_time(
    vae_train_here, fake_training, tmp_path
):
    line = ("-m", *TINY, "beta=0.5,3,1", "seed=0,1", "hydra.sweep.dir=all")
    done = vae_train_here(*line)
    assert done.returncode == 1  # beta=3 fails; the others go on
    assert len(fake_training) == 6
    names = sorted(folder.name for folder in fake_training)
    assert names[:2] == ["beta=0.5,seed=0", "beta=0.5,seed=1"]
    before, after, *_ = done.stdout.splitlines()
    assert before == "job 1/6 beta=0.5,seed=0"
    assert after.startswith(f"{before}: test elbo 0.500")
    assert "job 3/6 beta=3,seed=0: failed: the loss is not finite\n" in done.stdout
    assert (tmp_path / "all" / "sweep.csv").exists()
    assert read_summary(tmp_path / "all" / "beta=1,seed=1")["swept"] == ["beta", "seed"]
    again = vae_train_here(*line)
    assert again.returncode == 1
    assert "6 jobs: 4 are finished, 0 go on, 2 begin" in again.stderr
    assert "4 of 4 runs completed" in again.stdout  # the failed ones have written nothing here
    assert [folder.name for folder in fake_training[6:]] == ["beta=3,seed=0", "beta=3,seed=1"]


@pytest.mark.parametrize(("beta", "code"), [(4, 130), (5, 143)])
def test_a_stopped_job_ends_the_sweep(vae_train_here, fake_training, beta, code):
    done = vae_train_here("-m", *TINY, f"beta=1,{beta},0.5", "hydra.sweep.dir=a b")
    assert done.returncode == code
    assert len(fake_training) == 2
    assert "hydra.sweep.dir='" in done.stderr.splitlines()[-1]
    assert "test/elbo" in done.stdout  # the report on what there is


def test_a_sweep_is_previewed_as_a_list_of_its_jobs(vae_train_here, tmp_path):
    line = ("-m", "dataset=digits", "model.latent_dim=2,3")
    titles = ["job 1/2 latent_dim=2", "job 2/2 latent_dim=3"]
    listed = vae_train_here(*line, "--cfg", "job")
    assert listed.stdout.splitlines() == [
        "2 jobs of vae-train dataset=digits",
        *(f"  {title}" for title in titles),
    ]
    tried = vae_train_here(*line, "dry_run=true")
    assert tried.returncode == 0, tried.stderr
    _, *rows, last = tried.stdout.splitlines()
    for row, title, parameters in zip(rows, titles, ("17,476", "17,862"), strict=True):
        assert row.startswith(f"  {title}: parameters {parameters}, memory")
    assert "nothing was kept" in last
    search = vae_train_here("-m", "sweep=search", "dataset=digits", "--cfg", "job")
    assert search.stdout == "30 trials of vae-train dataset=digits\n"
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- vae-eval, vae-report


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run vae-eval or vae-report in this process: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as end:
            {"vae-eval": cli.eval_main, "vae-report": cli.report_main}[name]()
        output = capsys.readouterr()
        return end.value.code, output.out, output.err

    return run


@pytest.mark.parametrize("name", ["main", "eval_main", "report_main"])
def test_a_reader_that_has_gone_changes_no_exit_code(monkeypatch, name):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, pytest.raises(SystemExit) as end:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        getattr(cli, name)()
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("vae-eval", "run"),
        ("vae-eval run=nowhere", "run=nowhere"),
        ("vae-eval run=latest outputs=.", "run=latest"),
        ("vae-eval run=RUN task=nl", "nll"),
        ("vae-eval run=RUN task=nll num_sample=3", "num_samples"),
        ("vae-eval run=RUN task=nll num_samples=0", "num_samples=0"),
        ("vae-eval run=RUN task=interpolate from=3", "to"),
        ("vae-eval run=RUN task=fit alpha=1 beta=2", "dataset=digits"),
        ("vae-eval run=RUN device=gpu", "device=gpu"),
        ("vae-eval run=RUN --foo", "--foo"),
        ("vae-report", "folder"),
        ("vae-report nowhere", "nowhere"),
        ("vae-report RUN --metric accuracy", "accuracy"),
        ("vae-report RUN --format xml", "--format"),
    ],
)
def test_a_mistake_costs_one_line(command, trained, tmp_path, line, name):
    run = str(trained("dataset=digits", "epochs=1"))
    code, out, err = command(*line.replace("RUN", run).split())
    assert (code, out) == (2, "")
    assert err.startswith(line.split()[0])
    assert name in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_vae_eval_shows_its_settings(command):
    code, out, _ = command(
        "vae-eval", "--cfg", "job", "run=a,b=c", "task=interpolate", "from=3", "to=8"
    )
    shown = yaml.safe_load(out)
    assert code == 0
    assert (shown["run"], shown["from"], shown["steps"]) == ("a,b=c", "3", 20)
    assert "max_examples=" in command("vae-eval", "task=nll", "--help")[1]
    assert command("vae-eval", "--version")[1].startswith("vae-eval ")


def test_vae_eval_does_a_task(command, trained, tmp_path):
    run = trained("dataset=digits", "epochs=1")
    code, out, err = command("vae-eval", f"run={run}", "task=sample", "n=2", f"out={tmp_path}/made")
    assert code == 0, err
    assert err.startswith(f"task=sample of {run}\n")  # before torch
    made = sorted((tmp_path / "made").iterdir())
    assert len(made) >= 2
    assert all(str(path) in out for path in made)


def test_vae_report_prints_or_writes(command, trained, tmp_path):
    run = str(trained("dataset=digits", "epochs=1"))
    code, out, _ = command("vae-report", run, "--format", "csv")
    assert (code, out.count("\n")) == (0, 2)
    assert command("vae-report", f"run={run}", "format=csv", "metric=kl")[1] == out
    code, out, err = command("vae-report", run, "--out", str(tmp_path / "made"), "--no-figures")
    assert code == 0, err
    assert "1 of 1 runs" in out
    assert (tmp_path / "made" / "report.html").exists()
    before = sorted(Path(run).rglob("*"))
    code, out, _ = command("vae-report", run)
    assert (code, "out=DIR" in out) == (0, True)
    assert sorted(Path(run).rglob("*")) == before
    assert "metric=" in command("vae-report", "--help")[1]
    assert command("vae-report", "--version")[1].startswith("vae-report ")
