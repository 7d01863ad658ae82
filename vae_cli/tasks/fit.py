"""`task=fit`: the code whose decoded curve is nearest to a given curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_cli import figures
from vae_cli.console import quoted
from vae_cli.data import beta_pdf
from vae_cli.data.interface import Data
from vae_cli.errors import UserError
from vae_cli.eval_config import FitTask
from vae_cli.files import write_json
from vae_cli.schema.datasets import BetaPDFConfig
from vae_cli.tasks.interface import Report, curve_axes, seed_of, shown, write_npz
from vae_cli.trained import TrainedRun


def run(task: FitTask, run: TrainedRun, out: Path) -> Report:
    """fit.json (codes and residual norms), fit.npz (the curves) and fit.png."""
    data = run.data()
    if len(data.shape) != 1:
        raise UserError(f"task=fit needs a run on curves, and dataset={data.name} holds images")
    target, label = _target(task, run, data)
    fit = run.fit(target, num_starts=task.num_starts, seed=seed_of(task, run))
    both = {"gradient": fit.gradient, "nelder_mead": fit.nelder_mead}
    result = {
        "target": label,
        "residual_norm": fit.best.residual_norm,
        "code": fit.best.code.tolist(),
    } | {
        name: {"code": match.code.tolist(), "residual_norm": match.residual_norm}
        for name, match in both.items()
    }
    path, picture = out / "fit.json", out / "fit.png"
    write_json(path, result)
    arrays = {"target": target, "code": fit.best.code, "fitted": fit.best.decoded}
    if data.curves is not None:
        arrays["grid"] = data.curves.grid
    drawn = figures.curve_fit(
        shown(data, target), shown(data, fit.best.decoded), curve_axes(data), target_label=label
    )
    figures.save_png(drawn, picture)
    unit = "logarithms" if data.curves is not None and data.curves.logarithms else "values"
    rows = {"target": label} | {
        f"{name.replace('_', '-')}": f"||target - decoded|| = {match.residual_norm:.6g}"
        f" (of {unit}) at z = ({', '.join(f'{c:.4f}' for c in match.code.tolist())})"
        for name, match in both.items()
    }
    return Report(rows, [path, picture, write_npz(out / "fit.npz", arrays)])


def _target(task: FitTask, run: TrainedRun, data: Data) -> tuple[Tensor, str]:
    """The curve to fit, in the data's own units, and its name. -> [P]."""
    if task.target is not None:
        path = Path(task.target).expanduser()
        values = read_curve(path)
        if tuple(values.shape) != data.shape:
            raise UserError(
                f"target={quoted(path)}: holds {values.numel():,} numbers of shape"
                f" {list(values.shape)} and must hold {data.shape[0]:,}, one a point of the grid"
            )
        return values, path.name
    dataset = run.config.dataset
    if not isinstance(dataset, BetaPDFConfig):
        raise UserError(
            f"alpha and beta describe curves of dataset=beta_pdf, not of {data.name}; give the"
            " curve's values with target=FILE.npy"
        )
    assert data.curves is not None
    a, b = torch.tensor([task.alpha]), torch.tensor([task.beta])
    curve = beta_pdf.curves(a, b, data.curves.grid.cpu(), dataset.quantity)[0]
    return curve, f"Beta({task.alpha:g}, {task.beta:g})"


def read_curve(path: Path) -> Tensor:
    """Numbers from a .npy or .csv file (a row or a column of them). Raises UserError."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            array = np.loadtxt(path, delimiter=",", ndmin=1)
        else:
            raise UserError(f"target={quoted(path)}: must be a .npy or .csv file")
        values = torch.from_numpy(np.asarray(array, dtype=np.float32)).squeeze()
    except (OSError, ValueError) as error:
        raise UserError(f"target={quoted(path)}: cannot be read: {error}") from error
    if not bool(values.isfinite().all()):
        raise UserError(f"target={quoted(path)}: holds NaN or infinite values")
    return values
