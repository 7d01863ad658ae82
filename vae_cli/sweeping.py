"""A sweep from its plan to its exit code: what is finished stays, what is half done goes on."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vae_cli import continuing
from vae_cli.errors import UserError
from vae_cli.files import write_json, write_text
from vae_cli.hparams import given_keys, settings, varied
from vae_cli.identity import identity
from vae_cli.jobs import FAILED, INTERRUPTED, TERMINATED, Job, Train
from vae_cli.launching import Launched, Launcher, launcher
from vae_cli.locking import locked
from vae_cli.report.writing import write_report
from vae_cli.resuming import has_checkpoint
from vae_cli.sweep_planning import JOBS, Sweep


def run(sweep: Sweep, train: Train) -> int:
    """Run what is left of a sweep. Returns its exit code. Raises UserError before any work."""
    if any(job.config.dry_run for job in sweep.jobs):
        with tempfile.TemporaryDirectory() as place:
            jobs = [replace(job, folder=Path(place, job.folder)) for job in sweep.jobs]
            return _run(replace(sweep, folder=Path(place), jobs=jobs), train)
    if sweep.note:
        print(f"vae-train: {sweep.note}", file=sys.stderr)
    made = not sweep.folder.exists()
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"hydra.sweep.dir={sweep.folder}: cannot be made: {error.strerror}; choose another"
        ) from error
    try:
        with locked(sweep.folder):
            code = _run(sweep, train)
    except UserError:
        if made and not any(sweep.folder.rglob("config.yaml")):  # no job has begun
            shutil.rmtree(sweep.folder)
        raise
    stopped = code in (INTERRUPTED, TERMINATED)  # someone waits: numbers, no pictures
    print(write_report(sweep.folder, len(sweep.jobs), figures=not stopped), flush=True)
    return code


def _run(sweep: Sweep, train: Train) -> int:
    if sweep.search:
        swept = tuple(item.key for item in sweep.search.space)
    else:
        given = given_keys(text for job in sweep.jobs for text in job.overrides)
        swept = tuple(varied([settings(job.config) for job in sweep.jobs], given))
    with launcher(sweep.config_name, sweep.arguments, sweep.folder) as launch:
        if sweep.search:
            from vae_cli.search.study import run as search  # imports Optuna

            _write_jobs(sweep, launch)
            return search(sweep.search, sweep.folder, launch, Job(train, swept))
        held = {job.number: continuing.held(job.folder) for job in sweep.jobs}
        finished = {
            job.number
            for job in sweep.jobs
            if (run := held[job.number]) is not None and run.is_finished(job.config)
        }
        _write_jobs(sweep, launch)
        _say_what_is_left(sweep, held, finished)
        left = [job for job in sweep.jobs if job.number not in finished]
        jobs = [Launched(job.overrides, job.folder) for job in left]
        codes = launch(jobs, Job(train, swept, len(jobs))) if jobs else []
    if launch.stopped:
        print(f"vae-train: the sweep was stopped; {launch.how_to_go_on}", file=sys.stderr)
        return launch.stopped
    missing = [job for job, code in zip(left, codes, strict=True) if code is None]
    if missing:
        print(
            f"vae-train: {len(missing)} jobs were not heard of, {missing[0]} among them; the same"
            " command goes on with them",
            file=sys.stderr,
        )
    return FAILED if any(codes) or missing else 0


def _write_jobs(sweep: Sweep, launch: Launcher) -> None:
    """What the sweep was started with, for a repetition and for whoever reads the folder."""
    jobs: list[dict[str, Any]] = [
        {
            "number": job.number,
            "folder": str(job.folder.relative_to(sweep.folder)),
            "swept": dict(text.partition("=")[::2] for text in job.swept),
            "overrides": job.overrides,
            "identity": identity(job.config),
        }
        for job in sweep.jobs
    ]
    before = continuing.read_json(sweep.folder / JOBS).get("identity", sweep.identity)
    if sweep.search and before != sweep.identity:
        raise UserError(
            f"hydra.sweep.dir={sweep.folder} holds another search; choose another folder"
        )
    write_json(sweep.folder / JOBS, {"identity": sweep.identity, "jobs": jobs})
    write_text(sweep.folder / "multirun.yaml", OmegaConf.to_yaml(launch.cfg))


def _say_what_is_left(sweep: Sweep, held: dict[int, Any], finished: set[int]) -> None:
    begun = sum(
        run is not None and number not in finished and has_checkpoint(run.folder)
        for number, run in held.items()
    )
    if finished or begun:
        new = len(sweep.jobs) - len(finished) - begun
        print(
            f"vae-train: {len(sweep.jobs)} jobs: {len(finished)} are finished, {begun} go on,"
            f" {new} begin; {sweep.folder}",
            file=sys.stderr,
        )
