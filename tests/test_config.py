import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vae_cli import planning
from vae_cli.checking import as_container, flatten, key_names, typed
from vae_cli.config import GROUPS, Config
from vae_cli.errors import UserError
from vae_cli.rules import Rule, rule_of
from vae_cli.schema.registry import SCHEMAS

CONFIGS = planning.config_dir()
CHOICES = sorted(
    (path.parent.name, path.stem) for group in GROUPS for path in (CONFIGS / group).glob("*.yaml")
)


def schemas() -> set[type]:
    return {Config, *SCHEMAS.values()}


def test_every_yaml_has_a_schema_and_every_schema_a_yaml():
    assert set(CHOICES) == set(SCHEMAS)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_to_its_own_schema(make_config, group, choice):
    config = make_config(f"{group}={choice}", *_companions(group, choice))
    node = getattr(config, group)
    assert type(node) is SCHEMAS[group, choice]
    assert node.name == choice


def _companions(group: str, choice: str) -> list[str]:
    conv_on_curves = group == "dataset" and choice == "beta_pdf"
    own = {"image_folder": ["dataset.path=a"], "arrays": ["dataset.train=a.npy"]}
    return ["model=mlp_vae"] if conv_on_curves else own.get(choice, [])


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_composes(make_config, path: Path):
    own = ["dataset.path=a"] if "dataset: image_folder" in path.read_text() else []
    make_config(f"experiment={path.stem}", *own)


def test_no_schema_has_a_second_default():
    for schema in schemas():
        for field in dataclasses.fields(schema):
            assert field.default is dataclasses.MISSING, f"{schema.__name__}.{field.name}"
            assert field.default_factory is dataclasses.MISSING


def test_every_setting_has_its_line_of_help():
    for schema in schemas():
        for field in dataclasses.fields(schema):
            assert rule_of(field).help, f"{schema.__name__}.{field.name}"


def test_a_dataset_picks_likelihood_and_sizes_and_the_command_line_wins(make_config):
    chosen = make_config("dataset=beta_pdf")
    assert chosen.likelihood.name == "squared_error"
    assert (chosen.model.hidden_sizes, chosen.model.latent_dim) == ([256], 2)
    own = make_config(
        "dataset=beta_pdf", "likelihood=gaussian", "model.hidden_sizes=[9]", "model=ae"
    )
    assert (own.likelihood.name, own.model.hidden_sizes, own.model.name) == ("gaussian", [9], "ae")
    assert make_config("model.latent_dim=7", "dataset=beta_pdf").model.latent_dim == 7


def test_a_saved_configuration_comes_back_equal(make_config):
    config = make_config("model=conv_vae", "precision=bf16", "grad_clip=1", "dataset=digits")
    text = OmegaConf.to_yaml(OmegaConf.create(as_container(config)))
    assert typed(OmegaConf.create(text)) == config


def test_a_configuration_can_name_only_our_components(make_config):
    plain = as_container(make_config())
    plain["model"]["_target_"] = "os.system"
    with pytest.raises(UserError, match=r"model\._target_: no such setting"):
        typed(OmegaConf.create(plain))
    plain = as_container(make_config())
    plain["model"]["name"] = "os:system"
    with pytest.raises(UserError, match=r"model.name=os:system: no such model"):
        typed(OmegaConf.create(plain))


def test_a_missing_value_is_an_error_never_a_default(make_config):
    plain = as_container(make_config())
    del plain["optimizer"]["lr"]
    with pytest.raises(UserError, match=r"optimizer\.lr.*must have a value"):
        typed(OmegaConf.create(plain))


def test_flatten():
    assert flatten({"a": 1, "b": {"c": [2], "d": {"e": None}}}) == {
        "a": 1,
        "b.c": [2],
        "b.d.e": None,
    }


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (Rule("", above=0), 1e-9, 0),
        (Rule("", at_least=0), 0, -1),
        (Rule("", below=1), 0.99, 1),
        (Rule("", at_most=1), 1, 1.01),
        (Rule("", pattern="a|b", expected="a or b"), "a", "ab"),
        (Rule(""), 0.0, float("nan")),
        (Rule(""), 0.0, float("inf")),
    ],
)
def test_rules(rule, good, bad):
    assert rule.problem(good) is None
    assert rule.problem(bad).startswith("must be")


def test_groups_are_the_nodes_of_the_config():
    nodes = [f.name for f in dataclasses.fields(Config) if str(f.type).endswith("Config")]
    assert set(nodes) == set(GROUPS)
    assert set(key_names(Config)) >= set(GROUPS)
