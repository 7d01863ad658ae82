"""One run shared by several processes: the first does all that one alone does, the others follow.

Imports torch only where there are several.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vae_cli.config import Config
from vae_cli.errors import UserError
from vae_cli.jobs import FAILED, Train
from vae_cli.schema.losses import CapacityBetaConfig, ElboConfig

if TYPE_CHECKING:
    from vae_cli.distributed import Ranks


def several() -> bool:
    """Whether torchrun, or what does its work, started this process as one of several."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdecimal() and int(size) > 1


def run(argv: Sequence[str], answer: Callable[[Sequence[str], Train, int], int], job: Train) -> int:
    """Do what the command line says and return the exit code.

    answer: does so with a way to do a run, and how many processes share it. job: does a run.
    Raises UserError where the other processes cannot be joined.
    """
    from vae_cli import distributed  # imports torch

    sent = False

    def lead(config: Config, folder: Path, keep: bool, swept: Sequence[str] = ()) -> int:
        nonlocal sent
        if not config.dry_run:
            ranks.send(config)
            sent = True
        return job(config, folder, keep, swept)

    with distributed.group() as ranks:
        if not ranks.first:
            return _follow(ranks, job)
        code = FAILED
        try:
            code = answer(argv, lead, ranks.size)
        finally:
            if not sent:
                ranks.send(code)
            ranks.done()
        return code


def _follow(ranks: Ranks, job: Train) -> int:
    """Compute with the first process, in a folder that is removed.

    What the first process says suffices while nothing goes wrong here.
    """
    config = ranks.receive()
    if isinstance(config, int):
        return config
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        code = job(config, Path(folder), True, ())
    if code and not ranks.leave(said.getvalue()):
        # the first process repeats the report, if it is still there
        print(f"process {ranks.rank} of {ranks.size} has ended", file=sys.stderr)
    return code


def refuse(config: Config, processes: int) -> None:
    """Refuse what so many processes cannot compute from parts of a batch. Raises UserError."""
    if processes == 1:
        return
    objective, likelihood = config.objective, config.likelihood
    of_the_batch = {
        f"objective={objective.name}": objective.name == "beta_tcvae",
        "objective.free_bits": isinstance(objective, ElboConfig) and objective.free_bits > 0,
        f"likelihood={likelihood.name}": likelihood.name == "gaussian_optimal",
        "beta_schedule=capacity": isinstance(config.beta_schedule, CapacityBetaConfig),
    }
    for setting, whole in of_the_batch.items():
        if whole:
            raise UserError(
                f"{setting}: needs each batch whole, and here {processes} processes share it;"
                " leave it out, or train with one process"
            )
    if config.batch_size < processes:
        raise UserError(
            f"batch_size={config.batch_size}: {processes} processes share a batch (it is that of"
            " all together), so give at least as many"
        )
    if config.device.startswith(("cuda:", "mps")):
        raise UserError(
            f"device={config.device}: {processes} processes cannot share it; use device=cuda (a"
            " GPU each) or cpu"
        )
