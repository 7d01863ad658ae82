"""The search itself: ask Optuna for trials, train them as a sweep's jobs, tell it what they gave.

Every trial is proposed from (seed, its number, what the trials before gave), so that a search that
was killed and repeated proposes what the uninterrupted one would have.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from vae_cli.continuing import read_json
from vae_cli.errors import UserError
from vae_cli.files import write_text
from vae_cli.jobs import FAILED, INTERRUPTED, TERMINATED, Job
from vae_cli.launching import Launched, Launcher
from vae_cli.schema.search import EPOCH_METRICS
from vae_cli.search import storage
from vae_cli.search.planning import Search
from vae_cli.search.watching import PRUNED, Watcher

BEST = "best.yaml"


@dataclass
class Asked:
    """A trial that is to be trained."""

    trial: optuna.Trial
    drawn: list[str]  # its values, as overrides
    folder: Path


def run(search: Search, folder: Path, launch: Launcher, job: Job) -> int:
    """Search until there are n_trials. Returns the exit code."""
    settings = search.settings
    opened = storage.open_storage(settings, folder)
    study = storage.create(settings, opened)
    known = study.user_attrs.get("search", search.identity)
    if known != search.identity:
        raise UserError(
            f"hydra.sweeper.storage holds another search under the name {settings.study_name};"
            " choose another hydra.sweeper.study_name"
        )
    study.set_user_attr("search", search.identity)
    if done := sum(t.state.is_finished() for t in study.trials):
        print(f"vae-train: {done} of {settings.n_trials} trials are done", file=sys.stderr)
    while asked := _ask(search, study, folder):
        left = [item for item in asked if not _repeats(item, study, search)]
        jobs = [
            Launched(
                [*search.fixed, *item.drawn],
                item.folder,
                Watcher(settings, folder, item.trial._trial_id),
            )
            for item in left
        ]
        codes = launch(jobs, job) if jobs else []
        for item, code in zip(left, codes, strict=True):
            _tell(item, code, study, search)
        if launch.stopped:
            print(f"vae-train: the search was stopped; {launch.how_to_go_on}", file=sys.stderr)
            return launch.stopped
    _report(search, study, folder)
    failed = any(trial.state is TrialState.FAIL for trial in study.trials)
    return FAILED if failed else 0


def _ask(search: Search, study: optuna.Study, folder: Path) -> list[Asked]:
    """The next trials: those that an earlier call left unfinished, else new ones."""
    settings = search.settings
    trials = study.get_trials(deepcopy=False)
    left = [trial for trial in trials if not trial.state.is_finished()][: settings.n_jobs]
    if left:
        return [_asked(search, optuna.Trial(study, t._trial_id), folder) for t in left]
    asked = []
    for _ in range(min(settings.n_jobs, settings.n_trials - len(trials))):
        trial = _new(search, study)
        asked.append(_asked(search, trial, folder))
    return asked


def _new(search: Search, study: optuna.Study) -> optuna.Trial:
    number = len(study.get_trials(deepcopy=False))
    digest = sha256(f"{search.settings.seed}/trial/{number}".encode()).digest()
    study.sampler = storage.sampler(search.settings, int.from_bytes(digest[:4], "big"))
    return study.ask()


def _asked(search: Search, trial: optuna.Trial, folder: Path) -> Asked:
    drawn = [f"{item.key}={item.suggest(trial)}" for item in search.space]
    return Asked(trial, drawn, folder / f"trial-{trial.number:03d}")


def _repeats(item: Asked, study: optuna.Study, search: Search) -> bool:
    """Settle a trial without training: its settings cannot work, or have been tried already."""
    try:
        search.config(item.drawn)
    except UserError as error:
        print(f"vae-train: trial {item.trial.number}: {error}", file=sys.stderr)
        item.trial.set_user_attr("error", str(error))
        study.tell(item.trial.number, state=TrialState.FAIL)
        return True
    for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if other.params == item.trial.params:
            item.trial.set_user_attr("same_as", other.number)
            study.tell(item.trial.number, other.values)
            _say(item, f"the settings of trial {other.number} again")
            return True
    return False


def _tell(item: Asked, code: int | None, study: optuna.Study, search: Search) -> None:
    """Record what became of a trial; one that was stopped stays open, for the next call."""
    if code is None or code in (INTERRUPTED, TERMINATED):
        return
    summary = read_json(item.folder / "summary.json")
    number = item.trial.number
    if summary.get("status") == PRUNED:
        study.tell(number, state=TrialState.PRUNED)
        _say(item, "given up")
        return
    values = measured(item.folder, search.settings.metric) if code == 0 else None
    if values is None:
        item.trial.set_user_attr("error", str(summary.get("error", f"exit code {code}")))
        study.tell(number, state=TrialState.FAIL)
        _say(item, "failed")
        return
    study.tell(number, values)
    pairs = zip(search.settings.metric, values, strict=True)
    _say(item, ", ".join(f"{metric} {value:.4f}" for metric, value in pairs))


def measured(folder: Path, metrics: Sequence[str]) -> list[float] | None:
    """A finished run's metrics: those of an epoch from its best epoch. None if one is missing."""
    from vae_cli.run import read_metrics  # imports torch

    summary = read_json(folder / "summary.json")
    best = [x for x in read_metrics(folder) if x["epoch"] == summary.get("best_epoch")]
    found = []
    for metric in metrics:
        if metric in EPOCH_METRICS:
            value = best[0].get(metric) if best else None
        else:
            value = summary.get("metrics", {}).get(metric, summary.get(metric))
        if value is None or value != value:
            return None
        found.append(float(value))
    return found


def _say(item: Asked, what: str) -> None:
    print(f"trial {item.trial.number} ({' '.join(item.drawn)}): {what}", file=sys.stderr)


# ----------------------------------------------------------------------------------- the result


def command(search: Search, trial: FrozenTrial) -> str:
    """The command line that trains a trial's settings."""
    fixed = [text for text in search.fixed if not text.startswith("sweep=")]
    drawn = []
    for item in search.space:
        value = trial.params[item.key]
        drawn.append(f"{item.key}={value if item.choices else repr(value)}")
    return shlex.join(["vae-train", *fixed, *drawn])


def _report(search: Search, study: optuna.Study, folder: Path) -> None:
    """Print the best trial (of several metrics, the Pareto front) and keep it in best.yaml."""
    trials = study.get_trials(deepcopy=False)
    counts = {state.name.lower(): sum(t.state is state for t in trials) for state in TrialState}
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    best = study.best_trials if complete else []
    if len(search.settings.metric) == 1:
        best = best[:1]
    entries: list[dict[str, Any]] = [
        {
            "trial": trial.number,
            "values": dict(zip(search.settings.metric, trial.values, strict=True)),
            "params": trial.params,
            "folder": f"trial-{trial.user_attrs.get('same_as', trial.number):03d}",
            "command": command(search, trial),
        }
        for trial in best
    ]
    content = {"trials": {k: v for k, v in counts.items() if v}, "best": entries}
    write_text(folder / BEST, OmegaConf.to_yaml(OmegaConf.create(content)))
    print(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    for entry in entries:
        values = ", ".join(f"{key} {value:.4f}" for key, value in entry["values"].items())
        print(f"  best: trial {entry['trial']}, {values}\n  {entry['command']}")
    print(f"  {folder / BEST}", flush=True)
