"""Modules outside the package bring components; only the user names them."""

import sys
from pathlib import Path

import pytest
import yaml

from vae_cli import load_run, register
from vae_cli.config import help as texts
from vae_cli.config.check import as_container, identity
from vae_cli.config.compose import settings_of
from vae_cli.config.losses import ElboConfig
from vae_cli.config.plugins import load_plugins, named_plugins
from vae_cli.config.registry import PLUGINS, SCHEMAS
from vae_cli.config.settings import GROUPS
from vae_cli.console import UserError
from vae_cli.runs.saved import read_metrics

pytestmark = pytest.mark.usefixtures("forget")

# an objective that is our ELBO under another name
OBJECTIVE = """
from vae_cli import register
from vae_cli.config.losses import ElboConfig

@register("objective", "mine", builds="vae_cli.vae.objectives:ELBO")
class Mine(ElboConfig):
    pass
"""
# for each choice of ours another of its kind, with our code behind it
EVERY = """
from vae_cli import register
from vae_cli.config.registry import SCHEMAS
from vae_cli.analysis import settings  # registers our tasks

for (group, name), schema in list(SCHEMAS.items()):
    register(group, "my_" + name, builds=schema.builds)(type("My" + name, (schema,), {}))
"""
TINY = ("epochs=2", "batch_size=256", "figures=none", "image_every=0")


def write(name: str, code: str, **files: str) -> None:
    """Leave a module NAME.py in the current folder, and YAML files: objective__mine="…"."""
    Path(f"{name}.py").write_text(code)
    for place, text in files.items():
        path = Path("configs", *place.split("__")).with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def inherit(choice: str, name: str, key: str = "name") -> str:
    """The YAML of a choice that takes all values over from another."""
    return f"# Mine.\ndefaults: [{choice}, _self_]\n{key}: {name}\n"


def refused(*names: str) -> str:
    """The line with which plug-ins are refused."""
    with pytest.raises(UserError) as error:
        load_plugins(names)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_group_and_the_tasks_take_components_from_outside(vae_train_here, tmp_path):
    choices = {g: c for g, (c, _) in texts.Pages("config").primary.groups.items() if g in GROUPS}
    choices["dataset"] = "digits"
    files = {f"{g}__my_{c}": inherit(c, f"my_{c}") for g, c in choices.items()}
    files["task__my_embed"] = "# @package _global_\n" + inherit("embed", "my_embed", "task")
    write("every", EVERY, **files)
    words = [f"{group}=my_{choice}" for group, choice in choices.items()]
    done = vae_train_here("plugins=every", *TINY, *words, "hydra.run.dir=mine")
    assert done.returncode == 0, done.stderr
    done = vae_train_here(*TINY, "dataset=digits", "hydra.run.dir=ours")
    assert done.returncode == 0, done.stderr
    lines = [
        [{key: x for key, x in line.items() if "perf/" not in key} for line in read_metrics(run)]
        for run in (tmp_path / "mine", tmp_path / "ours")
    ]
    assert lines[0] == lines[1]  # one code behind two names

    text = texts.help_text("config", texts.TRAIN, words)
    assert all(f"my_{choice}" in text for choice in choices.values())
    assert "my_embed" in texts.help_text("eval", texts.EVAL)
    with pytest.raises(UserError, match=r"did you mean my_digits\?"):
        settings_of("config", ["dataset=my_digit"])


def test_who_may_name_plug_ins(tmp_path, monkeypatch):
    for name in ("typed", "second", "variable", "installed"):
        write(name, OBJECTIVE.replace("mine", name))
    about = tmp_path / "lab-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: lab\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[vae_cli.plugins]\nlab = installed\n")
    monkeypatch.setenv("VAE_CLI_PLUGINS", "variable")
    load_plugins(named_plugins(["beta=4", "+plugins=[typed, 'second']", "data_dir=plugins=x"]))
    # the current folder is no place of packages
    assert set(PLUGINS) == {"typed", "second", "variable"}
    assert sys.path[-1] == str(tmp_path)  # last, so that no file in it hides a package
    load_plugins()
    assert {("objective", name) for name in PLUGINS} <= set(SCHEMAS)
    assert "installed" in PLUGINS


