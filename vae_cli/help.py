"""The text of `vae-train --help`, made from the YAML files and the schema. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vae_cli.config import GROUPS, Config
from vae_cli.rules import rule_of
from vae_cli.version import __version__

EXAMPLES = (
    ("vae-train", "the MLP-VAE on MNIST"),
    ("vae-train model=conv_vae beta=4", "a convolutional beta-VAE"),
    ("vae-train dataset=beta_pdf epochs=100", "a two-number code for a family of curves"),
    ("vae-train -m beta=1,2,4 seed=0,1", "a sweep: six runs, one after the other"),
    ("vae-train -m sweep=beta hydra.sweep.dir=DIR", "a preset's sweep; again: it goes on"),
    ("vae-train resume=outputs/DATE/TIME epochs=40", "go on with a run, to 40 epochs"),
)

HYDRA = (
    ("--cfg job --resolve", "show all settings that a command line gives, and do nothing else"),
    ("-m, --multirun", "run every combination of comma-separated values"),
    ("hydra/launcher=joblib", "with -m: several jobs at once (docs/scaling.md: clusters too)"),
    ("hydra/sweeper=optuna", "with -m: a search over ranges, key=interval(a,b)"),
    ("hydra.run.dir=DIR", "the run's folder (a sweep's: hydra.sweep.dir)"),
    ("--config-dir DIR", "more YAML files of your own, in the same groups"),
    ("--shell-completion install=bash", "complete keys and choices with Tab (--hydra-help: more)"),
    ("--version", "the versions of vae-train, torch and hydra"),
)


def help_text(configs: Path) -> str:
    """Groups with their choices, the top-level settings with a line each, and examples."""
    values: Any = OmegaConf.to_container(OmegaConf.load(configs / "config.yaml"))
    defaults = [entry for entry in values["defaults"] if isinstance(entry, dict)]
    chosen = {group: choice for entry in defaults for group, choice in entry.items()}
    parts = [
        f"vae-train {__version__}: train an autoencoder or a VAE.",
        "usage: vae-train [GROUP=CHOICE …] [KEY=VALUE …]",
        section("Groups (default first)", [(g, _choices(configs, g, chosen)) for g in _groups()]),
        section("Settings", _settings(values)),
        section("Examples", list(EXAMPLES)),
        section("Switches", list(HYDRA)),
        "Settings inside a group are written GROUP.KEY=VALUE, as in model.latent_dim=2\n"
        "or optimizer.lr=3e-4; `vae-train model=conv_vae --cfg job` lists them with their values.",
    ]
    return "\n\n".join(parts)


def _groups() -> tuple[str, ...]:
    return (*GROUPS, "experiment", "sweep")


def _choices(configs: Path, group: str, chosen: dict[str, str]) -> str:
    names = sorted(path.stem for path in (configs / group).glob("*.yaml"))
    default = chosen.get(group)
    return ", ".join(sorted(names, key=lambda name: (name != default, name)))


def _settings(values: dict[str, object]) -> list[tuple[str, str]]:
    rows = []
    for schema_field in dataclasses.fields(Config):
        if schema_field.name not in GROUPS:
            default = values[schema_field.name]
            shown = default if isinstance(default, str) else json.dumps(default)
            rows.append((f"{schema_field.name}={shown}", rule_of(schema_field).help))
    return rows


def section(title: str, rows: list[tuple[str, str]]) -> str:
    """A title and two columns, at most 100 characters wide."""
    width = max(len(left) for left, _ in rows) + 2
    lines = [title + ":"]
    for left, right in rows:
        wrapped = textwrap.wrap(right, 98 - width) or [""]
        lines.append(f"  {left:<{width}}{wrapped[0]}")
        lines += [" " * (width + 2) + more for more in wrapped[1:]]
    return "\n".join(lines)
