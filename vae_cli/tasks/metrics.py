"""`task=metrics`: the test metrics measured again, and what the codes hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from vae_cli import analysis, build
from vae_cli.analysis import Probe
from vae_cli.data.interface import Data
from vae_cli.eval_config import MetricsTask
from vae_cli.evaluation import Codes, Evaluation, encode, evaluate
from vae_cli.files import write_json
from vae_cli.randomness import generator
from vae_cli.run import read_summary
from vae_cli.schema.models import Posterior as PosteriorKind
from vae_cli.state import steps_per_epoch
from vae_cli.tasks.interface import Report, seed_of
from vae_cli.trained import TrainedRun


def run(task: MetricsTask, run: TrainedRun, out: Path) -> Report:
    """Measure and write metrics.json."""
    data = run.data()
    seed = seed_of(task, run)
    summary = read_summary(run.folder)
    found = measure(run, data, summary, seed)
    codes = encode(run.vae, data, data.test, seed)
    result: dict[str, Any] = {f"test/{name}": number for name, number in found.metrics.items()}
    difference = _difference(result, summary.get("metrics", {}))
    result["summary_difference"] = difference
    result["test/active_units"] = found.active_units
    result["kl_by_dimension"] = found.kl.tolist()
    result |= _information(codes, found, task, seed)
    mean, variance = analysis.aggregate_moments(codes)
    result["aggregate_posterior"] = {"mean": mean.tolist(), "variance": variance.tolist()}
    bits, why = _bits(found, data, run)
    result |= {"bits_per_dimension": bits, "bits_per_dimension_note": why}
    probe, why_not = _probe(run, data, codes, seed)
    result["linear_probe"] = None if probe is None else vars(probe)
    result["linear_probe_note"] = why_not
    result |= {"epoch": run.epoch, "seed": seed, "examples": len(data.test)}
    path = out / "metrics.json"
    write_json(path, result)
    return Report(_rows(result, found, probe), [path], _notes(result, difference, probe))


def measure(run: TrainedRun, data: Data, summary: dict[str, Any], seed: int) -> Evaluation:
    """The test set with the weight of the KL that the run's last update was made with."""
    steps = steps_per_epoch(run.config, data)
    schedule = build.beta_schedule(run.config, steps)
    step = int(summary.get("epochs", run.epoch)) * steps - 1
    beta, capacity = schedule.at(step), schedule.capacity(step)
    return evaluate(run.vae, data, data.test, beta, seed, capacity)


def _difference(measured: dict[str, float], summary: dict[str, float]) -> float | None:
    """The largest difference from what summary.json says; None where it says nothing."""
    known = [abs(number - summary[name]) for name, number in measured.items() if name in summary]
    return max(known, default=None)


def _information(
    codes: Codes, found: Evaluation, task: MetricsTask, seed: int
) -> dict[str, float | int | None]:
    """I_q(x; z) and KL(q(z) || p(z)), which add up to the mean KL (Hoffman & Johnson 2016)."""
    if not bool((codes.stddev > 0).all()):
        return {"mutual_information": None, "marginal_kl": None}
    some = Codes(*(t[: task.num_codes] for t in (codes.mean, codes.stddev, codes.kl)))
    source = generator(torch.device("cpu"), seed, "mutual information")
    estimate = analysis.mutual_information(some, source)
    return {
        "mutual_information": estimate.value,
        "mutual_information_standard_error": estimate.standard_error,
        "mutual_information_bound": math.log(len(some.mean)),
        "mutual_information_codes": len(some.mean),
        "marginal_kl": float(some.kl.double().sum(1).mean()) - estimate.value,
    }


def _bits(found: Evaluation, data: Data, run: TrainedRun) -> tuple[float | None, str]:
    if run.config.model.posterior is PosteriorKind.point:
        return None, "a deterministic autoencoder has no p(x)"
    return analysis.bits_per_dimension(found.metrics["elbo"], data, run.vae.likelihood)


def _probe(run: TrainedRun, data: Data, test: Codes, seed: int) -> tuple[Probe | None, str]:
    labels, test_labels = data.train.labels, data.test.labels
    if labels is None or test_labels is None:
        return None, "the data has no labels"
    if len(labels.unique()) < 2:
        return None, "the training data has a single class"
    train = encode(run.vae, data, data.train, seed)
    return analysis.linear_probe(train, labels, test, test_labels), ""


def _rows(result: dict[str, Any], found: Evaluation, probe: Probe | None) -> dict[str, str]:
    rows = {f"test/{name}": f"{number:.3f}" for name, number in found.metrics.items()}
    rows["test/elbo"] += " nats (beta = 1)"
    rows["active units"] = f"{found.active_units} of {len(found.kl)}"
    if result["mutual_information"] is not None:
        rows["mutual information"] = (
            f"{result['mutual_information']:.3f} ±"
            f" {result['mutual_information_standard_error']:.3f} nats (at most"
            f" {result['mutual_information_bound']:.3f}, the logarithm of"
            f" {result['mutual_information_codes']:,} codes)"
        )
        rows["KL(q(z) || p(z))"] = f"{result['marginal_kl']:.3f} nats"
    moments = result["aggregate_posterior"]
    for name in ("mean", "variance"):
        low, high = min(moments[name]), max(moments[name])
        rows[f"aggregate {name}"] = f"{low:.3f} to {high:.3f} over the dimensions"
    if result["bits_per_dimension"] is not None:
        rows["bits per dimension"] = (
            f"at most {result['bits_per_dimension']:.4f} ({result['bits_per_dimension_note']})"
        )
    if probe is not None:
        rows["linear classifier"] = f"{probe.test_accuracy:.2%} of the test examples"
    return rows


def _notes(result: dict[str, Any], difference: float | None, probe: Probe | None) -> list[str]:
    notes = []
    if difference == 0:
        notes.append("test/* are exactly those of summary.json")
    elif difference is not None:
        notes.append(
            f"test/* differ from summary.json by up to {difference:.2g} nats: another device,"
            " number of threads, version or seed"
        )
    if result["mutual_information"] is None:
        notes.append("no mutual information: a deterministic code has no density")
    elif result["mutual_information"] > result["mutual_information_bound"] - 1:
        notes.append(
            "the mutual information is within 1 nat of what so many codes can show: the data's may"
            " be larger"
        )
    if result["bits_per_dimension"] is None:
        notes.append(f"no bits per dimension: {result['bits_per_dimension_note']}")
    if probe is None:
        notes.append(f"no linear classifier: {result['linear_probe_note']}")
    elif not probe.converged:
        notes.append("the linear classifier had not converged after its last iteration")
    return notes
