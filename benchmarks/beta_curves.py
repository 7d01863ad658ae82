"""Beta curves: the preset's seconds to the published total, against the tutorial's own loop."""

import tempfile
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import ours, processes
from benchmarks.contenders.task import Task
from benchmarks.measurement import Measured, spread
from benchmarks.workloads import MLP

PUBLISHED = 35_434.2  # squared error + KL over the training set in the tutorial's epoch 100
CURVES, EPOCHS = 5_000, 100
SEEDS = range(5)


def measure(quick: bool, data_dir: Path, device: str) -> dict[str, Any]:
    """Run the preset once for each seed, each time after a part of the tutorial's epoch."""
    task = Task(MLP, str(data_dir), device, limit=200 if quick else 500)
    runs, loops = [], []
    for seed in SEEDS[:1] if quick else SEEDS:
        printed = processes.run(
            ["-m", "benchmarks.contenders", "beta", replace(task, seed=seed).to_json()]
        )
        loops.append(Measured(**processes.result(printed)))
        runs.append(preset(seed, device))
    return summarised(runs, loops)


def preset(seed: int, device: str) -> dict[str, Any]:
    """Run experiment=beta_pdf compiled, with its logging and its pictures while training.

    The first epoch has the seconds of compiling: later seeds find the program in the user's cache.
    """
    settings = ("experiment=beta_pdf", f"seed={seed}", f"device={device}", "compile=true")
    with tempfile.TemporaryDirectory() as name:
        records, seen, _ = ours.train((*settings, "figures=none"), Path(name) / "run")
    first = seen[0] - records[0]["perf/seconds"]
    return {
        "totals": [CURVES * (r["train/reconstruction"] + r["train/kl"]) for r in records],
        "pass_seconds": [CURVES / r["perf/examples_per_second"] for r in records],
        "whole_seconds": [at - first for at in seen],  # since the first step, everything in it
    }


def reached(run: dict[str, Any], seconds: list[float], target: float = PUBLISHED) -> float | None:
    """Return the seconds of the first epoch whose total is at most the target, or None."""
    hits = (at for at, total in zip(seconds, run["totals"], strict=True) if total <= target)
    return next(hits, None)


def summarised(runs: list[dict[str, Any]], loops: list[Measured]) -> dict[str, Any]:
    """Take means over the seeds, and extrapolate the tutorial's 100 epochs from its timed steps.

    The mean of the totals in an epoch has to reach the target: a mean of the seeds' times would
    leave out the seeds that never reach it.
    """
    totals = [mean(epoch) for epoch in zip(*(r["totals"] for r in runs), strict=True)]
    passes = [mean(e) for e in zip(*(r["pass_seconds"] for r in runs), strict=True)]
    whole = [mean(e) for e in zip(*(r["whole_seconds"] for r in runs), strict=True)]
    average = {"totals": totals}
    loop = spread([EPOCHS * CURVES / found.examples_per_second for found in loops])
    ratio = spread(
        [
            EPOCHS * CURVES / found.examples_per_second / sum(run["pass_seconds"])
            for run, found in zip(runs, loops, strict=True)
        ]
    )
    return {
        "seeds": len(runs),
        "published_total": PUBLISHED,
        "mean_total": totals[-1],
        "final_totals": [run["totals"][-1] for run in runs],
        "reached_pass_seconds": reached(average, list(accumulate(passes))),
        "reached_whole_seconds": reached(average, whole),
        "pass_seconds": vars(spread([sum(run["pass_seconds"]) for run in runs])),
        "whole_seconds": vars(spread([run["whole_seconds"][-1] for run in runs])),
        "tutorial_seconds_extrapolated": vars(loop),
        "tutorial_steps_timed": loops[0].examples,
        "ratio": vars(ratio),
    }
