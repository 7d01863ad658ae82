"""Ours: the real command in a process of its own, measured by the files that it writes.

Three kinds of seconds in an epoch:
- the training pass alone: examples / `perf/examples_per_second` of metrics.jsonl;
- the whole epoch: the time from the first line of metrics.jsonl to the last, seen from outside the
  process, with all checkpoints, logging and progress;
- `perf/seconds`: the run's own count for an epoch, kept among the details.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, processes
from benchmarks.contenders.task import Task
from benchmarks.measurement import Measured
from benchmarks.workloads import MNIST_EXAMPLES, Work

# what is typed beside the work; these runs are too short for compile=auto. quiet: no logging beyond
# a line an epoch
EXTRA = {
    "ours": ("compile=true",),
    "ours, plain": ("compile=false",),
    "ours, quiet": ("compile=true", "log_every=1000000"),
}


def run(task: Task, extra: tuple[str, ...] = ()) -> Measured:
    """Train and measure, with `extra` settings beside the work's. Raises processes.Failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = (*overrides(task, folder), *extra)
        records, seen, ended = train(settings, folder / "run")
        summary = json.loads((folder / "run" / "summary.json").read_text())
    timed = records[1:]
    final = summary["metrics"]
    return Measured(
        task.work.examples,
        [task.work.examples / record["perf/examples_per_second"] for record in timed],
        whole_seconds=[(seen[-1] - seen[0]) / len(timed)],  # a mean: short epochs end between looks
        train_loss=timed[-1]["train/loss"],
        test_elbo=final["test/elbo"],
        peak_memory_mib=ended.peak_memory_mib,
        details={
            "perf/seconds": [record["perf/seconds"] for record in timed],
            "command_seconds": ended.seconds,
            # without the folders of this machine
            "settings": [t for t in settings if name not in t and not t.startswith("data_dir=")],
            "device": summary["device"],
        },
    )


def train(
    settings: tuple[str, ...], folder: Path, until: int | None = None
) -> tuple[list[dict[str, Any]], list[float], processes.Ended]:
    """Run vae-train.

    Returns the lines of metrics.jsonl, when each appeared (seconds from the start), and the
    process. until: the number of lines after which it is stopped. Raises processes.Failed.
    """
    metrics = folder / "metrics.jsonl"
    seen: list[float] = []
    started = time.time()

    def watch() -> bool:
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if lines > len(seen):
            seen.extend([metrics.stat().st_mtime - started] * (lines - len(seen)))
        return until is not None and lines >= until

    ended = processes.run(["-m", "vae_cli", *settings, f"hydra.run.dir={folder}"], watch)
    watch()
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    return records, seen, ended


def overrides(task: Task, folder: Path) -> list[str]:
    """Return the command line of this work, and write the arrays that it names into the folder."""
    work = task.work
    return [
        *_model(work),
        *_dataset(task, folder),
        f"optimizer.lr={work.lr}",
        f"batch_size={work.batch_size}",
        f"epochs={work.epochs}",
        f"precision={task.precision}",
        f"device={task.device}",
        f"seed={task.seed}",
        "figures=none",
    ]


def _model(work: Work) -> list[str]:
    widths = ",".join(map(str, work.widths))
    part = "hidden_sizes" if work.model == "mlp" else "channels"
    return [
        f"model={work.model}_vae",
        f"model.{part}=[{widths}]",
        f"model.latent_dim={work.latent_dim}",
        "model.output_bias=init",  # as the peers start, not at the mean of the data
    ]


def _dataset(task: Task, folder: Path) -> list[str]:
    """Choose MNIST itself where all of it is used, else write its images as arrays."""
    work = task.work
    if work.data == "mnist" and work.examples == MNIST_EXAMPLES:
        return ["dataset=mnist", "dataset.val_size=0", f"data_dir={task.data_dir}"]
    places = []
    for part, images in zip(("train", "test"), data.load(work, task.folder), strict=True):
        path = folder / f"{part}.npy"
        np.save(path, images)
        places.append(f"dataset.{part}={path}")
    arrays = ["dataset=arrays", "likelihood=bernoulli", "dataset.layout=chw"]
    return [*arrays, *places, "dataset.val_size=0"]
