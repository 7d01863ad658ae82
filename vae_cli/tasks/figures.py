"""`task=figures`: all pictures of a run, drawn again."""

from __future__ import annotations

from pathlib import Path

from vae_cli import gallery
from vae_cli.eval_config import FiguresTask
from vae_cli.tasks.interface import Report
from vae_cli.trained import TrainedRun


def run(task: FiguresTask, run: TrainedRun, out: Path) -> Report:
    """What the end of training drew into the run's figures/, now in figures/ of `out`."""
    drawn = gallery.draw(run.vae, run.data(), run.config, run.folder, into=out)
    return Report({"pictures": f"{len(drawn)}"}, drawn)
