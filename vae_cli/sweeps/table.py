"""Run folders as one table: what varied, means over seeds, the best, the Pareto front. No torch."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any, cast

from pandas import DataFrame

from vae_cli.config.check import HOW_KEYS, flatten, higher_is_better, nearest
from vae_cli.config.registry import SCHEMAS
from vae_cli.console import UserError
from vae_cli.runs import resume, saved
from vae_cli.runs.saved import SavedRun
from vae_cli.sweeps.plan import given_keys, short_names

Cells = dict[str, float | int | str]  # flat settings
PRESET = "experiment"  # a config group without a node: only a command line names its choice
SEED = "seed"  # runs that differ in nothing else are one group
RATE, DISTORTION, ACTIVE = "test/kl", "test/reconstruction", "test/active_units"
NLL = "test/nll"  # of runs whose nll_samples is not 0: compares runs of any objective
# the loss is left out of tables: with another beta it is another quantity
TEST_METRICS = (NLL, "test/bound", "test/elbo", DISTORTION, RATE, ACTIVE)
# between values of these, nats cannot be compared
DENSITIES = ("dataset.name", "dataset.binarize", "likelihood.name")


@dataclass(frozen=True)
class Comparison:
    """Runs, and groups of those that differ in nothing but the seed, the best first."""

    folders: Sequence[Path]
    saved: list[SavedRun]
    overrides: list[list[str]]  # what each run was started with
    skipped: list[str]  # lines about folders that cannot be read
    swept: dict[str, str]  # the settings that vary, with short names
    metric: str  # decides the order
    runs: DataFrame  # a row a run, as `load_sweep` returns them
    groups: DataFrame  # a row a group: what varied, runs, completed, front (of Pareto)
    means: DataFrame  # a row a group, a column a metric: over completed runs, or NaN
    stds: DataFrame  # of samples (n - 1)

    @property
    def monitors(self) -> set[str]:
        """The metrics that decided the best epochs of the runs."""
        return {*map(monitored, self.saved)}

    @property
    def weighs(self) -> list[str]:
        """The settings that vary and make the metric, a loss, another quantity in each run."""
        parts = ("beta", "objective.", "penalty.", "posterior.commitment")
        is_loss = self.metric.endswith("loss")
        return [key for key in self.swept if is_loss and key.startswith(parts)]

    @property
    def has_best(self) -> bool:
        """Whether the first group is the best one: nats of all have one dataset and likelihood."""
        kinds = {run.settings.get("nll_samples") for run in self.saved}  # each is another bound
        one_kind = len(kinds if self.metric == NLL else self.monitors) == 1
        comparable = not {*self.swept} & {*DENSITIES} and one_kind and not self.weighs
        return comparable and not math.isnan(self.means[self.metric][0])

    def label(self, row: Mapping[str, Any], keys: Iterable[str]) -> str:
        """Settings of a row of `groups` or `runs` in words: 'beta=0.5, latent_dim=8'."""
        values = {key: text(row[key]) for key in keys}
        return ", ".join(f"{self.swept.get(k, k)}={v}" for k, v in values.items() if v)

    def notes(self) -> list[str]:
        """What the signs in the table mean, and what a reader must know."""
        names = {str((run.settings.get("posterior") or {}).get("name")) for run in self.saved}
        kinds = {getattr(SCHEMAS.get(("posterior", name)), "has_density", True) for name in names}
        several, selected = {*self.swept} & {*DENSITIES}, len(self.monitors) > 1
        other = f"runs chose their best epoch by different metrics: compare by {NLL}"
        notes = {
            "mean ± sample standard deviation over seeds": (self.groups["completed"] > 1).any(),
            "* on the Pareto front of KL and reconstruction": self.groups["front"].any(),
            "nats of different datasets or likelihoods cannot be compared": several,
            f"losses with another {', '.join(self.weighs)} cannot be compared": self.weighs,
            other + ", as here": selected and self.metric == NLL,
            other + " (give them nll_samples=100)": selected and self.metric != NLL,
            "an autoencoder has no KL: its elbo is its reconstruction alone": len(kinds) > 1,
        }
        return [note for note, holds in notes.items() if holds]


def load_sweep(*folders: str | Path) -> DataFrame:
    """All runs in or below the folders, as a table with a row for each. Raises UserError.

    Columns: the settings that vary, the seed, metrics (of an unfinished run those of its last
    epoch), epochs, seconds, status, error, folder, and `group`, best first, of equal settings.
    """
    return compare([Path(folder).expanduser() for folder in folders]).runs


def compare(folders: Sequence[Path], metric: str | None = None) -> Comparison:
    """Compare all runs in or below folders by a metric, or by their `monitor`. Raises UserError."""
    found, skipped = _collect(folders)
    settings, results = [cells(*run) for run in found], [_results(run) for run, _ in found]
    given = given_keys(text for _, texts in found for text in texts)
    swept = [key for key in varied(settings, given) if key != SEED]
    metrics = sorted({key for result in results for key in result if "/" in key})
    metrics = list(dict.fromkeys([*(m for m in TEST_METRICS if m in metrics), *metrics]))
    done = [NLL in result for result in results if result["status"] == "completed"]
    chosen = _deciding(metric, metrics, [run for run, _ in found], bool(done) and all(done))
    last = ["epochs", "seconds", "status", "error", "folder"]
    columns = [*dict.fromkeys([*swept, SEED, *metrics, *last])]  # epochs may be swept
    runs = DataFrame([r | v for r, v in zip(results, settings, strict=True)], columns=columns)
    if len(folders) == 1:
        runs["folder"] = [str(run.folder.relative_to(folders[0])) for run, _ in found]

    runs["group"] = runs.groupby(swept, dropna=False, sort=False).ngroup() if swept else 0
    groups = runs.drop_duplicates("group").set_index("group")[swept]
    numbers = list(dict.fromkeys([*TEST_METRICS, *metrics, chosen, "seconds"]))
    completed = runs[runs["status"] == "completed"].reindex(columns=["group", *numbers])
    by_group = completed.astype(float).groupby("group")
    groups["runs"] = runs.groupby("group").size()
    groups["completed"] = by_group.size().reindex(groups.index, fill_value=0)
    means = by_group.mean().reindex(groups.index)
    densities = [key for key in swept if key in DENSITIES]  # no order among values of these
    points = list(zip(means[RATE], means[DISTORTION], strict=True))
    groups["front"] = False if densities else pareto_front(points)
    sign = -1 if higher_is_better(chosen) else 1
    rank = groups[densities].assign(value=sign * means[chosen])
    order = list(rank.sort_values([*densities, "value"], kind="stable").index)
    runs["group"] = runs["group"].map(order.index)
    runs = runs.sort_values(["group", SEED], kind="stable")
    kept, texts = zip(*(found[i] for i in runs.index), strict=True)
    tables = [table.reindex(order) for table in (groups, means, by_group.std())]
    tables = [table.reset_index(drop=True) for table in (runs, *tables)]
    names = short_names(swept)
    return Comparison(folders, [*kept], [*texts], skipped, names, chosen, *tables)


def rows_of(table: DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each with its own types: {"beta": 0.5, "seed": 0}."""
    return cast(list[dict[str, Any]], table.to_dict("records"))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether no other point beats each one: lower is better in both. One with NaN is not on it."""
    return [
        x == x and y == y and not any(a <= x and b <= y and (a < x or b < y) for a, b in points)
        for x, y in points
    ]


def monitored(run: SavedRun) -> str:
    """The metric that decided a run's best epoch, noted in it or known by its settings."""
    objective = str((run.settings.get("objective") or {}).get("name"))
    default = getattr(SCHEMAS.get(("objective", objective)), "monitor", "val/elbo")
    return str(run.summary.get("monitor") or run.settings.get("monitor") or default)


