"""The jobs of a sweep in words: a list of them, a line before and a line after each. No torch."""

import shlex
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from vae_cli.config.check import short_names
from vae_cli.console import count, one_line
from vae_cli.runs.saved import read_summary
from vae_cli.sweeps.plan import Job, Sweep

CONSOLE = "console.log"  # in the folder of a job: what it printed


def title(sweep: Sweep, job: Job) -> str:
    """Name a job by its number and what is swept: 'job 3/15 beta=1,seed=2'."""
    names = short_names(job.swept)
    settings = ",".join(f"{names[key]}={value}" for key, value in job.swept.items())
    return f"job {job.number + 1}/{len(sweep.jobs)} {settings}".rstrip()


def outcome(job: Job, refused: bool, printed: Sequence[str]) -> str:
    """Say how a job ended: its test metrics, or its error, and how many warnings it printed.

    refused: no run began. printed: the lines in its console.log.
    """
    summary = read_summary(job.folder)
    numbers, seconds = summary.get("metrics") or {}, f"{summary.get('seconds', 0):.1f} s"
    if refused or not summary:
        text = f"failed: {printed[-1].removeprefix('vae-train: ') if printed else 'see above'}"
    elif summary["status"] == "completed":
        shown = ("elbo", "reconstruction", "kl")
        metrics = ", ".join(f"{name} {numbers[f'test/{name}']:.3f}" for name in shown)
        text = f"test {metrics}, {seconds}"
    else:
        epochs = f"{summary.get('epochs', 0)}/{job.config.epochs}"
        text = f"{summary['status']}, {epochs}, {seconds}: {one_line(summary.get('error') or '')}"
    warnings = sum(line.startswith("warning:") for line in printed)
    also = f"; {count(warnings, 'warning')} in {job.folder / CONSOLE}" if warnings else ""
    return text.rstrip(": ") + also


def preview(sweep: Sweep, dry_run: bool) -> int:
    """List the jobs, or what a search draws from, and return the exit code.

    dry_run: try each job, and print its sizes and times.
    """
    if sweep.search is not None:
        what, fixed = count(sweep.search.settings.n_trials, "trial"), sweep.search.fixed
        space: dict[str, Any] = {**sweep.search.space}
        lines = [
            f"{key}: {', '.join(getattr(x, 'choices', ())) or f'{x.low:g} to {x.high:g}'}"
            for key, x in space.items()
        ]
    else:
        what, swept = count(len(sweep.jobs), "job"), sweep.jobs[0].swept
        fixed = [x for x in sweep.jobs[0].overrides if x.partition("=")[0] not in swept]
        lines = [title(sweep, job) + ": finished" * job.is_finished for job in sweep.jobs]
    common = shlex.join(["vae-train", *sweep.switches, *fixed])
    print(f"{what} of {common}", *lines * (not dry_run), sep="\n  ", flush=True)
    if dry_run:
        for job in sweep.jobs:
            import_module("vae_cli.training.dry_run").dry_run(job.config, title(sweep, job))
        print("dry run: nothing was kept")
    return 0
