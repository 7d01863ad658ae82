"""Which tasks a run can do; every task has a schema, a YAML file and a function."""

import importlib
import inspect

import pytest

from vae_cli.config.compose import config_dir

from .conftest import task_of

NAMES = sorted(path.stem for path in (config_dir() / "task").glob("*.yaml"))
DIGITS, AE, CURVES = ("dataset=digits",), ("dataset=digits", "model=ae"), ("dataset=beta_pdf",)


@pytest.mark.parametrize("name", NAMES)
def test_every_task_has_values_and_a_function_of_three(name):
    module, _, function = task_of(f"task={name}").builds.partition(":")
    does = getattr(importlib.import_module(module), function)
    assert list(inspect.signature(does).parameters) == ["task", "run", "out"]


@pytest.mark.parametrize(
    ("overrides", "run", "words"),
    [
        (("task=nll",), AE, "task=nll"),
        (("task=sample",), AE, "task=sample"),
        (("task=quality",), CURVES, "holds curves"),
        (("task=fit", "alpha=1", "beta=2", "+dataset.nowhere=a"), CURVES, "dataset.nowhere"),
        (("task=traverse",), (*DIGITS, "posterior=categorical"), "task=traverse"),
        (("task=fit", "alpha=1", "beta=2"), DIGITS, "task=fit"),
        (("task=fit", "alpha=1"), CURVES, "alpha"),
        (("task=fit", "alpha=1", "beta=2", "target=a.npy"), CURVES, "target="),
    ],
)
def test_tasks_that_a_run_cannot_do(overrides, run, words, make_config):
    (problem,) = task_of(*overrides).problems(make_config(*run))
    assert words in problem
