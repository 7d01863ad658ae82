"""A command line becomes checked settings: every choice, every preset, and what wins over what."""

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

import vae_cli.analysis.settings  # noqa: F401 (registers the tasks of vae-eval)
from vae_cli.config import compose
from vae_cli.config.check import as_container
from vae_cli.config.registry import SCHEMAS, Schema
from vae_cli.config.settings import GROUPS
from vae_cli.console import UserError
from vae_cli.runs.saved import saved_config

FILES = [path for group in GROUPS for path in (compose.config_dir() / group).glob("*.yaml")]
CHOICES = sorted((path.parent.name, path.stem) for path in FILES)
PRESETS = sorted(path.stem for path in (compose.config_dir() / "experiment").glob("*.yaml"))
# a choice -> what else it needs
COMPANIONS = {
    "uniform": ["posterior=categorical"],
    "image_folder": ["dataset.path=a"],
    "vanilla_vae": ["dataset.path=a"],
    "arrays": ["dataset.train=a.npy"],
}


def test_every_yaml_has_a_schema_and_every_schema_a_yaml():
    assert set(CHOICES) == {(group, name) for group, name in SCHEMAS if group in GROUPS}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_to_its_own_schema(make_config, group, choice):
    node = getattr(make_config(f"{group}={choice}", *COMPANIONS.get(choice, [])), group)
    assert type(node) is SCHEMAS[group, choice]
    assert node.name == choice


@pytest.mark.parametrize("name", PRESETS)
def test_every_experiment_composes(make_config, name):
    make_config(f"experiment={name}", *COMPANIONS.get(name, []))


@pytest.mark.parametrize(
    ("overrides", "model", "posterior"),
    [
        ("model=ae", "ae", "point"),
        ("model=conv_ae dataset=digits", "conv_ae", "point"),
        ("model=ae posterior=gaussian", "ae", "gaussian"),
        ("posterior=point", "mlp_vae", "point"),
        ("experiment=beta_pdf_ae", "ae", "point"),
        ("experiment=vae_2d", "mlp_vae", "gaussian"),
        ("experiment=ae_2d model=mlp_vae", "mlp_vae", "gaussian"),
        ("dataset=image_folder dataset.path=a", "conv_vae", "gaussian"),
        ("dataset=image_folder dataset.path=a model=conv_ae", "conv_ae", "point"),
    ],
)
def test_a_plain_autoencoder_brings_its_posterior(make_config, overrides, model, posterior):
    config = make_config(*overrides.split())
    assert (config.model.name, config.posterior.name) == (model, posterior)
    assert config.is_generative == (posterior == "gaussian")


def test_a_dataset_picks_likelihood_and_sizes_and_the_command_line_wins(make_config):
    chosen = make_config("model.activation=tanh", "dataset=beta_pdf")
    assert chosen.likelihood.name == "squared_error"
    assert (chosen.model.hidden_sizes, chosen.model.latent_dim) == ([256], 2)
    own = make_config("dataset=beta_pdf", "likelihood=gaussian", "model.hidden_sizes=[9]", "beta=4")
    assert (own.likelihood.name, own.model.hidden_sizes, own.beta) == ("gaussian", [9], 4.0)


TEXTS = ["a,b=c", "it's", 'a"b', "[x]", "ü v", "a\\b", "", "{a}", "\\'"]
# numbers, truth values, dates and nothing to one of Python, YAML 1.1, YAML 1.2 and Hydra
NUMBERS = ["2024_01_15", "1_1", "1e3", "0o7", "007", "0x1F", "1.", ".5", "nan", "-.inf", "12:30:00"]
NUMBERS += ["2024-01-15", "on", "yes", "True", "~", "None", "NULL", "=", "<<"]


@pytest.mark.parametrize("text", TEXTS + NUMBERS)
def test_the_value_of_a_text_setting_is_what_was_typed(make_config, text, tmp_path):
    config = make_config(f"data_dir={text}")
    assert config.data_dir == text
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_container(config), allow_unicode=True))
    assert saved_config(tmp_path).data_dir == text
    words = [
        f"{key}={text}" for key in ("hydra.run.dir", "hydra.sweep.dir", "++hydra.sweep.subdir")
    ]
    hydra = compose.composed("config", words, with_hydra=True).hydra
    assert {hydra.run.dir, hydra.sweep.dir, hydra.sweep.subdir} == {text}
    assert compose.plain_settings("eval", [f"run={text}", f"out={text}"])["out"] == text
    (override,) = OverridesParser.create().parse_overrides([f"key={compose.quoted(text)}"])
    assert override.value() == text