def _deciding(
    metric: str | None, metrics: Sequence[str], runs: Sequence[SavedRun], have_nll: bool
) -> str:
    """The full name of the metric that decides the order. Raises UserError where no run has it.

    have_nll: all completed runs have NLL, which decides where their own metrics differ.
    """
    monitors = [*map(monitored, runs)]
    if metric is None and have_nll and len({*monitors}) > 1:
        return NLL
    name = metric or mode(monitors).rpartition("/")[2]
    names = [name, *(f"{split}/{name}" for split in ("test", "latent", "val", "train"))]
    if metric is None or {*names} & {*metrics}:
        return next((n for n in names if n in metrics), names[1])
    raise UserError(f"--metric {metric}: no run has it{nearest(metric, metrics)}")


def _collect(folders: Sequence[Path]) -> tuple[list[tuple[SavedRun, list[str]]], list[str]]:
    """All runs in or below the folders, each once, with overrides; lines about skipped ones."""
    found: dict[Path, tuple[SavedRun, list[str]]] = {}
    skipped: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        for run in saved.find_runs(folder, skipped):
            try:
                if not {"beta", SEED, "epochs", "model"} <= run.settings.keys():
                    raise UserError(f"{run.folder}/config.yaml is not a configuration of vae-train")
                found[run.folder.resolve()] = (run, resume.saved_overrides(run.folder))
            except UserError as error:
                skipped.append(str(error))
    if not found:
        where = ", ".join(map(str, folders))
        raise UserError("; ".join([f"{where}: no run in it or below", *skipped[:1]]))
    return list(found.values()), skipped


