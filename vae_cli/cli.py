"""The commands vae-train, vae-eval and vae-report: from a command line to an exit code.

Everything is checked before any work begins: a mistake costs one line, exit code 2 and no folder.
This module imports no torch, so that help, completion and mistakes are answered at once.
"""

import logging
import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vae_cli.config import compose
from vae_cli.config.check import as_container, nearest, schema_of, validated
from vae_cli.config.help import EVAL, REPORT, TRAIN, eval_words, help_text
from vae_cli.config.plugins import load_plugins, named_plugins
from vae_cli.config.settings import rewritten
from vae_cli.console import Forgiving, UserError, be_polite, count, say, table
from vae_cli.runs import saved
from vae_cli.runs.interrupt import signals_interrupt
from vae_cli.sweeps.calls import planned, rank, run_single
from vae_cli.sweeps.launch import answer, run_sweep, through_hydra
from vae_cli.sweeps.plan import plan_sweep


def main() -> NoReturn:
    """Entry point of `vae-train` and of `python -m vae_cli`."""
    be_polite()
    _end(lambda: run(sys.argv[1:]))


def eval_main() -> NoReturn:
    """Entry point of `vae-eval`."""
    _end(lambda: answer("vae-eval", lambda: _eval(sys.argv[1:])))


def report_main() -> NoReturn:
    """Entry point of `vae-report`."""
    _end(lambda: answer("vae-report", lambda: _report(sys.argv[1:])))


def _end(work: Callable[[], int]) -> NoReturn:
    """Do the work, also where nobody reads what it prints, and end with its exit code."""
    streams = (sys.stdout, sys.stderr)  # None: closed before the program began
    sys.stdout, sys.stderr = (stream and Forgiving(stream) for stream in streams)
    sys.exit(work())


def run(argv: Sequence[str]) -> int:
    """Do what a command line of vae-train says. Returns the exit code."""
    if not rank():
        return answer("vae-train", lambda: _train(argv))
    # torchrun started this process beside rank 0, which prints for all
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return answer("vae-train", lambda: _train(argv))


class Parser(ArgumentParser):
    """Reads the command line of a command: switches among other words. Raises UserError."""

    def __init__(self, command: str, *switches: str, alone: str = "run") -> None:
        """switches: "--multirun -m"; one that takes a value ends in "=".

        alone: the setting whose value a folder is that stands alone; "" without settings.
        """
        super().__init__(command, add_help=False, allow_abbrev=False)
        self.alone = alone
        for names in ("--help -h", "--version", "--shell-completion -sc", *switches):
            action = "store" if names.endswith("=") else "store_true"
            self.add_argument(*names.rstrip("=").split(), action=action)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help shows how it is used")

    def read(self, argv: Sequence[str], text: Callable[[Namespace], str]) -> Namespace | None:
        """Return what was typed; None after a call for help, `text`, or for the versions."""
        args, unknown = self.parse_known_intermixed_args(list(argv))
        if unknown:
            typed, after = unknown[0], [*argv[argv.index(unknown[0]) + 1 :], "--"][0]
            if "=" not in typed + after and not after.startswith("--"):
                typed += f" {after}"
            switch, _, value = typed.replace(" ", "=", 1).partition("=")
            how = self.alone and rewritten(switch, value, cutoff=0.8)
            raise UserError(f"{typed}: {how or f'no such switch; {self.prog} --help lists them'}")
        if args.version:  # those on which the numbers depend
            packages = {self.prog: "vae-cli", "torch": "torch", "hydra-core": "hydra-core"}
            print(", ".join(f"{name} {metadata.version(p)}" for name, p in packages.items()))
            return None
        args.switches = [word for word in argv if word not in args.overrides]
        args.overrides = [self._setting(word) for word in args.overrides]
        load_plugins(named_plugins(args.overrides))
        if args.help:
            print(text(args))
        return None if args.help else args

    def _setting(self, word: str) -> str:
        """Write a folder that stands alone as a setting: outputs/a -> run=outputs/a."""
        before, equals, _ = word.partition("=")
        is_path = ("/" in before or not equals) and os.path.exists(os.path.expanduser(word))
        return f"{self.alone}={word}" if self.alone and (is_path or word == "latest") else word


# ----------------------------------------------------------------------------------- vae-train


def _train(argv: Sequence[str]) -> int:
    switches = ("--multirun -m", "--resolve", "--run -r", "--hydra-help")
    values = ("--config-dir -cd=", "--config-name -cn=", "--package -p=")
    parser = Parser("vae-train", *switches, *values, alone="resume")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--info", "-i", nargs="?", const="all")
    parser.add_argument("overrides", nargs="*")
    args = parser.read(argv, lambda a: help_text("config", TRAIN, a.overrides, a.config_dir))
    if args is None:
        return 0
    if args.hydra_help or args.info or args.shell_completion:
        return through_hydra(argv, lambda cfg: None)
    if args.multirun and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("-m: several processes (torchrun) share one run; leave out -m")
    if args.multirun and (given := [w for w in args.overrides if w.startswith("hydra.run.dir=")]):
        raise UserError(f"{given[0]}: of a single run; a sweep has hydra.sweep.dir=DIR")
    signals_interrupt()
    args.switches = [word for word in args.switches if word not in ("-m", "--multirun")]
    return _sweep(args) if args.multirun else _single(args)


