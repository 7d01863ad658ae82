"""What every task gets and returns, and what several tasks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_cli.data.interface import Data, Split
from vae_cli.errors import UserError
from vae_cli.eval_config import EvalConfig
from vae_cli.figures.curves import CurveAxes
from vae_cli.files import replacing
from vae_cli.randomness import generator
from vae_cli.trained import TrainedRun


@dataclass
class Report:
    """What a task has to say: a short table, the files it wrote, and what to keep in mind."""

    rows: dict[str, str]
    files: list[Path]
    notes: list[str] = field(default_factory=list)


def seed_of(task: EvalConfig, run: TrainedRun) -> int:
    """The task's seed or, where it is null, the run's own."""
    return run.config.seed if task.seed is None else task.seed


def example(run: TrainedRun, data: Data, index: int, seed: int) -> Tensor:
    """A test example as the network takes it. -> [*shape]."""
    position = torch.tensor([index], device=data.test.x.device)
    source = generator(data.test.x.device, seed, "example", index)
    return data.prepare(data.test.x[position], source)[0].to(run.device)


def refuse_index(setting: str, index: int, split: Split) -> None:
    """Raise a UserError unless there is such a test example."""
    if not 0 <= index < len(split):
        raise UserError(
            f"{setting}={index}: no such test example; there are {len(split):,}, from 0 to"
            f" {len(split) - 1}"
        )


def curve_axes(data: Data) -> CurveAxes | None:
    """What curves are drawn over; None for images."""
    if data.curves is None:
        return None
    return CurveAxes(data.curves.grid.cpu(), data.curves.x_label, data.curves.y_label)


def shown(data: Data, x: Tensor) -> Tensor:
    """Values as they are drawn: curves that are logarithms by their exponentials."""
    return x.exp() if data.curves is not None and data.curves.logarithms else x


def write_npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write named arrays or tensors; the file is whole or not there. Returns the path."""
    plain = {
        name: item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
        for name, item in arrays.items()
    }
    with replacing(path) as file:
        np.savez_compressed(file, **plain)  # type: ignore[arg-type]  # names are ours
    return path