def _results(run: SavedRun) -> dict[str, Any]:
    """What came of a run: metrics (of the last epoch until it has completed) and how it ended."""
    summary, status = run.summary, run.status or "running"
    last = {} if status == "completed" else (saved.read_metrics(run.folder) or [{}])[-1]
    metrics = summary.get("metrics") or last
    numbers = {k: float(v) for k, v in metrics.items() if "/" in k and isinstance(v, int | float)}
    return {k: v for k, v in numbers.items() if math.isfinite(v)} | {
        "seconds": summary.get("seconds", math.nan),
        "status": status,
        "error": summary.get("error") or "",
        "folder": str(run.folder),
    }


def cells(run: SavedRun, overrides: Iterable[str] = ()) -> Cells:
    """Flat settings: a number as it is, any other value as it is typed: true, null, [400,200]."""
    flat: Cells = {}
    for key, value in flatten(run.settings).items():
        is_plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        flat[key] = value if is_plain else json.dumps(value, separators=(",", ":"))
    words = [text.partition("=") for text in overrides]
    return flat | {key: choice for key, _, choice in words if key == PRESET}


def text(cell: Any) -> str:
    """A cell as a text: 0.5, 1e-05, [400,200]; nothing for NaN, which a run does not have."""
    return ("" if cell != cell else f"{cell:g}") if isinstance(cell, float) else str(cell)


def varied(runs: Sequence[Cells], given: Sequence[str] = ()) -> list[str]:
    """The settings that vary and say something, those `given` on command lines first.

    What follows from a choice is left out: dataset=mnist,digits changes the networks' sizes too.
    """

    def follows(key: str) -> bool:  # each combination of choices has one value
        pairs = {(*map(run.get, choices), run[key]) for run in runs if key in run}
        return len(pairs) == len({pair[:-1] for pair in pairs})

    keys = dict.fromkeys([*given, *(key for run in runs for key in run)])
    several = [key for key in keys if len({run[key] for run in runs if key in run}) > 1]
    choices: list[str] = []
    kept: list[str] = []
    # what is chosen comes before what may follow from it
    for key in sorted(several, key=lambda k: (k != PRESET, k not in given, not k.endswith("name"))):
        is_how = key in HOW_KEYS or key.startswith("dataset.suggested")
        if key in given or not (is_how or (choices and follows(key))):
            kept.append(key)
            choices += [key] if key == PRESET or key.endswith(".name") else []
    return [key for key in several if key in kept]
