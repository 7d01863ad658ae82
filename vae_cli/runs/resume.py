"""Which run a command line goes on with; it may change only CHANGEABLE settings. No torch."""

import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vae_cli.config.check import CHANGEABLE, HOW_KEYS, differing, refuse_missing, typed
from vae_cli.config.registry import PLACE
from vae_cli.config.settings import Config
from vae_cli.console import UserError, say
from vae_cli.runs import saved

# overrides that a saved run may not repeat: Hydra's and plug-ins name code, a switch is none
_NOT_SETTINGS = re.compile(r"[\s+~]*((hydra|plugins|resume|dry_run)\b|-)")


def requested_folder(resume: str, outputs: Path) -> Path:
    """The folder of resume=FOLDER or, for latest, of the newest run below `outputs`.

    Raises UserError where there is no run that can go on.
    """
    if resume == "latest":
        runs = [run for run in saved.find_runs(outputs) if saved.has_checkpoint(run.folder)]
        if not runs:
            raise UserError(f"resume=latest: no run under {outputs} can go on; give resume=DIR")
        folder = max(runs, key=lambda run: run.changed).folder.resolve()
        say(f"vae-train: resume=latest: going on in {folder}")
    else:
        folder = saved.folder_of(resume, f"checkpoints/{saved.LAST}").resolve()
    try:
        missing = saved.read_run(folder).missing
    except UserError as error:
        raise UserError(f"resume={error}") from error
    if not saved.has_checkpoint(folder):
        raise UserError(f"resume={folder}: there is no checkpoints/last.ckpt to go on from")
    if missing:
        raise UserError(f"resume={folder} needs {missing}")
    saved.refuse_links_out(folder)
    return folder


def saved_overrides(folder: Path, given: Iterable[str] = ()) -> list[str]:
    """The KEY=VALUE texts that a run was started with, without references and Hydra's settings.

    given: the keys on the command line; a choice of loggers there replaces the saved one.
    """
    path = folder / ".hydra" / "overrides.yaml"
    texts = saved.read_yaml(path) if path.is_file() else []
    kept = [t for t in map(str, texts) if "${" not in t and not _NOT_SETTINGS.match(t)]
    return [t for t in kept if not ("logger" in given and t.startswith(("logger=", "logger.")))]


def merged_config(folder: Path, composed: Mapping[str, Any], keys: Iterable[str]) -> Config:
    """The saved settings of a run, with the `keys` of the command line taken from `composed`.

    composed: `saved_overrides` and the command line together. Raises UserError where a change
    contradicts what has been trained.
    """
    given = [*keys]
    settings, keys = saved.read_run(folder).settings, [*given, "plugins"]
    if "experiment" in keys:  # a preset can change every setting
        settings, keys = dict(composed), []
    for key in keys:
        if not key.startswith("hydra"):
            *groups, name = key.split(".")
            source, target = composed, settings
            for group in groups:
                source, target = source.get(group, {}), target.setdefault(group, {})
            target[name] = source.get(name)
    run, after = saved.read_run(folder), typed(settings | {"resume": str(folder)})
    refuse_missing(after)
    for name, logger in after.logger.items():
        for field, info in type(logger).model_fields.items():
            key, place = f"logger.{name}.{field}", getattr(logger, field)
            if PLACE in info.metadata and place is not None and key not in given:
                # whoever made the folder chose it
                fix = f"add {shlex.quote(f'{key}={place}')} to log there, or logger=none"
                raise UserError(f"resume={folder} would log to a place that it names: {fix}")
    before = run.config
    if changes := differences(run, after, moved=True):
        raise UserError(f"resume={folder}: trained with other settings: {changes}; leave them out")
    bent = _bent_schedules(before, after)
    extended = _extended(before, _last_epoch(run)) if bent else after.extended
    return after.model_copy(update={"resume": None, "extend": False, "extended": extended})


def _last_epoch(run: saved.SavedRun) -> int:
    """The number of the last epoch that a saved run has finished; 0 before the first."""
    return max((line["epoch"] for line in saved.read_metrics(run.folder)), default=0)


def _bent_schedules(before: Config, after: Config) -> list[str]:
    """The schedules that would have had other values in the past with the new number of epochs."""
    pairs = after.components() if before.epochs != after.epochs else ()
    return [f"{group}={component.name}" for group, component in pairs if component.uses_epochs]


def _extended(before: Config, last_epoch: int) -> list[str]:
    """The mark of a run that goes on with a bent schedule: it is no run that was planned so."""
    return [*before.extended, f"{last_epoch} of {before.epochs}"]


def differences(run: saved.SavedRun, config: Config, moved: bool = False) -> str:
    """'beta: 1.0, now 4.0; …': why a saved run cannot go on with `config`; "" where it can.

    moved: the data may lie in another place. Whoever loads them compares them.
    """
    before, last_epoch = run.config, _last_epoch(run)
    may_bend = config.extend or config.extended == _extended(before, last_epoch)
    # a run cannot end before its last epoch: its numbers are those of a longer training
    ignored = CHANGEABLE if config.epochs >= last_epoch else HOW_KEYS
    ignored |= {"extended"} if may_bend else set()
    fields = type(config.dataset).model_fields.items()
    ignored |= {f"dataset.{name}" for name, field in fields if moved and PLACE in field.metadata}
    pairs = differing(before, config, ignored).items()
    lines = [f"{key}: {old}, now {new}" for key, (old, new) in pairs]
    if not may_bend and (schedules := _bent_schedules(before, config)):
        line = f"epochs: {before.epochs}, now {config.epochs}, which would bend"
        lines.append(f"{line} {', '.join(schedules)} (extend=true does it all the same)")
    return "; ".join(lines)


def is_finished(run: saved.SavedRun, config: Config) -> bool:
    """Whether a saved run has completed with just these settings, so that nothing is left to do."""
    return run.status == "completed" and not differing(run.config, config)


def newest_unfinished(outputs: Path, config: Config) -> Path | None:
    """The newest run below `outputs`, no job of a sweep, with which `config` can go on, or None."""
    newest = None
    for run in sorted(saved.find_runs(outputs), key=lambda run: run.changed):
        is_job = any((parent / "jobs.json").is_file() for parent in [*run.folder.parents][:3])
        with suppress(UserError):  # settings of another version
            if run.status != "completed" and not is_job and not differences(run, config):
                newest = run.folder
    return newest


def prepare_folder(folder: Path, config: Config) -> None:
    """Remove what a run left that never came to a checkpoint; refuse another run that did."""
    if not (folder / "config.yaml").is_file():
        return
    changes = differences(saved.read_run(folder), config, moved=True)
    saved.refuse_links_out(folder)
    if changes and saved.has_checkpoint(folder):
        raise UserError(f"{folder} holds a run with other settings ({changes}): choose another")
    if not saved.has_checkpoint(folder):
        for name in ("config.yaml", "summary.json", "metrics.jsonl", "events.out.tfevents.*"):
            for path in folder.glob(name):
                path.unlink()
