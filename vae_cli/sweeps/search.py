"""A search: Optuna proposes settings, each trial is trained, and Optuna hears how it ended.

A trial is proposed from the seed, its number and the results before it, so a search that was
killed and repeated proposes what an uninterrupted one would have.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
import yaml
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna import distributions as draws
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from pydantic import Field

from vae_cli.config.check import digest, identity, nearest, validated
from vae_cli.config.registry import Schema
from vae_cli.config.settings import Config
from vae_cli.console import UserError, one_line, say
from vae_cli.runs.files import write_text
from vae_cli.runs.saved import read_metrics, read_summary

if TYPE_CHECKING:
    from vae_cli.training.loop import Observer, Training

PREFIX = "hydra.sweeper."
Check = Callable[[Sequence[str]], Config]  # overrides -> settings, or UserError
# settings of a trial, the overrides that give them, its folder, observers -> exit code
Train = Callable[[Config, list[str], Path, "list[Observer]"], int]


class SearchConfig(Schema):
    """All settings of a search: `configs/hydra/sweeper/optuna.yaml`."""

    name: str
    metric: list[str] = Field(min_length=1)  # of those that a run writes
    direction: list[Literal["maximize", "minimize"]] = Field(min_length=1)
    n_trials: int = Field(ge=1)
    n_jobs: Literal[1]  # for more at once: the command twice, with one hydra.sweeper.storage
    sampler: Literal["tpe", "random"]
    startup_trials: int = Field(ge=0)
    pruner: Literal["none", "median", "halving"]
    pruner_startup_trials: int = Field(ge=0)
    pruner_warmup_epochs: int = Field(ge=0)
    seed: int = Field(ge=0)
    storage: str | None
    study_name: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Search:
    """A search that has been checked."""

    settings: SearchConfig
    space: dict[str, draws.BaseDistribution]  # by setting; choices are texts as they are typed
    fixed: list[str]  # overrides of every trial
    switches: list[str]  # as in Sweep
    identity: str  # equal for an equal search, however many trials it has
    check: Check


def plan_search(
    node: Mapping[str, Any], task: Sequence[Override], check: Check, switches: list[str]
) -> Search:
    """Check hydra.sweeper (node) and settings at each end and choice (task). Raises UserError."""
    settings = validated(SearchConfig, node, PREFIX)
    fixed = {o.get_key_element(): str(o.input_line) for o in task if not o.is_sweep_override()}
    space = {o.get_key_element(): distribution(o) for o in task if o.is_sweep_override()}
    if not space:
        raise UserError("a search needs a range: optimizer.lr='tag(log,interval(1e-4,1e-2))'")
    if "seed" in space:
        raise UserError("seed: a search would find a lucky one; repeat its best by sweep=seeds")
    items: dict[str, Any] = {**space}
    ends = {k: getattr(x, "choices", None) or (x.low, x.high) for k, x in items.items()}
    first = {key: values[0] for key, values in ends.items()}
    changes = [{}, *({key: x} for key, values in ends.items() for x in values[1:])]
    configs = [check([*fixed.values(), *_typed(first | change)]) for change in changes]
    metrics = f"{PREFIX}metric=[{','.join(settings.metric)}]"
    if len(settings.direction) != len(settings.metric):
        raise UserError(f"{PREFIX}direction: give one for each of {metrics}")
    can_prune = len(settings.metric) == 1 and settings.metric[0].startswith(("val/", "train/"))
    if settings.pruner != "none" and not can_prune:
        raise UserError(f"{metrics}: only one val/ or train/ can prune; give {PREFIX}pruner=none")
    if "val/" in metrics and any(config.dataset.val_size == 0 for config in configs):
        raise UserError(f"{metrics} needs validation data and dataset.val_size=0")
    if configs[0].dry_run:
        raise UserError("dry_run=true: not for a search; leave out -m and the ranges")
    about = [sorted(map(str, space.items())), settings.metric, settings.direction]
    known = digest([*about, identity(configs[0])])
    return Search(settings, space, [*fixed.values()], switches, known, check)


def distribution(override: Override) -> draws.BaseDistribution:
    """What Optuna draws a swept setting from. Raises UserError for an empty or unknown range."""
    sweep: Any = override.value()
    try:
        if not isinstance(sweep, IntervalSweep | RangeSweep):
            return draws.CategoricalDistribution([*dict.fromkeys(override.sweep_string_iterator())])
        if unknown := sweep.tags - {"log"}:
            raise ValueError(f"no such tag {', '.join(sorted(unknown))}; there is log")
        ends = (sweep.start, sweep.end) if isinstance(sweep, IntervalSweep) else (*sweep.range(),)
        step: Any = {"step": sweep.step} if isinstance(sweep, RangeSweep) else {}
        kind = draws.IntDistribution if isinstance(ends[0], int) else draws.FloatDistribution
        return kind(ends[0], ends[-1], log="log" in sweep.tags, **step)
    except (ValueError, IndexError) as error:  # an empty range, one that log cannot draw from
        raise UserError(f"{override.input_line}: {one_line(error)}") from error


def _typed(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in params.items()]


def pruning(trial: Trial, metric: str, reported: Mapping[int, float]) -> "Observer":
    """Report epochs that are not `reported` yet, and end a trial that falls behind the others."""
    from vae_cli.training.loop import Observer  # imports torch

    class Pruning(Observer):
        def epoch(self, training: "Training", record: dict[str, float]) -> None:
            if metric not in record:
                training.stopped = f"it writes no {metric}"
            elif (epoch := int(record["epoch"])) not in reported:
                trial.report(record[metric], epoch)
            if trial.should_prune():
                training.stopped = f"its {metric} falls behind that of other trials"

    return Pruning()


def run_search(search: Search, folder: Path, train: Train) -> int:
    """Train trials until there are n_trials, also of earlier calls, and return the exit code."""
    settings, name = search.settings, search.settings.study_name
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, journal = settings.storage or f"sqlite:///{folder / 'study.db'}", folder / "study.log"
    try:
        if url == "journal":
            storage: Any = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        else:
            storage = optuna.storages.RDBStorage(url)
    except Exception as error:  # of whatever database driver
        raise UserError(f"{PREFIX}storage={url}: cannot be opened: {one_line(error)}") from error
    study = optuna.create_study(
        storage=storage, study_name=name, directions=settings.direction, load_if_exists=True
    )
    study.pruner = optuna.pruners.SuccessiveHalvingPruner()
    if settings.pruner == "median":
        early = (settings.pruner_startup_trials, settings.pruner_warmup_epochs)
        study.pruner = optuna.pruners.MedianPruner(*early)
    if study.user_attrs.get("search", search.identity) != search.identity:
        line = "is the name of another search; choose another folder or name"
        raise UserError(f"{PREFIX}study_name={name}: {line}")
    study.set_user_attr("search", search.identity)
    if done := sum(trial.state.is_finished() for trial in study.trials):
        say(f"vae-train: {done} of {settings.n_trials} trials are done")
    while (trial := _next_trial(study, storage, search, folder)) is not None:
        place = f"{_name(trial.number)} ({trial.number + 1}/{settings.n_trials})"
        which = f"{place} {','.join(_typed(trial.params))}"
        print(which, flush=True)
        result = _train_trial(trial, study, search, folder, train)
        if isinstance(result, int):
            return result
        print(f"{which}: {result}", flush=True)
    _report(study, search, folder)
    return int(any(trial.state is TrialState.FAIL for trial in study.trials))


def _next_trial(study: optuna.Study, storage: Any, search: Search, folder: Path) -> Trial | None:
    """A trial that an earlier call left half done, else a new one; None once there are enough."""
    settings, trials = search.settings, study.get_trials(deepcopy=False)
    for trial in trials:
        # where several processes use one storage, a trial is ours if its folder is here
        if not trial.state.is_finished() and (folder / _name(trial.number)).exists():
            place = (storage.get_study_id_from_name(study.study_name), trial.number)
            return Trial(study, storage.get_trial_id_from_study_id_trial_number(*place))
    if len(trials) >= settings.n_trials:
        return None
    seed = int(sha256(f"{settings.seed}/trial/{len(trials)}".encode()).hexdigest()[:8], 16)
    startup = settings.startup_trials
    # constant_liar: several processes draw different trials
    tpe = optuna.samplers.TPESampler(n_startup_trials=startup, constant_liar=True, seed=seed)
    study.sampler = tpe if settings.sampler == "tpe" else optuna.samplers.RandomSampler(seed)
    return study.ask(search.space)


def _train_trial(
    trial: Trial, study: optuna.Study, search: Search, folder: Path, train: Train
) -> str | int:
    """Train a trial and tell the study. Returns what to say, or the exit code if it was stopped."""
    metrics, trials = search.settings.metric, study.trials
    for other in trials:
        if other.state is TrialState.COMPLETE and other.params == trial.params:
            trial.set_user_attr("same_as", other.number)
            study.tell(trial.number, other.values)
            return f"the settings of {_name(other.number)} again"
    overrides, place = [*search.fixed, *_typed(trial.params)], folder / _name(trial.number)
    try:
        config = search.check(overrides)
    except UserError as problem:  # a combination that cannot work
        error = str(problem)
    else:
        observers = [pruning(trial, metrics[0], trials[trial.number].intermediate_values)]
        code = train(config, overrides, place, observers * (search.settings.pruner != "none"))
        if code in (130, 143):
            return code
        summary, found = read_summary(place), numbers(place)
        values = [found.get(metric, math.nan) for metric in metrics]
        if lost := [metric for metric in metrics if code == 0 and metric not in found]:
            error = f"{PREFIX}metric: the run writes no {lost[0]}{nearest(lost[0], found)}"
            if not any(other.state is TrialState.COMPLETE for other in trials):
                raise UserError(error)
        elif summary.get("status") == "pruned":
            study.tell(trial.number, state=TrialState.PRUNED)
            return "given up"
        elif code == 0 and all(value == value for value in values):
            study.tell(trial.number, values)
            return ", ".join(f"{k} {v:.4f}" for k, v in zip(metrics, values, strict=True))
        else:
            error = str(summary.get("error", f"exit code {code}"))
    trial.set_user_attr("error", error)
    study.tell(trial.number, state=TrialState.FAIL)
    return f"failed: {error}"


def _name(trial: int) -> str:
    return f"trial-{trial:03d}"


def numbers(folder: Path) -> dict[str, float]:
    """The numbers of a run by their names, those of val/ and train/ of its best epoch."""
    summary, lines = read_summary(folder), read_metrics(folder)
    best = [line for line in lines if line["epoch"] == summary.get("best_epoch")] or lines
    found = summary | summary.get("metrics", {}) | (best[-1] if best else {})
    known = {k: math.nan if value is None else value for k, value in found.items()}
    return {name: value for name, value in known.items() if isinstance(value, int | float)}


def _report(study: optuna.Study, search: Search, folder: Path) -> None:
    """Print the best trial (of several metrics, the Pareto front) and keep it in best.yaml."""
    states = [trial.state.name.lower() for trial in study.trials]
    counts = {state: states.count(state) for state in states}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    best, entries = study.best_trials if "complete" in states else [], []
    for trial in best if len(search.settings.metric) > 1 else best[:1]:
        values = dict(zip(search.settings.metric, trial.values, strict=True))
        number = trial.user_attrs.get("same_as", trial.number)
        command = shlex.join(["vae-train", *search.switches, *search.fixed, *_typed(trial.params)])
        entry = {"trial": number, "values": values, "folder": _name(number)}
        entries.append(entry | {"command": command})
        shown = ", ".join(f"{metric} {value:.4f}" for metric, value in values.items())
        print(f"  best: {_name(number)}, {shown}\n  {command}")
    content = {"trials": counts, "best": entries}
    write_text(folder / "best.yaml", yaml.safe_dump(content, sort_keys=False))
    print(f"  {folder / 'best.yaml'}", flush=True)
