"""`task=nll`: the importance-weighted log-likelihood of a split."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from tqdm import tqdm

from vae_cli import analysis
from vae_cli.data.interface import Data
from vae_cli.errors import UserError
from vae_cli.eval_config import NLLTask
from vae_cli.files import write_json
from vae_cli.likelihoods import Bernoulli, SquaredError
from vae_cli.randomness import generator
from vae_cli.schema.datasets import Binarize
from vae_cli.tasks.interface import Report, seed_of, write_npz
from vae_cli.trained import TrainedRun

BATCH = 250  # examples read, prepared and shown in the bar at a time


def run(task: NLLTask, run: TrainedRun, out: Path) -> Report:
    """Estimate log p(x) of every example; write the mean to JSON, all of them to npz."""
    data = run.data()
    split = getattr(data, task.split.value)
    if split is None:
        raise UserError("split=val: the run has no validation data (dataset.val_size=0)")
    seed = seed_of(task, run)
    index = torch.arange(len(split))
    if task.max_examples is not None and task.max_examples < len(split):
        source = generator(torch.device("cpu"), seed, "nll examples")
        index = torch.randperm(len(split), generator=source)[: task.max_examples].sort().values
    started = time.perf_counter()
    noise = generator(run.device, seed, "nll")
    parts = []
    total = len(index) * task.num_samples
    with tqdm(total=total, unit=" codes", unit_scale=True, disable=None, leave=False) as bar:
        for raw in split.batches(index.to(split.x.device), BATCH):
            x = data.prepare(raw, noise).to(run.device)
            parts.append(
                analysis.log_likelihood(run.vae, x, task.num_samples, noise, advance=bar.update)
            )
    seconds = time.perf_counter() - started
    values = torch.cat([part.values for part in parts])
    effective = torch.cat([part.effective_samples for part in parts])
    estimate = analysis.mean_and_error(values)
    notes = _notes(data, run)
    result = {
        "split": task.split.value,
        "log_likelihood": estimate.value,
        "standard_error": estimate.standard_error,
        "num_samples": task.num_samples,
        "examples": len(index),
        "effective_samples_median": float(effective.median()),
        "seconds": seconds,
        "seed": seed,
        "epoch": run.epoch,
        "notes": notes,
    }
    json_path = out / f"nll_{task.split.value}.json"
    write_json(json_path, result)
    arrays = {"index": index, "log_likelihood": values, "effective_samples": effective}
    rows = {
        f"{task.split.value} log p(x)": (
            f"{estimate.value:.3f} ± {estimate.standard_error:.3f} nats"
            f" (standard error over {len(index):,} examples)"
        ),
        "codes an example": f"{task.num_samples:,}, of which {float(effective.median()):,.0f} are"
        " effective in the median example",
        "seconds": f"{seconds:.1f}",
    }
    return Report(rows, [json_path, write_npz(json_path.with_suffix(".npz"), arrays)], notes)


def _notes(data: Data, run: TrainedRun) -> list[str]:
    """Why the number may not be a likelihood."""
    likelihood = run.vae.likelihood
    if isinstance(likelihood, SquaredError):
        return ["squared_error is not normalised: compare with the same likelihood only"]
    if isinstance(likelihood, Bernoulli) and data.binarize is Binarize.none:
        return ["grey values under bernoulli: a bound on a loss, not a likelihood of the data"]
    return []