def test_a_run_notes_its_plug_ins_which_do_not_make_it_another(forget):
    write("lab", OBJECTIVE, objective__mine=inherit("elbo", "mine"))
    load_plugins("lab")
    config = settings_of("config", ["objective=mine"])  # as with VAE_CLI_PLUGINS
    assert config.plugins == ["lab"]
    assert settings_of("config", []).plugins == []
    named = settings_of("config", ["plugins=[lab]"])
    assert (named.plugins, settings_of("config", ["plugins=lab,"]).plugins) == (["lab"], ["lab"])
    assert identity(named) == identity(settings_of("config", []))
    forget()
    with pytest.raises(UserError, match="plugins=lab: a YAML file cannot import it"):
        settings_of("config", ["plugins=lab"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nowhere", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "bad.py registers no component and has no configs/ beside it"),
        (
            OBJECTIVE.replace('"objective", "mine"', '"objective", "elbo"'),
            "objective=elbo: vae_cli",
        ),
        (
            OBJECTIVE.replace('"objective"', '"objektive"'),
            "no such group (did you mean objective?)",
        ),
        (OBJECTIVE.replace('"objective"', '"model"'), "Mine must extend ModelConfig"),
        (OBJECTIVE + OBJECTIVE.replace("Mine", "Yours"), "objective=mine: bad has this name"),
    ],
)
def test_a_wrong_plug_in_is_refused_in_a_line(code, words, monkeypatch, capsys):
    write("bad", code)
    line = refused("bad")
    assert line.startswith("plugins=bad")
    assert words in line
    assert capsys.readouterr().err == ""
    if "HYDRA_FULL_ERROR" in line:
        sys.modules.pop("bad", None)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        refused("bad")
        assert "Traceback" in capsys.readouterr().err


def test_a_module_that_is_not_there_and_files_that_would_be_hidden_are_refused(monkeypatch):
    assert "no such module in this folder" in refused("lab/mine.py")
    monkeypatch.setenv("VAE_CLI_PLUGINS", "nowhere")
    assert refused().startswith("VAE_CLI_PLUGINS=nowhere: ")
    monkeypatch.delenv("VAE_CLI_PLUGINS")
    write("lab", OBJECTIVE, objective__elbo=inherit("iwae", "mine"))
    assert "configs/objective/elbo.yaml: " in (line := refused("lab"))
    assert "has a file of this name, which is read" in line


def test_a_schema_without_its_file_is_said():
    write("lab", OBJECTIVE)
    load_plugins("lab")
    with pytest.raises(UserError, match=r"its file objective/mine\.yaml is missing"):
        settings_of("config", ["objective=mine"])


def test_a_class_may_be_registered_again_as_a_notebook_does():
    for _ in range(2):

        @register("objective", "mine", builds="vae_cli.vae.objectives:ELBO")
        class Mine(ElboConfig):
            pass

    assert SCHEMAS["objective", "mine"] is Mine


@pytest.fixture
def stranger(make_config, tmp_path):
    """A run folder that names a plug-in wherever it can; to import it leaves a file behind."""
    write("evil", "from pathlib import Path\nPath('imported').touch()\n" + OBJECTIVE)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / ".hydra").mkdir()
    texts = ["plugins=evil", "+plugins=[evil]", "objective=mine"]
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(texts))
    plain = as_container(make_config("dataset=digits"))
    plain["plugins"] = ["evil", "$(x)"]
    plain["objective"]["name"] = "mine"
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    return run


def test_a_run_folder_imports_nothing_and_says_what_it_needs(stranger, vae_train_here):
    with pytest.raises(UserError, match=r"run needs 'plugins=evil,\$\(x\)': objective.name=mine"):
        load_run(stranger)
    done = vae_train_here(f"resume={stranger}")
    assert done.returncode == 2
    assert done.stderr == f"vae-train: resume={stranger} needs 'plugins=evil,$(x)'\n"
    assert not Path("imported").exists()
    with pytest.raises(UserError):  # its weights are missing
        load_run(stranger, plugins="evil")
    assert Path("imported").exists()
