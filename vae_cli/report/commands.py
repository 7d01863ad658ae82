"""Command lines that make a sweep again, a run again, and show it in TensorBoard."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vae_cli.report.reading import Unreadable, read_text, read_yaml
from vae_cli.report.runs import RunRecord
from vae_cli.report.sweep import Sweep
from vae_cli.report.text import printable


def sweep_command(sweep: Sweep) -> str:
    """The `vae-train -m …` that made the sweep; "" where the folders do not say."""
    if len(sweep.roots) != 1:
        return ""
    root = sweep.roots[0]
    path = root / "multirun.yaml"
    if not path.is_file():
        return ""
    try:
        given = read_yaml(read_text(path, root), path.name)["hydra"]["overrides"]
        overrides = [*given["hydra"], *given["task"]]
    except (Unreadable, TypeError, KeyError):
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
