"""What vae-eval does with a trained run; some tasks have files of their own.

A task is a function of (settings, run, folder of the results) that returns a Report.
"""

import math
import re
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_cli.analysis import figures, measures, pictures, settings
from vae_cli.analysis.export import Report, drawn, measured, save_gif, write_npz
from vae_cli.analysis.samplers import find_class
from vae_cli.analysis.trained import TrainedRun, load_run
from vae_cli.console import UserError, say
from vae_cli.data.dataset import generator
from vae_cli.data.labels import find_example, first_two, labels_of, name_of
from vae_cli.runs.files import write_json
from vae_cli.runs.saved import read_summary
from vae_cli.training.evaluation import evaluate, log_likelihoods


def run_task(task: settings.EvalConfig, folder: Path) -> Report:
    """Do a task with the run in `folder`; results go to `eval/` in it, or to the folder task.out.

    Raises UserError for what the run cannot do, RunFailed for a result that is wrong.
    """
    run = load_run(folder, task.device)
    if problem := next(task.problems(run.config), None):
        raise UserError(problem)
    given: dict[str, Any] = {"seed": task.seed, "data_dir": task.data_dir}
    given["dataset"] = run.config.dataset.model_copy(update=task.dataset)
    run.config = run.config.model_copy(update={k: v for k, v in given.items() if v is not None})
    own = folder / "eval"
    if task.other_data:
        run.trained_on, own = None, own / "other_data"
    config = run.config
    say(f"{config.model.name} on {config.dataset.name}, epoch {run.epoch}, on {run.device}")
    out = own if task.out is None else Path(task.out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot be made: {error.strerror}; choose another") from error
    report: Report = task.build(run, out)
    return report


def metrics(task: settings.MetricsTask, run: TrainedRun, out: Path) -> Report:
    """Measure the test set as at the end of training, and what the codes hold: metrics.json."""
    config, data, codes, summary = run.config, run.data(), run.codes, read_summary(run.folder)
    # with the weight of the KL that the run's last update had
    steps = math.ceil(len(data.train) / config.batch_size)
    schedule = config.beta_schedule.build(config.beta, steps, config.epochs)
    last = int(summary.get("epochs", run.epoch)) * steps - 1
    beta, capacity = schedule.beta_at(last), schedule.capacity_at(last)
    evaluation = evaluate(run.vae, data, data.test, beta, config.seed, capacity)
    numbers, saved = evaluation.named("test"), summary.get("metrics", {})
    difference = max((abs(v - saved[k]) for k, v in numbers.items() if k in saved), default=None)
    known = ("mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl")
    information: dict[str, Any] = dict.fromkeys(known)
    bits, assumption = None, "a deterministic autoencoder has no p(x)"
    unknown = "a deterministic code has no density"
    if config.is_generative:
        bits, assumption = measures.bits_per_dimension(run.vae, data, config.seed)
        unknown = f"posterior={config.posterior.name} is no product over dimensions"
    if config.posterior.factorised:
        kl, count = evaluation.metrics["kl"], min(task.num_codes, len(codes.mean))
        if codes.kl is not None:
            kl = float(codes.kl[:count].double().sum(1).mean())
        source = generator(torch.device("cpu"), config.seed, "mutual information")
        parts = measures.information(codes.mean[:count], codes.stddev[:count], source)
        (value, error), (correlation, spread) = parts
        information = {
            "mutual_information": value,
            "mutual_information_standard_error": error,
            "mutual_information_bound": math.log(count),
            "mutual_information_codes": count,
            "marginal_kl": kl - value,  # Hoffman & Johnson 2016; its parts: Chen et al. 2018
            "total_correlation": correlation,
            "total_correlation_standard_error": spread,
            "dimension_wise_kl": kl - value - correlation if config.prior.factorised else None,
        }
    probe, labels, truth = None, data.train.labels, data.test.labels
    if labels is not None and truth is not None and len(labels.unique()) > 1:
        probe = measures.linear_probe(run.embed("train"), labels, codes, truth)
    lack = "" if probe else "the data has no labels, or a single class"
    # of the mean of all posteriors: the variance of the means plus the mean of the variances
    variance, moments = codes.mean.var(0, unbiased=False), config.posterior.has_moments
    variance += codes.stddev.square().mean(0)
    result = {
        **numbers,
        "summary_difference": difference,
        "kl_by_dimension": None if evaluation.kl is None else evaluation.kl.tolist(),
        **information,
        "aggregate_posterior": {
            "mean": codes.mean.mean(0).tolist() if moments else None,
            "variance": variance.tolist() if moments else None,
        },
        "bits_per_dimension": bits,
        "bits_per_dimension_note": assumption,
        "linear_probe": probe,
        "linear_probe_note": lack,
        "examples": len(codes.mean),
    }
    notes = {
        "numbers are nats per example where they have no other unit; test/elbo has beta = 1": True,
        "test/* are exactly those of summary.json": difference == 0,
        f"test/* differ from summary.json by up to {difference} nats": difference,
        f"no moments of the aggregate posterior: posterior={config.posterior.name} has a code of no"
        " noise in place of its mean": not moments,
        f"no mutual information: {unknown}": not config.posterior.factorised,
        f"no KL by dimension: {config.no_kl}": config.is_generative and evaluation.kl is None,
        f"{'no ' if bits is None else ''}bits per dimension: {assumption}": True,
        f"no linear classifier: {lack}": lack,
    }
    return measured(run, out / "metrics.json", result, notes)


def nll(task: settings.NLLTask, run: TrainedRun, out: Path) -> Report:
    """Estimate log p(x) of every example: the mean in nll_SPLIT.json, all of them in npz."""
    data, seed, started = run.data(), run.config.seed, perf_counter()
    split = data.split(task.split)
    index = torch.arange(len(split))
    if task.max_examples is not None:
        source = generator(torch.device("cpu"), seed, "nll examples")
        index = torch.randperm(len(split), generator=source)[: task.max_examples].sort().values
    order = None if task.max_examples is None else index.to(split.x.device)
    values, effective = log_likelihoods(run.vae, data, split, task.num_samples, seed, order)
    mean, error = measures.mean_and_error(values)
    note = run.vae.likelihood.note(data.binarize != "none") or ""
    result = {
        "split": task.split,
        "log_likelihood": mean,
        "standard_error": error,
        "num_samples": task.num_samples,
        "examples": len(index),
        "effective_samples_median": float(effective.median()),
        "seconds": perf_counter() - started,
        "notes": [note] if note else [],
    }
    path = out / f"nll_{task.split}.json"
    arrays = {"index": index, "log_likelihood": values, "effective_samples": effective}
    file = write_npz(path.with_suffix(".npz"), arrays)
    return measured(run, path, result, {note: note}, file)


def embed(task: settings.EmbedTask, run: TrainedRun, out: Path) -> Report:
    """Write the codes of every split: codes_train.npz, codes_val.npz, codes_test.npz."""
    report, data = Report({}, []), run.data()
    for name in ("train", "test") if data.val is None else ("train", "val", "test"):
        split, codes = data.split(name), run.embed(name)
        arrays: dict[str, Any] = {k: v for k, v in vars(codes).items() if v is not None}
        if split.labels is not None:
            arrays |= {"labels": split.labels, "class_names": list(data.class_names)}
        arrays |= {f"parameter_{k}": values for k, values in (split.parameters or {}).items()}
        report.rows[name] = f"{len(split):,} codes of {codes.mean.shape[1]} numbers"
        report.files.append(write_npz(out / f"codes_{name}.npz", arrays))
    return report


def draw(task: settings.FiguresTask, run: TrainedRun, out: Path) -> Report:
    """Draw again what the end of training drew, into figures/ of `out`."""
    paths = pictures.draw_all(run, out)
    return Report({"pictures": str(len(paths))}, paths)


def interpolate(task: settings.InterpolateTask, run: TrainedRun, out: Path) -> Report:
    """Walk from one test example to another: PNG, of images a GIF, npz with codes and values."""
    pairs, data = [("from", task.start), ("to", task.to)], run.data()
    asked = [find_example(data, key, end, task.by) for key, end in pairs if end is not None]
    ends = asked or first_two(data)
    walk, figure = pictures.walk_between(run, ends, task.steps)
    z, x, names = walk["z"][0], walk["x"][0], [name_of(data, index) for index in ends]
    rows = {k: f"test example {i} ({n})" for (k, _), i, n in zip(pairs, ends, names, strict=True)}
    rows["distance"] = f"{float((z[-1] - z[0]).norm()):.3f} between the codes"
    words = (re.sub(r"\W+", "-", end or name) for (_, end), name in zip(pairs, names, strict=True))
    path, arrays = out / "_".join(["interpolation", *words]), {"examples": ends, "names": names}
    report = drawn(run, path, {"z": z, "x": x, **arrays}, figure, rows)
    if run.has_images:
        report.files.append(path.with_suffix(".gif"))
        save_gif(x, report.files[-1])
    return report


def traverse(task: settings.TraverseTask, run: TrainedRun, out: Path) -> Report:
    """Vary one dimension at a time: traversals.png, and an npz of dims, values, origin and x."""
    origin, label = None, find_class(run, task.label)
    if task.example is not None:
        index = find_example(run.data(), "example", str(task.example), "index")
        own = labels_of(run.data(), index)
        origin = run.given(own).encode(run.examples([index])).mean[0]
        label = int(own) if label is None else label
    steps = (task.num_dims, task.steps, task.limit)
    walk, figure = pictures.walk_along(run, *steps, origin, label or 0)
    names = ", ".join(f"z{dim + 1}" for dim in walk["dims"].tolist())
    return drawn(run, out / "traversals", walk, figure, {"dimensions, most active first": names})


def fit(task: settings.FitTask, run: TrainedRun, out: Path) -> Report:
    """Find the code of a curve: fit.json (code, residual norm), fit.npz (the curves), fit.png.

    Of a conditional model in one class or, without a label, in the one that comes nearest.
    """
    (target, name), label, curves = _target(task, run), find_class(run, task.label), run.curves
    classes = range(max(1, run.vae.classes)) if label is None else [label]
    fits = [(run.given(c).fit(target, task.num_starts, run.config.seed), c) for c in classes]
    found, best = min(fits, key=lambda fit: fit[0].residual_norm)
    result = {"target": name, "residual_norm": found.residual_norm, "code": found.code.tolist()}
    result |= {"label": run.class_names[best]} if run.vae.classes else {}
    write_json(out / "fit.json", result)
    pair = torch.stack([target.double(), found.decoded])[None]
    title = f"The code nearest to {name}{pictures.of_class(run, best)}"
    figure = figures.sheet(pair, title, curves, columns=["target", "fit"])
    arrays = {"target": target, "code": found.code, "fitted": found.decoded}
    arrays |= {} if curves is None else {"grid": curves.grid}
    report = drawn(run, out / "fit", arrays, figure, {k: str(v) for k, v in result.items()})
    report.files.append(out / "fit.json")
    return report


def _target(task: settings.FitTask, run: TrainedRun) -> tuple[Tensor, str]:
    """Return the curve to fit [P] in the data's own units, and its name. Raises UserError."""
    if task.target is None:
        data = run.data()
        if not data.curves or not data.test.parameters or not task.alpha or not task.beta:
            raise UserError(f"alpha and beta: no curve of {data.name}; give target=FILE.npy")
        density = torch.distributions.Beta(task.alpha, task.beta)
        curve = density.log_prob(data.curves.grid.cpu())
        name = f"Beta({task.alpha:g}, {task.beta:g})"
        return (curve if data.curves.logarithms else curve.exp()), name
    path = Path(task.target).expanduser()
    try:
        array = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",")
        target = torch.from_numpy(array.astype(np.float32)).reshape(run.shape)
        if not target.isfinite().all():
            raise ValueError("NaN or infinite")
        return target, path.name
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"target={path}: not {run.shape[0]:,} numbers: {error}") from error
