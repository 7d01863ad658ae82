"""Settings are checked before anything starts; equal runs have one identity."""

import re
from copy import deepcopy
from typing import Any

import pytest
import yaml

from vae_cli.config.check import (
    CHANGEABLE,
    HOW_KEYS,
    as_container,
    differing,
    flatten,
    identity,
    nearest,
    typed,
)
from vae_cli.config.networks import GaussianPosteriorConfig
from vae_cli.config.registry import SCHEMAS, Component, register
from vae_cli.config.settings import GROUPS
from vae_cli.console import UserError


@pytest.fixture(scope="module")
def plain(make_config) -> dict[str, Any]:
    return as_container(make_config("dataset=digits"))


def changed(plain: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other values: changed(plain, model__latent_dim=2)."""
    copy = deepcopy(plain)
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = copy
        for parent in parents:
            node = node[parent]
        node[last] = value
    return copy


def test_a_configuration_survives_yaml(plain):
    config = typed(plain)
    assert typed(yaml.safe_load(yaml.safe_dump(as_container(config)))) == config
    assert config.beta == 1.0
    assert config.is_generative


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"betta": 1}, "betta: no such setting (did you mean beta?)"),
        ({"beta": -1}, "beta=-1: must be >= 0"),
        ({"beta": "x"}, "beta=x: must be a number"),
        ({"beta": float("nan")}, "beta=nan: must be a finite number"),
        ({"epochs": 1.5}, "epochs=1.5: must be a whole number"),
        ({"epochs": None}, "epochs=null: must be a whole number"),
        ({"seed": True}, "seed=true: must be a whole number"),
        ({"compile": "yes"}, "compile=yes: must be auto or true or false"),
        ({"precision": "fp8"}, "precision=fp8: must be fp32 or bf16"),
        ({"device": "tpu"}, "device=tpu: must be auto, cpu, cuda, cuda:N or mps"),
        ({"ema": 1.0}, "ema=1: must be < 1"),
        ({"interpolate": [1]}, "interpolate=[1]: needs at least 2 item"),
        ({"interpolate": [1, 0.5]}, "interpolate: each must be a whole number or a text"),
        ({"manifold_range": [1.0, 0.0]}, "manifold_range=[1.0, 0.0]: the lower number must"),
        ({"model__hidden_sizes": [4, 0]}, "model.hidden_sizes: each must be >= 1"),
        ({"model__hidden_sizes": 4}, "model.hidden_sizes=4: must be a list, as in [4]"),
        ({"model__name": "mlp_va"}, "model.name=mlp_va: no such model (did you mean mlp_vae?)"),
        ({"model": "mlp_vae"}, "model=mlp_vae: must be a group of settings"),
        ({"dataset__suggested__latent": 2}, "dataset.suggested.latent: no such setting (did you"),
        ({"optimizer__lr": "???"}, "optimizer.lr is missing: give optimizer.lr="),
        ({"optimizer": {"name": "adam"}}, "optimizer.lr: must have a value"),
    ],
)
def test_a_wrong_value_costs_one_line(plain, changes, line):
    with pytest.raises(UserError, match="^" + re.escape(line)) as error:
        typed(changed(plain, **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ("dataset=beta_pdf model=conv_vae", "model=conv_vae"),
        ("dataset=beta_pdf likelihood=bernoulli", "likelihood=bernoulli"),
        ("model=ae objective=iwae", "objective=iwae"),
        ("model=ae prior=mixture", "prior=mixture"),
        ("prior=mixture objective.free_bits=1", "objective.free_bits"),
        ("objective=miwae objective.groups=3", "objective.groups=3"),
        ("posterior=ladder objective=iwae objective.gradient=dreg", "objective.gradient=dreg"),
        ("model=ae objective=dip objective.kind=2", "objective.kind=2"),
        ("penalty=several penalty.l2=0 penalty.gradient=0", "penalty=several"),
        ("posterior=full_covariance objective.free_bits=1", "objective.free_bits"),
        ("posterior=full_covariance objective=beta_tcvae", "objective=beta_tcvae"),
        ("posterior=vq prior=mixture", "prior=mixture needs a posterior with a density"),
        ("posterior=vq posterior.code_dim=3", "posterior.code_dim=3: must divide"),
        ("posterior=categorical posterior.categories=7", "posterior.categories=7: must divide"),
        ("posterior=categorical prior=mixture", "prior=mixture is one of real numbers"),
        ("prior=uniform", "prior=uniform is one of one-hot vectors"),
        ("posterior=ladder posterior.top=20", "posterior.top=20"),
        ("prior=ladder prior.top=20", "prior.top=20"),
        ("beta_schedule=warmup epochs=2 beta_schedule.epochs=3", "beta_schedule.epochs=3"),
        ("beta_schedule=capacity epochs=2", "beta_schedule.epochs=5"),
        ("scheduler=cosine scheduler.warmup_epochs=20", "scheduler.warmup_epochs=20"),
        ("scheduler=plateau dataset.val_size=0", "scheduler=plateau"),
        ("patience=2 dataset.val_size=0", "patience=2"),
        ("optimizer=sgd optimizer.momentum=0 optimizer.nesterov=true", "optimizer.nesterov"),
        ("optimizer=rmsprop on_nonfinite=skip", "on_nonfinite=skip"),
        ("dataset=beta_pdf dataset.x_min=0.99 dataset.x_max=0.5", "dataset.x_min"),
        ("dataset=beta_pdf dataset.val_size=5000", "dataset.val_size=5000"),
        ("dataset=arrays dataset.train=a dataset.test=b dataset.test_size=1", "dataset.test_size"),
        ("dataset=arrays dataset.train=a.npy dataset.columns=[0]", "dataset.columns and .header"),
        ("dataset=arrays dataset.train=a.npy dataset.header=false", "dataset.columns and .header"),
        ("dataset=arrays dataset.train=a.csv dataset.key=x", "dataset.key=x"),
        (
            "dataset=arrays dataset.train=a dataset.layout=vector dataset.shape=[4]",
            "dataset.layout",
        ),
        ("dataset=image_folder dataset.path=a dataset.channels=2", "dataset.channels=2"),
    ],
)
def test_combinations_that_cannot_work_are_refused(make_config, overrides, names):
    with pytest.raises(UserError, match=re.escape(names)):
        make_config(*overrides.split())


def test_every_group_has_schemas_and_every_schema_builds_something():
    for group in GROUPS:
        schemas = [schema for (owner, _), schema in SCHEMAS.items() if owner == group]
        assert schemas
        for schema in schemas:
            assert issubclass(schema, Component)
            assert ":" in schema.builds


def test_a_schema_of_ones_own_is_checked_like_ours(plain):
    penalty = changed(plain, penalty__name="mine", penalty__strength=2)

    @register("penalty", "mine", builds="builtins:tuple")
    class Mine(Component):
        strength: float

    try:
        assert typed(penalty).penalty == Mine(name="mine", strength=2.0)
        with pytest.raises(UserError, match=r"penalty.strength=x"):
            typed(changed(penalty, penalty__strength="x"))
    finally:
        del SCHEMAS["penalty", "mine"]


def test_where_and_how_a_run_is_done_does_not_make_it_another(make_config):
    base = make_config("dataset=digits")
    same = make_config("dataset=digits", "device=cpu", "log_every=7")
    other = make_config("dataset=digits", "model.latent_dim=2")
    assert identity(base) == identity(same) != identity(other)
    assert differing(base, same) == {}
    assert differing(base, other) == {"model.latent_dim": (8, 2)}
    assert {"device", "log_every"} <= HOW_KEYS
    assert {"epochs", "patience"} <= CHANGEABLE - HOW_KEYS
    assert "beta" not in CHANGEABLE


def test_settings_are_flat_where_names_are_shown():
    assert flatten({"a": 1, "b": {"c": {"d": 2}}}) == {"a": 1, "b.c.d": 2}
    assert nearest("bta", ["beta", "seed"]) == " (did you mean beta?)"
    assert nearest("xyz", ["beta", "seed"]) == ""


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=iwae", "beta_schedule=capacity"],
        ["objective=beta_tcvae", "beta_schedule=capacity"],
        ["model=ae", "beta_schedule=capacity"],
        ["model=ae", "beta_schedule=warmup"],
        ["model=ae", "objective.free_bits=1"],
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(make_config, overrides):
    with pytest.raises(UserError, match=r"(beta_schedule|objective).*: use|; use "):
        make_config(*overrides)


def test_an_objective_names_its_own_monitor(make_config):
    assert make_config().monitored == "val/elbo"
    assert make_config("objective=iwae").monitored == "val/bound"
    assert make_config("objective=aae").monitored == "val/reconstruction"
    assert make_config("objective=iwae", "monitor=val/kl").monitored == "val/kl"
    with pytest.raises(UserError, match="monitor=val/bound: must be one of val/elbo"):
        make_config("monitor=val/bound")


@pytest.mark.parametrize(
    ("objective", "lacks", "words"),
    [
        ("iwae objective.gradient=stl", "stops", "objective.gradient=stl"),
        ("ciwae objective.gradient=dreg", "stops", "objective.gradient=dreg"),
        ("beta_tcvae", "factorised", "objective=beta_tcvae"),
        ("dip objective.kind=2", "factorised", "objective.kind=2"),
    ],
)
def test_an_objective_refuses_a_posterior_that_lacks_what_it_needs(
    make_config, objective, lacks, words
):
    config = make_config(*f"objective={objective}".split())
    assert not list(config.objective.problems(config))
    posterior = type("Lacking", (GaussianPosteriorConfig,), {lacks: False})(name="flow")
    (line,) = config.objective.problems(config.model_copy(update={"posterior": posterior}))
    assert line.startswith(words)
    assert "posterior=flow" in line
