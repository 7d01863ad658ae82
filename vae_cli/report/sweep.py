"""What a set of runs says: which settings varied, means over seeds, the best, the Pareto front."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_cli.checking import nearest
from vae_cli.errors import UserError
from vae_cli.hparams import comparable, given_keys, varied
from vae_cli.report.runs import RunRecord, Skipped, collect
from vae_cli.report.text import printable

# the loss is left out: with another beta it is another quantity
TEST_METRICS = ("test/elbo", "test/reconstruction", "test/kl", "test/active_units")
RATE, DISTORTION = "test/kl", "test/reconstruction"
HIGHER_IS_BETTER = ("elbo", "active_units", "examples_per_second")
REPLICATE = "seed"  # runs that differ in nothing else are one group
# between values of these, nats cannot be compared
DENSITIES = ("dataset.name", "dataset.binarize", "likelihood.name")


@dataclass(frozen=True)
class Stat:
    """Mean over runs, sample standard deviation (n - 1; None for a single run), number of runs."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    settings: dict[str, Any]  # of what varied; without what these runs do not have
    runs: list[RunRecord]
    stats: dict[str, Stat]  # over completed runs
    on_front: bool  # of KL and reconstruction

    @property
    def completed(self) -> list[RunRecord]:
        """Those with final metrics, by seed."""
        return [run for run in self.runs if run.completed]


@dataclass(frozen=True)
class Sweep:
    """The answer. swept: settings that varied, without the seed; groups: best first."""

    roots: list[Path]
    runs: list[RunRecord]
    skipped: list[Skipped]
    swept: list[str]
    metric: str
    groups: list[Group]
    notes: list[str]

    @property
    def unfinished(self) -> list[RunRecord]:
        """Runs that are not completed: failed, interrupted, running."""
        return [run for run in self.runs if not run.completed]

    @property
    def best(self) -> Group | None:
        """The group with the best metric, if any has it."""
        first = self.groups[0]
        return first if self.metric in first.stats else None

    def settings_of(self, run: RunRecord) -> dict[str, Any]:
        """What varied, in this run."""
        return {key: run.settings[key] for key in self.swept if key in run.settings}


def read_sweep(roots: Sequence[Path], metric: str | None = None) -> Sweep:
    """Collect and compare all runs below the folders. Raises UserError.

    metric: what decides the best, test/elbo or elbo; None: the runs' own `monitor`.
    """
    runs, skipped = collect(roots)
    given = given_keys(text for run in runs for text in run.overrides)
    swept = [key for key in varied([run.settings for run in runs], given) if key != REPLICATE]
    chosen = _metric(runs, metric)
    groups = _groups(runs, swept)
    comparable_nats = not set(swept) & set(DENSITIES)
    if comparable_nats:
        groups = _with_front(groups)
    groups.sort(key=lambda group: _rank(group, chosen))
    order = {id(run): place for place, group in enumerate(groups) for run in group.runs}
    runs.sort(key=lambda run: order[id(run)])
    notes = _notes(runs, groups, comparable_nats)
    return Sweep(list(roots), runs, skipped, swept, chosen, groups, notes)


def is_better(metric: str, a: float, b: float) -> bool:
    """Whether a value of the metric is better than another."""
    return a > b if _higher(metric) else a < b


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats: lower is better in both coordinates."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(a <= x and b <= y and (a < x or b < y) for a, b in points)
    ]


def statistic(values: Sequence[float]) -> Stat:
    """Mean and sample standard deviation."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Stat(statistics.fmean(values), std, len(values))


# ---------------------------------------------------------------------------------------- the parts


def _metric(runs: Sequence[RunRecord], wanted: str | None) -> str:
    """The full name of the metric that decides."""
    there = list(dict.fromkeys(name for run in runs for name in run.metrics))
    if wanted is None:
        monitors = Counter(str(run.settings.get("monitor", "val/elbo")) for run in runs)
        name = monitors.most_common(1)[0][0].rpartition("/")[2]
        names = [f"{split}/{name}" for split in ("test", "val", "train")]
        return next((found for found in names if found in there), names[0])
    names = [wanted, f"test/{wanted}", f"latent/{wanted}", f"val/{wanted}"]
    for name in names:
        if name in there:
            return name
    close = nearest(wanted, there) or f"; the runs have {', '.join(sorted(there)) or 'none yet'}"
    raise UserError(f"--metric {printable(wanted)}: no run has it{close}")


def _groups(runs: Sequence[RunRecord], swept: Sequence[str]) -> list[Group]:
    found: dict[Hashable, list[RunRecord]] = {}
    for run in runs:
        key = tuple(comparable(run.settings.get(name)) for name in swept)
        found.setdefault(key, []).append(run)
    groups = []
    for members in found.values():
        members.sort(key=_seed)
        settings = {key: members[0].settings[key] for key in swept if key in members[0].settings}
        groups.append(Group(settings, members, _stats(members), on_front=False))
    return groups


def _seed(run: RunRecord) -> tuple[int, str]:
    seed = run.settings.get(REPLICATE)
    return (seed if isinstance(seed, int) else 0), run.name


def _stats(runs: Sequence[RunRecord]) -> dict[str, Stat]:
    values: dict[str, list[float]] = {}
    for run in runs:
        if run.completed:
            measured: Mapping[str, float] = run.metrics
            seconds = {} if run.seconds is None else {"seconds": run.seconds}
            for name, value in {**measured, **seconds}.items():
                values.setdefault(name, []).append(value)
    return {name: statistic(found) for name, found in values.items()}


def _with_front(groups: list[Group]) -> list[Group]:
    measured = [g for g in groups if RATE in g.stats and DISTORTION in g.stats]
    front = pareto_front([(g.stats[RATE].mean, g.stats[DISTORTION].mean) for g in measured])
    best = {id(measured[i]) for i in front}
    return [Group(g.settings, g.runs, g.stats, id(g) in best) for g in groups]


def _higher(metric: str) -> bool:
    return metric.rpartition("/")[2] in HIGHER_IS_BETTER


def _rank(group: Group, metric: str) -> tuple[bool, float]:
    stat = group.stats.get(metric)
    if stat is None:
        return True, 0.0
    return False, -stat.mean if _higher(metric) else stat.mean


def _notes(runs: Sequence[RunRecord], groups: Sequence[Group], comparable_nats: bool) -> list[str]:
    notes = []
    if not comparable_nats:
        notes.append("nats of different datasets or likelihoods cannot be compared")
    twins = [
        g
        for g in groups
        if len({comparable(r.settings.get(REPLICATE)) for r in g.runs}) < len(g.runs)
    ]
    if twins:
        notes.append("some runs have the same settings and the same seed; each counts")
    commits = {comparable(r.about.get("git_commit")) for r in runs if r.completed}
    if len(commits - {"None"}) > 1:
        notes.append("the runs come from different commits of vae-cli")
    if len({comparable(run.settings.get("model.posterior")) for run in runs}) > 1:
        notes.append("an autoencoder has no KL: its elbo is its reconstruction alone")
    if any(run.status == "running" for run in runs):
        notes.append("a run that was killed still says that it is running")
    return notes
