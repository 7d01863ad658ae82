"""From the command line of a sweep to its jobs, each composed, checked and given its folder.

A repeated sweep finds its jobs' runs in the sweep's folder by their settings (`continuing.py`).
Imports no torch.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_cli import continuing, resuming
from vae_cli.config import Config
from vae_cli.errors import UserError, one_line
from vae_cli.identity import INCIDENTAL, differing, digest, identity
from vae_cli.locking import is_locked
from vae_cli.planning import (
    checked,
    compose_config,
    config_dir,
    parse_overrides,
    refuse_switches,
    search_path,
)
from vae_cli.search.planning import Search, plan_search

JOBS = "jobs.json"  # in a sweep's folder: what it was started with
OWN_NAME = "auto"  # hydra.sweep.subdir of config.yaml: the folder is named here


@dataclass
class Job:
    """One run of a sweep."""

    number: int
    overrides: list[str]  # without Hydra's own settings
    swept: list[str]  # ["beta=4", "seed=0"]: those of the overrides that jobs differ in
    config: Config
    folder: Path = field(default_factory=Path)

    def __str__(self) -> str:
        return f"job {self.number} ({' '.join(self.overrides)})"


@dataclass
class Sweep:
    """What a command line asks for."""

    folder: Path
    jobs: list[Job]  # of a grid; a search makes its own while it goes
    config_name: str
    arguments: list[str]  # what Hydra's launcher is composed with
    search: Search | None
    note: str | None = None  # what resume=auto chose

    @property
    def identity(self) -> str:
        """Equal for the same jobs (a search: the same space and settings), in any order."""
        if self.search:
            return self.search.identity
        return digest(sorted(identity(job.config) for job in self.jobs))


def plan(args: Namespace) -> Sweep:
    """Compose and check all jobs of a sweep. Raises UserError."""
    refuse_switches(args)
    overrides = parse_overrides(args.overrides)
    if resumed := resuming.requested_folder(overrides):
        raise UserError(
            f"resume={resumed}: goes on with one run; leave out --multirun"
            " (a sweep goes on with the same command and hydra.sweep.dir=DIR, or resume=auto)"
        )
    given = [o for o in overrides if o.key_or_group != "resume"]
    own = [str(o.input_line) for o in given if o.key_or_group.startswith("hydra")]
    task = [o for o in given if not o.key_or_group.startswith("hydra")]
    name = args.config_name or "config"
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="train"):
        path = search_path(args.config_dir)
        # presets may hold settings of Hydra: what is swept, by which sweeper and launcher
        presets = [
            str(o.input_line)
            for o in task
            if o.key_or_group in ("sweep", "experiment") and not o.is_sweep_override()
        ]
        arguments = [*path, *presets, *own]
        hydra = compose_config(name, arguments, with_hydra=True).hydra
        params = hydra.sweeper.get("params") or {}
        task = _merged(parse_overrides([f"{key}={item}" for key, item in params.items()]), task)
        search, jobs = None, []
        if hydra.sweeper.get("name") == "optuna":
            search = plan_search(hydra.sweeper, task, name, path)
        else:
            _refuse_other_sweepers(hydra.sweeper)
            jobs = _grid(task, name, path)
            _name_folders(jobs, hydra, name, arguments)
    sweep = Sweep(Path(str(hydra.sweep.dir)).absolute(), jobs, name, arguments, search)
    if any(o.key_or_group == "resume" and o.value() == continuing.AUTO for o in overrides):
        _choose_folder(sweep, own, hydra)
    if not any(job.config.dry_run for job in jobs):
        _place(sweep)
    return sweep


# ------------------------------------------------------------------------------------- the jobs


def _grid(task: Sequence[Override], name: str, path: list[str]) -> list[Job]:
    """Every combination of the swept values, checked."""
    for override in task:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{override.input_line}: only a search can draw from an interval;"
                " add hydra/sweeper=optuna"
            )
    swept = {o.get_key_element() for o in task if o.is_sweep_override()}
    try:
        (combinations,) = BasicSweeper.split_arguments(list(task), None)
    except HydraException as error:
        raise UserError(one_line(error)) from error
    jobs = []
    for number, texts in enumerate(combinations):
        of_job = [text for text in texts if text.partition("=")[0] in swept]
        try:
            config = checked(name, [*path, *texts])
        except UserError as error:
            where = f"job {number} ({' '.join(texts)}): " if len(combinations) > 1 else ""
            raise UserError(where + str(error)) from error
        jobs.append(Job(number, list(texts), of_job, config))
    _refuse_twins(jobs)
    return jobs


def _merged(params: list[Override], task: list[Override]) -> list[Override]:
    """A preset's parameters and the command line's, which win."""
    named = {o.key_or_group for o in task}
    return [o for o in params if o.key_or_group not in named] + task


def _refuse_other_sweepers(sweeper: DictConfig) -> None:
    target = str(sweeper.get("_target_"))
    if not target.endswith(".BasicSweeper"):
        raise UserError(f"hydra/sweeper={target}: must be basic or optuna")


def _refuse_twins(jobs: list[Job]) -> None:
    """Two jobs with equal settings: a swept value is given twice, or something overrides it."""
    for job in jobs:
        first = next(other for other in jobs if other.config == job.config)
        if first is not job:
            raise UserError(
                f"jobs {first.number} ({' '.join(first.overrides)}) and {job.number}"
                f" ({' '.join(job.overrides)}) have the same settings; sweep each value once"
            )


# ---------------------------------------------------------------------------------- the folders


def job_folder(swept: str, number: Any) -> str:
    """A job's folder: its swept settings, made safe and, where too long for a name, shortened."""
    name = re.sub(r"[^\w=,.+\-\[\]]+", "_", swept) or str(number)
    if len(name.encode()) > 120:
        short = sha256(swept.encode()).hexdigest()[:12]
        name = name.encode()[:100].decode(errors="ignore") + "-" + short
    return name


