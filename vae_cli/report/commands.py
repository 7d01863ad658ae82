"""Command lines that make a sweep again, a run again, and show it in TensorBoard."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from vae_cli.report.runs import LARGEST, RunRecord, leads_out
from vae_cli.report.sweep import Sweep
from vae_cli.report.text import printable


def sweep_command(sweep: Sweep) -> str:
    """The `vae-train -m …` that made the sweep; "" where the folders do not say."""
    if len(sweep.roots) != 1:
        return ""
    path = sweep.roots[0] / "multirun.yaml"
    try:
        if leads_out(path, sweep.roots[0]) or path.stat().st_size > LARGEST:
            return ""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["hydra"]["overrides"]
        overrides = [*given["hydra"], *given["task"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
        return ""
    internal = ("hydra.mode=", "hydra.sweep.dir=", "hydra.run.dir=")
    wanted = [str(o) for o in overrides if not str(o).startswith(internal)]
    return _line(["vae-train", "-m", *wanted])


def run_command(run: RunRecord) -> str:
    """The `vae-train …` that makes a run again; "" where the folder does not say."""
    return _line(["vae-train", *run.overrides]) if run.overrides else ""


def tensorboard_command(sweep: Sweep) -> str:
    """TensorBoard over all runs; of several folders, the one that holds them all."""
    return _line(["tensorboard", "--logdir", str(common_folder(sweep.roots))])


def common_folder(roots: Sequence[Path]) -> Path:
    """The folder itself or, of several, the nearest one above all."""
    if len(roots) == 1:
        return roots[0]
    parts = [root.resolve() for root in roots]
    return next(p for p in (parts[0], *parts[0].parents) if all(r.is_relative_to(p) for r in parts))


def _line(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(printable(word)) for word in words)