def _single(args: Namespace) -> int:
    """Check a single run, then do it."""
    name = args.config_name or "config"
    config, folder, words = planned(args.overrides, name, args.config_dir)
    words = [*args.switches, *words]
    if args.cfg:
        return through_hydra(words, lambda cfg: None)
    if config.dry_run:
        import_module("vae_cli.training.dry_run").dry_run(config)
        return 0
    return run_single(config, folder, words)


def _sweep(args: Namespace) -> int:
    """Check all jobs of a sweep, or the space of a search, then list them or do what is left."""
    sweep = plan_sweep(args.overrides, args.config_name or "config", args.config_dir)
    dry_run = any(job.settings["dry_run"] for job in sweep.jobs)
    if not args.cfg and not dry_run:
        return run_sweep(sweep)
    lines = [sweep.title(job) + ": finished" * job.is_finished for job in sweep.jobs]
    if sweep.search is not None:
        what, fixed = count(sweep.search.settings.n_trials, "trial"), sweep.search.fixed
    else:
        what, swept = count(len(lines), "job"), sweep.jobs[0].swept
        fixed = [x for x in sweep.jobs[0].overrides if x.partition("=")[0] not in swept]
    common = shlex.join(["vae-train", *sweep.switches, *fixed])
    print(f"{what} of {common}", *lines * (not dry_run), sep="\n  ", flush=True)
    if dry_run:
        for job in sweep.jobs:
            import_module("vae_cli.training.dry_run").dry_run(job.config, sweep.title(job))
        print("dry run: nothing was kept")
    return 0


# ------------------------------------------------------------------------- vae-eval, vae-report


def _eval(argv: Sequence[str]) -> int:
    import_module("vae_cli.analysis.settings")  # registers the tasks
    parser = Parser("vae-eval")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("overrides", nargs="*")
    args = parser.read(argv, lambda args: help_text("eval", EVAL, args.overrides))
    if args is None:
        return 0
    if args.shell_completion:
        return _complete(argv, eval_words(os.environ.get("COMP_LINE", "").split()))
    plain = compose.plain_settings("eval", args.overrides)
    try:
        chosen = {"task": plain["task"]}
        task: Any = validated(schema_of("task", {"name": plain["task"]}), plain, chosen=chosen)
    except UserError as error:
        raise UserError(compose.as_typed(str(error), args.overrides)) from error
    if args.cfg:
        print(yaml.safe_dump(as_container(task), sort_keys=False, allow_unicode=True), end="")
        return 0
    if missing := [key for key, item in plain.items() if item == "???"]:
        raise UserError(f"{missing[0]} is missing: give {missing[0]}=…")
    try:
        folder = saved.folder_of(task.run, *saved.OF_BEST)
        if task.run == "latest":
            folder = saved.latest_run(Path(task.outputs).expanduser())
        problems = list(task.problems(saved.saved_config(folder)))
    except UserError as error:
        raise UserError(f"run={error}") from error
    if problems:
        raise UserError(problems[0])
    logging.captureWarnings(True)
    say(f"task={task.name} of {folder}")
    from vae_cli.analysis.tasks import run_task  # imports torch

    report = run_task(task, folder)
    print(table(report.rows), end="\n\n")
    for line in (*(f"note: {note}" for note in report.notes), *report.files):
        print(f"  {line}")
    return 0


def _complete(argv: Sequence[str], words: Sequence[str]) -> int:
    """Answer the script that `-sc install=SHELL` prints, which is Hydra's: the words to choose."""
    if "query=" not in "".join(argv):
        return through_hydra(argv, lambda cfg: None)
    print("\n".join(words))
    return 0


def _report(argv: Sequence[str]) -> int:
    parser = Parser("vae-report", "--no-figures", "--out=", "--metric=", alone="")
    formats = ("table", "csv", "json", "markdown")
    parser.add_argument("--format", choices=formats)
    parser.add_argument("overrides", nargs="*")
    options = ("metric", "format", "out")
    words = [f"--{word}" if word.partition("=")[0] in options else word for word in argv]
    args = parser.read(words, lambda args: REPORT)
    if args is None:
        return 0
    if args.shell_completion:
        words = [f"format={name}" for name in formats]
        return _complete(argv, [*words, "metric=", "out=", "plugins=", "--no-figures"])
    words = [word.removeprefix("run=") for word in args.overrides if word[:8] != "plugins="]
    folders = [Path(os.path.expanduser(word)) for word in words]
    if unknown := [w for w in words if "=" in w and not os.path.exists(os.path.expanduser(w))]:
        near = nearest(unknown[0].partition("=")[0], ["run", "plugins", *options])
        raise UserError(f"{unknown[0]}: no such setting or folder{near}")
    if not folders:
        raise UserError("give the folder of a sweep or of runs; vae-report --help shows how")
    from vae_cli.sweeps import report  # imports pandas
    from vae_cli.sweeps import table as runs

    sweep = runs.compare(folders, args.metric)
    if args.format is not None:
        print(report.FORMATS[args.format](sweep), end="")
        return 0
    print(report.terminal(sweep), flush=True)
    if args.out is None and (folders[0] / "config.yaml").is_file():
        print("\n  out=DIR writes the report's files; nothing is written into a run")
        return 0
    out = folders[0] if args.out is None else Path(args.out).expanduser()
    files, failed = report.write_report(sweep, out, figures=not args.no_figures)
    print("\n".join(["", *(f"  {path}" for path in files), *(f"warning: {x}" for x in failed)]))
    return 0
