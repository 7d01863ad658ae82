"""The jobs of a sweep in words: a list of them, a line before and a line after each. No torch."""

import shlex
from importlib import import_module

from vae_cli.config.check import short_names
from vae_cli.console import count, one_line
from vae_cli.runs.saved import read_summary
from vae_cli.sweeps.plan import Job, Sweep

CONSOLE = "console.log"  # in the folder of a job: what it printed


def title(sweep: Sweep, job: Job) -> str:
    """Name a job by its number and what is swept: 'job 3/15 beta=1,seed=2'."""
    names = short_names(job.swept)
    settings = ",".join(f"{names[key]}={value}" for key, value in job.swept.items())
    return f"job {job.number}/{len(sweep.jobs)} {settings}".rstrip()


def outcome(job: Job, refused: bool) -> str:
    """Say how a job ended: its test metrics, or its error. refused: no run began."""
    summary, console = read_summary(job.folder), job.folder / CONSOLE
    numbers, seconds = summary.get("metrics") or {}, f"{summary.get('seconds', 0):.1f} s"
    if refused or not summary:
        lines = console.read_text().splitlines() if console.is_file() else []
        return f"failed: {lines[-1].removeprefix('vae-train: ') if lines else 'see above'}"
    if summary["status"] == "completed":
        shown = ("elbo", "reconstruction", "kl")
        metrics = ", ".join(f"{name} {numbers[f'test/{name}']:.3f}" for name in shown)
        return f"test {metrics}, {seconds}"
    epochs = f"{summary.get('epochs', 0)}/{job.settings['epochs']}"
    error = one_line(summary.get("error") or "")
    return f"{summary['status']}, {epochs}, {seconds}: {error}".rstrip(": ")


def preview(sweep: Sweep, dry_run: bool) -> int:
    """List the jobs and return the exit code. dry_run: try each, print its sizes and times."""
    lines = [title(sweep, job) + ": finished" * job.is_finished for job in sweep.jobs]
    if sweep.search is not None:
        what, fixed = count(sweep.search.settings.n_trials, "trial"), sweep.search.fixed
    else:
        what, swept = count(len(lines), "job"), sweep.jobs[0].swept
        fixed = [x for x in sweep.jobs[0].overrides if x.partition("=")[0] not in swept]
    common = shlex.join(["vae-train", *sweep.switches, *fixed])
    print(f"{what} of {common}", *lines * (not dry_run), sep="\n  ", flush=True)
    if dry_run:
        for job in sweep.jobs:
            import_module("vae_cli.training.dry_run").dry_run(job.config, title(sweep, job))
        print("dry run: nothing was kept")
    return 0
