"""A single run from what was typed; `vae_cli.train` and `vae_cli.sweep`, the command from Python.

No torch and no pandas before the work begins.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vae_cli.config import compose
from vae_cli.config.check import flatten
from vae_cli.config.plugins import load_plugins, named_plugins
from vae_cli.config.settings import Config
from vae_cli.console import RunFailed, UserError, say
from vae_cli.runs import resume, saved
from vae_cli.runs.files import locked
from vae_cli.runs.interrupt import Interrupted
from vae_cli.sweeps.launch import STOPPED, TERMINATED, run_job, run_sweep, through_hydra, train_job
from vae_cli.sweeps.plan import output_folder, outputs_of, plan_sweep

if TYPE_CHECKING:
    from pandas import DataFrame

    from vae_cli.analysis.trained import TrainedRun


# settings without effect on a single run
_OF_SWEEPS = ("sweep", "hydra/sweeper", "hydra/launcher", "hydra.sweep", "hydra.launcher")


def rank() -> int:
    """The number of this process among those that torchrun started for one run; 0: the first."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("RANK", "0")) if several else 0


def planned(
    overrides: Sequence[str], name: str = "config", extra_dir: str | None = None
) -> tuple[Config, Path, list[str]]:
    """Settings and folder of a single run, and the words with which Hydra composes it again.

    overrides: texts KEY=VALUE. name, extra_dir: see `compose.composed`. Raises UserError.
    """
    words = compose.hydra_words(overrides)
    given = {override.key_or_group: override for override in compose.parse_overrides(words)}
    if several := [key for key in given if key.startswith(_OF_SWEEPS)]:
        raise UserError(f"{given[several[0]].input_line}: of a sweep of several runs; add -m")
    wanted = given["resume"].value() if "resume" in given else None
    cfg = compose.composed(name, overrides, extra_dir, with_hydra=True)
    outputs = outputs_of(cfg, "run")
    if wanted not in (None, "auto"):
        if "hydra.run.dir" in given:
            raise UserError(f"hydra.run.dir: resume={wanted} goes on in its own folder")
        folder = resume.requested_folder(str(wanted), outputs)
        former = resume.saved_overrides(folder, given)
        plain = compose.plain_settings(name, [*former, *overrides], extra_dir)
        config = resume.merged_config(folder, plain, given)
        return config, folder, [*former, *words, "hydra.output_subdir=null"]
    config = compose.settings_of(name, overrides, extra_dir).model_copy(update={"resume": None})
    folder = output_folder(cfg, "run", overrides)
    if wanted == "auto":
        if "hydra.run.dir" not in given:
            folder = (resume.newest_unfinished(outputs, config) or folder).absolute()
        begun = "going on" if saved.has_checkpoint(folder) else "a new run"
        say(f"vae-train: resume=auto: {begun} in {folder}")
    elif saved.has_checkpoint(folder) and not config.dry_run:
        line = "holds a run, which is not overwritten; go on with resume=FOLDER, or choose another"
        raise UserError(f"hydra.run.dir={folder}: {line}")
    return config, folder, words


def run_single(
    config: Config,
    folder: Path,
    words: Sequence[str],
    job: Callable[[Config, Path], int | None] = run_job,
) -> int:
    """Make the folder of a run and do the job in it: arguments as `planned` returns them.

    Returns the exit code. Raises UserError, and what the job raises.
    """
    if rank():  # the folder of rank 0 is the run's
        with TemporaryDirectory() as place:
            quiet = config.model_copy(update={"figures": "none", "logger": {}})
            return job(quiet, Path(place)) or 0
    fresh = [parent for parent in folder.parents if not parent.exists()]
    with locked(folder):
        resume.prepare_folder(folder, config)
    codes: list[int] = []
    words = [*words, f"hydra.run.dir={compose.quoted(folder)}"]
    try:
        code = through_hydra(words, lambda cfg: codes.append(job(config, folder) or 0))
    finally:
        if not folder.exists():
            with suppress(OSError):  # a folder that another run uses by now
                for parent in fresh:
                    parent.rmdir()
    return max([code, *codes])


def train(*overrides: str, **settings: Any) -> "TrainedRun":
    """Train as `vae-train` does, and load the run: train("dataset=digits", epochs=3).

    overrides: as they are typed after the command. settings: the same as keywords, those of a group
    as a dict: model={"latent_dim": 2}. Raises UserError for a mistake, RunFailed, or
    KeyboardInterrupt after Ctrl-C, which keeps a checkpoint to go on from (resume=FOLDER).
    """
    config, folder, words = planned(_typed(overrides, settings))
    if config.dry_run:
        raise UserError("dry_run=true leaves no run to load; use the command vae-train")
    if run_single(config, folder, words, train_job):
        raise RunFailed(f"no run in {folder}: Hydra says above why")
    from vae_cli.analysis.trained import load_run  # imports torch

    return load_run(folder, config.device)


def sweep(*overrides: str, **settings: Any) -> "DataFrame":
    """Train several runs as `vae-train -m` does: sweep("beta=1,4", seed=(0, 1), epochs=3).

    Several values are a text with commas or a tuple. Returns a row for each run, as `load_sweep`
    does, with the whole path in `folder`; `status` and `error` say which failed. Raises UserError
    for a mistake before any run begins, KeyboardInterrupt after Ctrl-C.
    """
    plan = plan_sweep(_typed(overrides, settings))
    if any(job.config.dry_run for job in plan.jobs):
        raise UserError("dry_run=true leaves no runs to load; use the command vae-train -m")
    if (code := run_sweep(plan)) in STOPPED:
        raise Interrupted(f"stopped in {plan.folder}", by_signal=code == TERMINATED)
    from vae_cli.sweeps.table import load_sweep  # imports pandas

    table = load_sweep(plan.folder)
    return table.assign(folder=[str(plan.folder / name) for name in table["folder"]])


def _typed(overrides: tuple[str, ...], settings: Mapping[str, Any]) -> list[str]:
    """Write settings as they are typed, after the plug-ins that they name are imported."""
    texts = [*overrides, *(f"{key}={_text(value)}" for key, value in flatten(settings).items())]
    load_plugins(named_plugins(texts))
    return texts


def _text(value: Any) -> str:
    """Write a value as it is typed: true, null, [1,2]; of a tuple or a range, 1,2."""
    if isinstance(value, tuple | range):
        return ",".join(map(_text, value))
    if isinstance(value, str | Path):
        return str(value)
    # numbers of numpy and torch
    return json.dumps(value, default=lambda item: getattr(item, "tolist", item.__str__)())