def _name_folders(jobs: list[Job], hydra: DictConfig, name: str, arguments: list[str]) -> None:
    """Each job's folder, relative to the sweep's: our name, or hydra.sweep.subdir=…"""
    template = OmegaConf.to_container(hydra.sweep)
    assert isinstance(template, dict)
    by_name: dict[str, Job] = {}
    for job in jobs:
        if template["subdir"] == OWN_NAME:
            subdir = job_folder(",".join(job.swept), job.number)
        else:
            cfg = compose_config(name, [*arguments, *job.overrides], with_hydra=True)
            with open_dict(cfg):
                cfg.hydra.job.num = cfg.hydra.job.id = job.number
            subdir = str(OmegaConf.select(cfg, "hydra.sweep.subdir"))
        other = by_name.setdefault(subdir, job)
        if other is not job:
            raise UserError(f"{other} and {job} would share the folder {subdir}")
        job.folder = Path(subdir)


def _choose_folder(sweep: Sweep, own: list[str], hydra: DictConfig) -> None:
    """resume=auto: the newest sweep with these jobs, else the new folder that is planned."""
    if any(text.startswith("hydra.sweep.dir=") for text in own):
        return
    template = OmegaConf.to_container(hydra.sweep)
    assert isinstance(template, dict)
    base = Path(str(template["dir"]).partition("${")[0] or ".")
    found = [
        path
        for path in base.rglob(JOBS)
        if continuing.read_json(path).get("identity") == sweep.identity
    ]
    if found:
        sweep.folder = max(found, key=lambda path: path.stat().st_mtime).parent.absolute()
        sweep.note = f"resume=auto: going on with the sweep in {sweep.folder}"
    else:
        sweep.note = f"resume=auto: no sweep of these jobs below {base}: a new one"


def _place(sweep: Sweep) -> None:
    """Give every job its folder: where its run is already, else its own, which must be free."""
    free = continuing.runs_below(sweep.folder)
    places: dict[int, Path] = {}
    # compile=true,false compute the same: first those that are equal in everything
    for ignore in (frozenset({"resume", "dry_run"}), INCIDENTAL):
        for job in sweep.jobs:
            for run in free:
                if job.number not in places and not differing(run.config, job.config, ignore):
                    places[job.number] = run.folder
                    free.remove(run)
                    break
    for job in sweep.jobs:
        job.folder = places.get(job.number, sweep.folder / job.folder)
        if job.number not in places:
            try:
                continuing.refuse_other(job.folder, job.config)
            except UserError as error:
                raise UserError(f"{job}: {error}") from error
        if [other.folder for other in sweep.jobs[: job.number]].count(job.folder):
            raise UserError(f"{job}: another job goes on in {job.folder}; choose another folder")
        if is_locked(job.folder):
            raise UserError(f"{job}: another process trains in {job.folder}; wait until it ends")
