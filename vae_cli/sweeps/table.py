"""Run folders as one table: what varied, means over seeds, the best, the Pareto front. No torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mode
from typing import Any, cast

from pandas import DataFrame, Series

from vae_cli.config.check import given_keys, higher_is_better, nearest, short_names
from vae_cli.config.registry import SCHEMAS
from vae_cli.console import UserError
from vae_cli.runs import resume, saved
from vae_cli.runs.saved import SavedRun
from vae_cli.sweeps.varied import FIXED, SEED, cells, common, kinds_of, text, varied

RATE, DISTORTION, ACTIVE = "test/kl", "test/reconstruction", "test/active_units"
NLL = "test/nll"  # of runs whose nll_samples is not 0: compares runs of any objective
# the loss is left out of tables: with another beta it is another quantity
TEST_METRICS = (NLL, "test/bound", "test/elbo", DISTORTION, RATE, ACTIVE)
Found = tuple[SavedRun, list[str], dict[str, Any]]  # with what it was started with, and `_results`


@dataclass(frozen=True)
class Comparison:
    """Runs, and groups of those that differ in nothing but the seed, the best first.

    Runs on other data, or with another likelihood, are another kind, and come after each other.
    """

    folders: Sequence[Path]
    found: list[Found]  # in the order of `runs`
    swept: dict[str, str]  # the settings that vary, with short names
    fixed: dict[str, str]  # the most important of the others: {"dataset": "digits"}
    metric: str  # decides the order
    runs: DataFrame  # a row a run, as `load_sweep` returns them
    groups: DataFrame  # a row a group: what varied, kind, runs, completed, front (of Pareto)
    means: DataFrame  # a row a group, a column a metric: over completed runs, or NaN
    stds: DataFrame  # of samples (n - 1)
    title: str = ""  # of one of several `parts`: what its runs have in common
    skipped: Sequence[str] = ()  # lines about folders that cannot be read

    @property
    def parts(self) -> list["Comparison"]:
        """A comparison for each kind of data and likelihood: only their runs can be ranked."""
        if self.groups["kind"].nunique() == 1:
            return [self]
        parts: list[Comparison] = []
        for kind, groups in self.groups.groupby("kind"):
            mine = self.runs["group"].map(self.groups["kind"]) == kind
            part = _compared(self.folders, [self.found[i] for i in mine.index[mine]], self.metric)
            keys = [key for key in self.swept if key not in part.swept]
            title = self.label(rows_of(groups)[0], keys) or f"data {len(parts) + 1}"
            parts.append(replace(part, title=title))
        return parts

    @property
    def saved(self) -> list[SavedRun]:
        """The runs, in the order of `runs`."""
        return [run for run, *_ in self.found]

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
    def ranked(self) -> bool:
        """Whether the metric is one quantity in all runs, so that their order is one of quality."""
        kinds = {run.settings.get("nll_samples") for run in self.saved}  # each is another bound
        return len(kinds if self.metric == NLL else self.monitors) == 1 and not self.weighs

    @property
    def has_best(self) -> bool:
        """Whether the first group is the best one: nats of all have one dataset and likelihood."""
        comparable = self.groups["kind"].nunique() == 1 and self.ranked
        return comparable and not math.isnan(self.means[self.metric][0])

    def label(self, row: Mapping[str, Any], keys: Iterable[str]) -> str:
        """Settings of a row of `groups` or `runs` in words: 'beta=0.5, latent_dim=8'."""
        values = {key: text(row[key]) for key in keys}
        return ", ".join(f"{self.swept.get(k, k)}={v}" for k, v in values.items() if v)

    def notes(self) -> list[str]:
        """What the signs in the table mean, and what a reader must know."""
        names = {str((run.settings.get("posterior") or {}).get("name")) for run in self.saved}
        kinds = {getattr(SCHEMAS.get(("posterior", name)), "has_density", True) for name in names}
        several, selected = self.groups["kind"].nunique() > 1, len(self.monitors) > 1
        completed = self.runs[self.runs["status"] == "completed"]
        repeated = completed.duplicated(["group", SEED]).any()
        other = f"runs chose their best epoch by different metrics: compare by {NLL}"
        split = "validation set, at the best epoch" if "val/" in self.metric else "test set"
        best = ", the best first" * self.ranked
        notes = {
            f"in order of {self.metric} ({split}){best}": len(self.groups) > 1,
            "mean ± sample standard deviation over seeds": (self.groups["completed"] > 1).any(),
            "equal runs with one seed count several times": repeated,
            "* on the Pareto front of KL and reconstruction": self.groups["front"].any(),
            "nats of different data or likelihoods cannot be compared": several,
            f"losses with another {', '.join(self.weighs)} cannot be compared": self.weighs,
            other + ", as here": selected and self.metric == NLL,
            other + " (give them nll_samples=100)": selected and self.metric != NLL,
            "an autoencoder has no KL: its elbo is its reconstruction alone": len(kinds) > 1,
        }
        return [note for note, holds in notes.items() if holds]


def load_sweep(*folders: str | Path) -> DataFrame:
    """All runs in or below the folders, as a table with a row for each. Raises UserError.

    Columns: the settings that vary, the seed, metrics (of an unfinished run those of its last
    epoch), epochs done, seconds, status, error, folder, and `group`, best first, of equal settings.
    """
    return compare([Path(folder).expanduser() for folder in folders]).runs


def compare(folders: Sequence[Path], metric: str | None = None) -> Comparison:
    """Compare all runs in or below folders by a metric, or by their `monitor`. Raises UserError."""
    found, skipped = _collect(folders)
    return replace(_compared(folders, found, _deciding(metric, found)), skipped=skipped)


def _compared(folders: Sequence[Path], found: Sequence[Found], chosen: str) -> Comparison:
    """Compare runs by the metric that was chosen."""
    settings = [cells(run, texts) for run, texts, _ in found]
    given = given_keys(text for _, texts, _ in found for text in texts)
    swept = [key for key in varied(settings, given) if key != SEED]
    metrics = _metrics(found)
    fixed = common(settings, [key for key in [*FIXED, *given] if key not in swept])
    last = ["epochs", "seconds", "status", "error", "folder"]
    columns = [*dict.fromkeys([*swept, SEED, *metrics, *last])]  # epochs may be swept
    flats = zip(found, settings, strict=True)
    rows = [result | flat if "epochs" in swept else flat | result for (*_, result), flat in flats]
    runs = DataFrame(rows, columns=columns)
    if len(folders) == 1:
        runs["folder"] = [str(run.folder.relative_to(folders[0])) for run, *_ in found]

    kinds = kinds_of(settings, [run for run, *_ in found])
    by = [*(runs[key] for key in swept), Series(kinds, name="kind")]
    runs["group"] = runs.groupby(by, dropna=False, sort=False).ngroup()
    groups = runs.assign(kind=kinds).drop_duplicates("group").set_index("group")[[*swept, "kind"]]
    numbers = list(dict.fromkeys([*TEST_METRICS, *metrics, chosen, "seconds"]))
    completed = runs[runs["status"] == "completed"].reindex(columns=["group", *numbers])
    by_group = completed.astype(float).groupby("group")
    groups["runs"] = runs.groupby("group").size()
    groups["completed"] = by_group.size().reindex(groups.index, fill_value=0)
    means = by_group.mean().reindex(groups.index)
    groups["front"] = False
    for _, points in means.groupby(groups["kind"]):
        front = pareto_front(list(zip(points[RATE], points[DISTORTION], strict=True)))
        groups.loc[points.index, "front"] = front
    sign = -1 if higher_is_better(chosen) else 1
    rank = groups[["kind"]].assign(value=sign * means[chosen])
    order = list(rank.sort_values(["kind", "value"], kind="stable").index)
    runs["group"] = runs["group"].map(order.index)
    runs = runs.sort_values(["group", SEED], kind="stable")
    tables = [table.reindex(order) for table in (groups, means, by_group.std())]
    parts: Any = [table.reset_index(drop=True) for table in (runs, *tables)]
    ordered = [found[i] for i in runs.index]
    return Comparison(folders, ordered, short_names(swept), fixed, chosen, *parts)


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


def _metrics(found: Sequence[Found]) -> list[str]:
    """The names of all metrics of the runs, those of the test set first."""
    metrics = sorted({key for *_, result in found for key in result if "/" in key})
    return [*dict.fromkeys([*(m for m in TEST_METRICS if m in metrics), *metrics])]


def _deciding(metric: str | None, found: Sequence[Found]) -> str:
    """The full name of the metric that decides the order. Raises UserError where no run has it.

    NLL decides where the runs' own metrics differ and all completed runs have it. The test set
    decides nothing where all have a validation set.
    """
    metrics, monitors = _metrics(found), [monitored(run) for run, *_ in found]
    done = [{*result} for *_, result in found if result["status"] == "completed"]
    by_all = set.intersection(*done) if done else set()
    if metric is None and NLL in by_all and len({*monitors}) > 1:
        return NLL
    name = metric or mode(monitors).rpartition("/")[2]
    first = [f"val/{name}"] if f"val/{name}" in by_all else []
    names = [name, *first, *(f"{split}/{name}" for split in ("test", "latent", "val", "train"))]
    if metric is None or {*names} & {*metrics}:
        return next((n for n in names if n in metrics), f"test/{name}")
    raise UserError(f"metric={metric}: no run has it{nearest(metric, metrics)}")


def _collect(folders: Sequence[Path]) -> tuple[list[Found], list[str]]:
    """All runs in or below the folders, each once; lines about skipped ones."""
    found: dict[Path, Found] = {}
    skipped: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        for run in saved.find_runs(folder, skipped):
            try:
                if not {"beta", SEED, "epochs", "model"} <= run.settings.keys():
                    raise UserError(f"{run.folder}/config.yaml is not a configuration of vae-train")
                overrides = resume.saved_overrides(run.folder)
                found[run.folder.resolve()] = run, overrides, _results(run)
            except UserError as error:
                skipped.append(str(error))
    if not found:
        where = ", ".join(map(str, folders))
        raise UserError("; ".join([f"{where}: no run in it or below", *skipped[:1]]))
    return list(found.values()), skipped


def _results(run: SavedRun) -> dict[str, Any]:
    """What came of a run: metrics (of the last epoch until it has completed) and how it ended."""
    summary, status = run.summary, run.status or "running"
    epochs = saved.read_metrics(run.folder)
    metrics = summary.get("metrics") or (epochs[-1] if epochs else {})
    if status == "completed":  # the weights that were kept are those of the best epoch
        best = next((line for line in epochs if line["epoch"] == summary.get("best_epoch")), {})
        metrics = metrics | {k: v for k, v in best.items() if k.startswith(("val/", "train/"))}
    numbers = {k: float(v) for k, v in metrics.items() if "/" in k and isinstance(v, int | float)}
    return {k: v for k, v in numbers.items() if math.isfinite(v)} | {
        "epochs": summary.get("epochs", len(epochs)),  # that it has trained
        "seconds": summary.get("seconds", math.nan),
        "status": status,
        "error": summary.get("error") or "",
        "folder": str(run.folder),
    }
