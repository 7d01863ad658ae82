"""From a command line of `vae-eval` to checked settings and the run that they are about.

A mistake is one line, a UserError, before any work. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_cli import planning, resuming
from vae_cli.checking import explain_value_error, nearest, problems, typed
from vae_cli.config import Config
from vae_cli.errors import UserError
from vae_cli.eval_config import TASKS, EvalConfig, FitTask, key_of
from vae_cli.rules import rule_of
from vae_cli.schema.models import Posterior

LATEST = "latest"


@dataclass(frozen=True)
class Plan:
    """What a command line asks for, checked."""

    task: EvalConfig
    folder: Path  # the run
    config: Config  # the run's settings
    out: Path  # where results go


def plan(overrides: Sequence[str]) -> Plan:
    """Check the settings, find the run, and check that the two fit. Raises UserError."""
    task = settings(overrides)
    folder = find_run(task)
    resuming.refuse_links_out(folder)
    config = typed(resuming.saved_config(folder))
    problem = next(_misfits(task, config), None)
    if problem:
        raise UserError(problem)
    out = folder / "eval" if task.out is None else Path(task.out).expanduser()
    return Plan(task, folder, config, out)


# ---------------------------------------------------------------------------------- the settings


def settings(overrides: Sequence[str]) -> EvalConfig:
    """The typed settings of the task that these `KEY=VALUE` texts name. Raises UserError."""
    name = ([o for o in overrides if o.startswith("task=")] or ["task=metrics"])[-1][5:]
    schema = TASKS.get(name)
    if schema is None:
        raise UserError(
            f"task={name}: no such task{nearest(name, TASKS)}; there are {', '.join(TASKS)}"
        )
    texts = [_quoted(text, schema) for text in overrides]
    for text, override in zip(overrides, planning.parse_overrides(texts), strict=True):
        _check_key(text, override.key_or_group, schema)
        if text[0] in "+~":
            raise UserError(f"{text}: write KEY=VALUE; nothing can be added or left out")
        if override.is_sweep_override():
            raise UserError(f"{text}: several values; vae-eval takes one a setting")
    plain = OmegaConf.to_container(planning.composed("eval", texts))
    assert isinstance(plain, dict)
    values = {str(key): item for key, item in plain.items()}
    return _typed(values, schema, overrides)


def _typed(
    values: dict[str, Any], schema: type[EvalConfig], overrides: Sequence[str]
) -> EvalConfig:
    by_field = {}
    for field in dataclasses.fields(schema):
        key = key_of(field)
        if values.get(key, "???") == "???":
            raise UserError(f"{key} is missing: give {key}=…, {rule_of(field).help}")
        by_field[field.name] = values[key]
    try:
        task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), by_field))
    except OmegaConfBaseException as error:
        key, _, rest = explain_value_error(error).partition(":")
        line = f"{key.rstrip('_')}:{rest}"
        raise UserError(planning.with_value(line, list(overrides))) from error
    assert isinstance(task, EvalConfig)
    problem = next(problems(task), None) or next(_impossible(task), None)
    if problem:
        raise UserError(problem)
    return task


def _quoted(text: str, schema: type[EvalConfig]) -> str:
    """`run=a,b=c` as `run='a,b=c'`: the folder of a sweep's run has characters with a meaning."""
    key, equals, given = text.partition("=")
    hints = typing.get_type_hints(schema)
    strings = {key_of(f) for f in dataclasses.fields(schema) if hints[f.name] in (str, str | None)}
    if not equals or key not in strings - {"task"} or given == "null" or given[:1] in ("'", '"'):
        return text
    return f"{key}={resuming.quoted(given)}"


def _check_key(text: str, key: str, schema: type[EvalConfig]) -> None:
    names = [key_of(field) for field in dataclasses.fields(schema)]
    if key in names:
        return
    owners = [
        name for name, other in TASKS.items() if key in map(key_of, dataclasses.fields(other))
    ]
    if owners:
        raise UserError(f"{text}: a setting of task={' and task='.join(owners)}, not of this task")
    close = nearest(key, names) or f"; settings are {', '.join(names)}"
    raise UserError(f"{text}: no such setting{close}")


def _impossible(task: EvalConfig) -> Iterator[str]:
    """Settings that do not go together."""
    if isinstance(task, FitTask):
        pair = (task.alpha is not None) + (task.beta is not None)
        if task.target is not None and pair:
            yield f"target={task.target}: give a file or alpha and beta, not both"
        if task.target is None and pair != 2:
            yield "task=fit needs a curve: give alpha=… and beta=…, or target=FILE.npy"


def _misfits(task: EvalConfig, config: Config) -> Iterator[str]:
    """Tasks that this run's model or data cannot do."""
    if task.needs_posterior and config.model.posterior is Posterior.point:
        yield (
            f"task={task.task} cannot be done with model={config.model.name}, a deterministic"
            f" autoencoder: {task.needs_posterior}; train model=mlp_vae or another VAE"
        )
    if task.needs_curves and config.dataset.kind == "image":
        yield (
            f"task={task.task} needs a run on curves, and dataset={config.dataset.name} holds"
            " images; train on dataset=beta_pdf, for one"
        )


# --------------------------------------------------------------------------------------- the run


def find_run(task: EvalConfig) -> Path:
    """The folder of `run=…`. Raises UserError where there is none."""
    if task.run == LATEST:
        return latest_run(task.outputs)
    folder = Path(task.run).expanduser()
    try:
        if not folder.is_dir():
            raise UserError(f"run={task.run}: no such folder")
    except OSError as error:
        raise UserError(f"run={task.run}: cannot be read: {error.strerror}") from error
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={task.run}: not a run folder (it has no config.yaml)")
    return folder


def latest_run(outputs: str | Path) -> Path:
    """The run under a folder that was completed last, sweeps included. Raises UserError."""
    outputs = Path(outputs).expanduser()
    if not outputs.is_dir():
        raise UserError(f"outputs={outputs}: no such folder; give run=DIR or outputs=DIR")
    found = [
        (finished, path.stat().st_mtime_ns, path.parent)
        for path in outputs.rglob("summary.json")
        if (finished := _finished(path)) is not None
    ]
    if not found:
        raise UserError(f"run=latest: no completed run under {outputs}; give run=DIR")
    return max(found)[2]


def _finished(path: Path) -> datetime | None:
    """When the run of a summary.json was completed; None if it was not, or is not a run."""
    try:
        summary = json.loads(path.read_text())
        if summary["status"] != "completed" or not (path.parent / "config.yaml").is_file():
            return None
        return datetime.fromisoformat(summary["finished"])
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not a summary of ours, or being written
