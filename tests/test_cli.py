import subprocess
import sys
from pathlib import Path

import pytest

from vae_cli import cli, planning, sweep_planning
from vae_cli.checking import key_names
from vae_cli.config import GROUPS, Config

# command line -> what its one line must contain: the setting, its value and a way out
MISTAKES = [
    ("betta=4", "betta=4: no such setting (did you mean beta?)"),
    ("+betta=4", "+betta=4: no such setting (did you mean beta?)"),
    ("++model.hiden_sizes=[3]", "hiden_sizes=[3]: no such setting (did you mean hidden_sizes?)"),
    ("beta=abc", "beta=abc: must be a number"),
    ("beta=-1", "beta=-1: must be >= 0"),
    ("beta=nan", "beta=nan: must be a finite number"),
    ("beta=null", "beta=null: must have a value"),
    ("beta==4", "beta==4: cannot be read; settings are written KEY=VALUE"),
    ("beta", "beta: cannot be read; settings are written KEY=VALUE"),
    ("~beta", "beta: must have a value"),
    ("beta={a:1}", "beta={a:1}: must be a number"),
    ("beta=1,2", "beta=1,2: several values; add -m"),
    ("epochs=0", "epochs=0: must be >= 1"),
    ("epochs=1.5", "epochs=1.5: must be a whole number"),
    ("batch_size=-3", "batch_size=-3: must be >= 1"),
    ("seed=-1", "seed=-1: must be >= 0"),
    ("device=gpu", "device=gpu: must be auto, cpu, cuda, cuda:N or mps"),
    ("precision=fp16", "precision=fp16: must be one of fp32, bf16"),
    ("compile=maybe", "compile=maybe: must be true or false"),
    ("monitor=val/accuracy", "monitor=val/accuracy: must be one of val/elbo"),
    ("patience=3 dataset.val_size=0", "patience=3 needs validation data"),
    ("scheduler=plateau dataset.val_size=0", "scheduler=plateau needs validation data"),
    ("modle=ae", "modle=ae: no such setting (did you mean model?)"),
    ("model=aee", "model=aee: no such model (did you mean ae?)"),
    ("model=", "model=: no such model"),
    ("model=null", "model=null"),
    ("model.name=foo", "model.name=foo: no such model"),
    ("model.hidden_sizes=3", "model.hidden_sizes=3: must be a list"),
    ("model.hidden_sizes=[0]", "model.hidden_sizes=[0]: each must be >= 1"),
    ("model.hidden_sizes=[a]", "model.hidden_sizes"),
    ("model.activation=rellu", "model.activation=rellu: must be one of relu"),
    ("model=conv_vae model.channels=[]", "model.channels=[]: needs at least 1 item"),
    ("model=conv_vae model.hidden_sizes=[3]", "model.hidden_sizes=[3]: no such setting"),
    ("model=conv_vae dataset=beta_pdf", "use model=mlp_vae or model=ae"),
    ("dataset=beta_pdf likelihood=bernoulli", "needs data in [0, 1]"),
    ("dataset=beta_pdf dataset.x_min=0.99", "dataset.x_min=0.99: must be <"),
    ("dataset=beta_pdf dataset.val_size=5000", "dataset.val_size=5000: must be less than"),
    ("dataset=imagenet", "dataset=imagenet: no such dataset"),
    ("optimizer=adamm", "optimizer=adamm: no such optimizer (did you mean adam?)"),
    ("optimizer.lr=0", "optimizer.lr=0: must be > 0"),
    ("optimizer.beta1=1", "optimizer.beta1=1: must be < 1"),
    ("optimizer=sgd optimizer.momentum=0 optimizer.nesterov=true", "needs optimizer.momentum > 0"),
    ("scheduler=exponential scheduler.gamma=1.5", "scheduler.gamma=1.5: must be <= 1"),
    ("scheduler=cosine scheduler.warmup_epochs=20", "scheduler.warmup_epochs=20: must be less"),
    ("beta_schedule=warmup beta_schedule.epochs=50", "the warm-up is longer than the training"),
    ("objective=iwae model=ae", "objective=iwae needs a VAE"),
    ("ema=1", "ema=1: must be < 1"),
    ("penalty=sparse penalty.weight=-1", "penalty.weight=-1: must be > 0"),
    ("corruption=masking corruption.probability=1", "corruption.probability=1: must be < 1"),
    ("beta_schedule=capacity beta_schedule.epochs=30", "the warm-up is longer than the training"),
    ("beta_schedule=cyclical beta_schedule.rise=2", "beta_schedule.rise=2: must be <= 1"),
    ("objective.num_samples=0", "objective.num_samples=0: must be >= 1"),
    ("likelihood.output=tanh likelihood=gaussian", "likelihood.output=tanh: must be one of"),
    ("experiment=foo", "experiment=foo: no such experiment"),
    ("resume=/nowhere", "resume=/nowhere: no such folder"),
    ("resume=.", "not a run folder"),
    ("-m resume=.", "resume="),
    ("-m beta=1,foo", "beta=foo: must be a number"),
    ("-m beta=1,-2", "job 1 (beta=-2): beta=-2: must be >= 0"),
    ("-m seed=0,1,0", "jobs 0 (seed=0) and 2 (seed=0) have the same settings"),
    ("-m beta=1,2 --cfg job", "--cfg shows one job's settings"),
    ("--foo", "unrecognized arguments: --foo"),
    ("--config-dir /nowhere", "--config-dir /nowhere: no such folder"),
    ("--config-name foo", "--config-name foo: no such file"),
    ("hydra.run.dirr=x", "hydra.run.dirr=x: no such setting (did you mean dir?)"),
    ("hydra/launcher=foo", "hydra/launcher=foo: no such hydra/launcher"),
]


