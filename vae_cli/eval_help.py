"""The text of `vae-eval --help`, made from the YAML files and the schema. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vae_cli.eval_config import TASKS, EvalConfig, key_of
from vae_cli.help import section
from vae_cli.rules import rule_of
from vae_cli.version import __version__

EXAMPLES = (
    ("vae-eval run=latest", "the newest completed run's test metrics, and more"),
    ("vae-eval run=DIR task=nll num_samples=1000", "log p(x) by importance sampling"),
    ("vae-eval run=DIR task=interpolate from=3 to=8", "from a 3 to an 8"),
    ("vae-eval run=DIR task=fit alpha=1.79 beta=4.17", "the code of a given Beta density"),
    ("vae-eval run=DIR task=export format=onnx", "encoder and decoder for other programs"),
)

SWITCHES = (
    ("--cfg job", "show all settings that a command line gives, and do nothing else"),
    ("--version", "the versions of vae-eval, torch and hydra"),
)


def help_text(configs: Path) -> str:
    """The tasks with a line each, their settings, the common settings, and examples."""
    common = _values(configs / "eval.yaml")
    own = {f.name for f in dataclasses.fields(EvalConfig)}
    parts = [
        f"vae-eval {__version__}: measure, draw and export what vae-train has trained.",
        "usage: vae-eval run=DIR [task=TASK] [KEY=VALUE …]",
        section("Tasks (default first)", [(name, task.about) for name, task in TASKS.items()]),
        section("Settings of every task", _rows(EvalConfig, common, leave_out={"task"})),
    ]
    for name, schema in TASKS.items():
        rows = _rows(schema, _values(configs / "task" / f"{name}.yaml"), leave_out=own)
        if rows:
            parts.append(section(f"Settings of task={name}", rows))
    parts += [section("Examples", list(EXAMPLES)), section("Switches", list(SWITCHES))]
    return "\n\n".join(parts)


def _values(path: Path) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(plain, dict)
    return {str(key): item for key, item in plain.items()}


def _rows(
    schema: type[EvalConfig], values: dict[str, Any], leave_out: set[str]
) -> list[tuple[str, str]]:
    rows = []
    for field in dataclasses.fields(schema):
        if field.name in leave_out:
            continue
        default = values[key_of(field)]
        plain = default if isinstance(default, str) else json.dumps(default)
        text = f"{key_of(field)}={'…' if plain == '???' else plain}"
        rows.append((text, rule_of(field).help))
    return rows