class Columns(Schema):
    names: list[str] | None
    places: list[str | int]
    sizes: list[int]


def test_each_item_of_a_list_of_texts_is_what_was_typed(monkeypatch):
    monkeypatch.setitem(SCHEMAS, ("dataset", "table"), Columns)
    typed = ["names=[1_1,on, a b ,3,'x,y']", "places=[1_1,-2,3,1e3]", "names=null", "names=[]"]
    words = compose.hydra_words([f"dataset.{text}" for text in [*typed, "sizes=[1_1]"]])
    values = [override.value() for override in compose.parse_overrides(words)]
    assert values[0] == ["1_1", "on", "a b", "3", "x,y"]
    assert values[1:] == [["1_1", -2, 3, "1e3"], None, [], [11]]


def test_a_text_may_stand_in_quotes_and_may_be_null(make_config):
    assert make_config("data_dir='a,b'").data_dir == "a,b"
    assert make_config("data_dir=null").data_dir is None
    words = compose.hydra_words(["+beta=4", "+hydra.a=b", "resume=x"])
    assert words == ["beta=4", "+hydra.a=b", "resume='x'"]
    assert compose.hydra_words(["tags=a,b", "name=a,b"], sweep=True) == [
        "tags='a,b'",
        "name='a','b'",
    ]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("beta=2 beta=-1e0", "beta=-1e0: must be >= 0"),
        ("+beta=-1", "+beta=-1: must be >= 0"),
        ("++betta=1", "++betta=1: no such setting (did you mean beta?)"),
        ("device=tpu", "device=tpu: must be auto"),
        ("model.hidden_sizes=[0,1.]", "model.hidden_sizes=[0,1.]: each must be >= 1"),
        ("patience=3 dataset.val_size=0", "patience=3 needs validation data"),
        ("optimizer=adamm", "optimizer=adamm: no such optimizer (did you mean adam?)"),
        ("model.posterior=point", "model.posterior"),
        ("beta=1,2", "beta=1,2: several values; add -m"),
        ("hydra.run.dirr=x", "Could not override 'hydra.run.dirr'"),
        ("beta=${nowhere}", "Interpolation key 'nowhere' not found"),
    ],
)
def test_a_mistake_is_one_line_that_shows_what_was_typed(make_config, overrides, line):
    with pytest.raises(UserError) as error:
        make_config(*overrides.split())
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_launcher_without_its_package_says_what_to_install(make_config):
    for launcher, extra in compose.EXTRAS.items():
        try:
            make_config(f"hydra/launcher={launcher}")
        except UserError as error:
            assert f"pip install 'vae-cli[{extra}]'" in str(error)  # noqa: PT017


def test_a_folder_of_ones_own_adds_choices(tmp_path):
    (tmp_path / "model").mkdir()
    text = "defaults: [mlp_vae, _self_]\nhidden_sizes: [11]\n"
    (tmp_path / "model" / "tiny.yaml").write_text(text)
    config = compose.settings_of("config", ["model=tiny"], str(tmp_path))
    assert (config.model.name, config.model.hidden_sizes) == ("mlp_vae", [11])
    with pytest.raises(UserError, match="did you mean tiny"):
        compose.settings_of("config", ["model=tin"], str(tmp_path))
    (tmp_path / "model" / "ae.yaml").write_text(text)  # Hydra would read ours
    with pytest.raises(UserError, match=r"^--config-dir .*model/ae\.yaml: .* has a file of this"):
        compose.settings_of("config", ["model=tiny"], str(tmp_path))


@pytest.mark.parametrize("content", ["a: [1\nb: }", "\0\xff", "a: !!python/name:os.system", "- 1"])
def test_a_broken_file_is_answered_in_one_line(tmp_path, content):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "broken.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as error:
        compose.settings_of("config", ["optimizer=broken"], str(tmp_path))
    assert "\n" not in str(error.value)


def test_hydra_s_own_settings_come_only_when_asked_for():
    assert "hydra" not in compose.composed("config", [])
    words = ["sweep=search", "hydra.sweeper.n_trials=3"]
    hydra = compose.composed("config", words, with_hydra=True).hydra
    assert (hydra.sweeper.name, hydra.sweeper.n_trials) == ("optuna", 3)


def test_name_and_tags_are_texts_whatever_they_look_like():
    config = compose.settings_of("config", ["name=1_1", "tags=[a,1]"])
    assert (config.name, config.tags) == ("1_1", ["a", "1"])
    assert compose.settings_of("config", ["tags=a,b"]).tags == ["a", "b"]