@pytest.mark.parametrize(("line", "expected"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(line, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vae-train: ")
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_broken_yaml_file_is_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "broken.yaml").write_text("a: [1\nb: }")
    assert cli.run(["--config-dir", "mine", "optimizer=broken"]) == 2
    err = capsys.readouterr().err
    assert "not valid YAML" in err
    assert "broken.yaml" in err
    assert err.count("\n") == 1


def test_own_yaml_files_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "defaults: [mlp_vae, _self_]\nhidden_sizes: [11]\n"
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text(text)
    assert cli.run(["--config-dir", "mine", "model=tiny", "--cfg", "job"]) == 0
    assert "- 11" in capsys.readouterr().out


def test_the_real_command_ends_with_2_and_leaves_no_folder(vae_train, tmp_path):
    done = vae_train("beta=-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vae-train: beta=-1: must be >= 0\n"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_device_is_found_before_any_work(vae_train, tmp_path):
    done = vae_train("dataset=digits", "device=cuda:97")
    assert done.returncode == 2
    assert "vae-train: device=cuda:97: this machine has" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["beta=-1"], ["--cfg", "job"], ["-sc", "query=bash"], ["model=x"]],
    ids=" ".join,
)
def test_answers_need_no_torch(arguments, tmp_path):
    code = (
        "import sys; from vae_cli import cli; cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'matplotlib', 'tensorboard', 'sklearn'} & set(sys.modules);"
        "sys.exit(sorted(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_group_choice_and_setting(capsys):
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    for group in (*GROUPS, "experiment", "sweep"):
        assert f"\n  {group} " in text
        for path in (planning.config_dir() / group).glob("*.yaml"):
            assert path.stem in text
    for key in key_names(Config):
        assert key in GROUPS or f"\n  {key}=" in text
    assert text.count("vae-train ") >= 6
    assert max(map(len, text.splitlines())) <= 100


def test_version_is_ours(capsys):
    assert cli.run(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("vae-train 0.")
    assert "torch" in out
    assert "hydra-core" in out


def test_cfg_shows_the_resolved_settings(capsys):
    assert cli.run(["dataset=beta_pdf", "--cfg", "job", "--resolve"]) == 0
    out = capsys.readouterr().out
    assert "latent_dim: 2" in out
    assert "hydra:" not in out


def test_completion_knows_groups(vae_train):
    done = vae_train("-sc", "query=bash", COMP_LINE="vae-train model=", COMP_POINT="16")
    assert "model=conv_vae" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("beta=1,seed=0", "beta=1,seed=0"),
        ("", "7"),
        ("data_dir=/a/b c,x='é'", "data_dir=_a_b_c,x=_é_"),
        ("../../etc", ".._.._etc"),
    ],
)
def test_job_folders_are_safe_names(overrides, expected):
    assert sweep_planning.job_folder(overrides, 7) == expected


def test_long_job_folders_are_shortened_and_stay_different():
    names = {
        sweep_planning.job_folder(f"model.hidden_sizes=[{'9,' * 200}{i}]", 0) for i in range(3)
    }
    assert len(names) == 3
    assert max(len(name.encode()) for name in names) <= 120


def test_hydra_stays_with_the_command_line_and_tensorboard_with_the_run_folder():
    package = Path(cli.__file__).parent
    importing = {"hydra": set(), "tensorboard": set(), "matplotlib": set()}
    for path in package.rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                for name, found in importing.items():
                    if name in words[1].split("."):
                        found.add(str(path.relative_to(package)))
    composing = {"cli.py", "planning.py", "sweep_planning.py", "resuming.py"}
    launching = {"jobs.py", "launching.py", "search/planning.py", "search/space.py"}
    assert importing["hydra"] == composing | launching
    assert importing["tensorboard"] == {"events.py", "run.py"}
    drawing = {"gallery.py", "pictures.py", "viewer.py", "progressive.py"}
    drawing |= {"report/pictures.py", "report/models.py"}
    assert {p for p in importing["matplotlib"] if not p.startswith("figures/")} <= drawing
