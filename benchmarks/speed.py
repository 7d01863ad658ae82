"""Compare vae-train with its alternatives and with a lower bound: python -m benchmarks.speed.

Every contender runs in a fresh process, in alternation, so that a slow moment of the machine slows
all of them; ratios are taken within a round. This process loads no torch.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import beta_curves, data, environment, ours, processes, startup, table, workloads
from benchmarks.contenders.task import Task
from benchmarks.measurement import Measured, Rounds
from benchmarks.workloads import SELDOM, SELDOM_ROUNDS, Work

PARTS = ("startup", "mlp", "iwae", "digits", "conv", "conv64", "beta", "growth")
QUICK_PARTS = ("startup", "mlp", "conv")
NEEDS = {"pythae": ("pythae",), "jax": ("jax", "optax")}
QUIET_LOAD = 0.5  # load average up to which no warning is given


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    made.add_argument("--quick", action="store_true", help="less data, one round: a smoke test")
    made.add_argument("--only", choices=PARTS, action="append", help="this part; can be repeated")
    made.add_argument(
        "--rounds",
        type=_positive,
        help="alternations, of everything (else as the works say: 5, fewer where they are slow)",
    )
    made.add_argument("--threads", type=_positive, help="cores and threads for every contender")
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--data-dir", help="where MNIST lies, as vae-train's data_dir")
    made.add_argument("--output", type=Path, default=environment.RESULTS, help="the JSON's folder")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 where a contender failed."""
    arguments = parser().parse_args(argv)
    if arguments.threads:
        limit_threads(arguments.threads)
    about = environment.describe()
    print(environment.in_a_line(about), end="\n\n", flush=True)
    if about["load_average"] > QUIET_LOAD:
        print(f"warning: load average {about['load_average']:.1f}: not quiet", file=sys.stderr)
    started = time.perf_counter()
    content, failures = measure(arguments)
    content = {"environment": about, "arguments": _plain(arguments)} | content
    content |= {"failures": failures, "seconds": time.perf_counter() - started}
    path = environment.write("speed", content, arguments.output)
    print(f"{content['seconds']:.0f} s; {path}")
    return 1 if failures else 0


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Measure every part that was asked for. Returns the JSON's content and the failures."""
    folder = data.folder(arguments.data_dir).resolve()
    device, quick = arguments.device, arguments.quick
    parts = arguments.only or (QUICK_PARTS if quick else PARTS)
    content: dict[str, Any] = {}
    failures: list[str] = []

    def compared(work: Work) -> Rounds:
        task = Task(work, str(folder), device)
        found = alternate(task, arguments.rounds, failures)
        content[work.name] = {
            "work": asdict(work),
            "rounds": [{k: asdict(v) for k, v in one.items()} for one in found],
        }
        return found

    if "startup" in parts:
        try:
            content["startup"] = startup.measure(
                arguments.rounds or (1 if quick else 4), folder, device
            )
            print(table.startup(content["startup"]), end="\n\n", flush=True)
        except processes.Failed as error:
            _note(failures, f"startup: {error}")
    for work in workloads.works(quick):
        if work.name in parts:
            print(table.comparison(work, compared(work)), end="\n\n", flush=True)
    if "beta" in parts:
        try:
            content["beta"] = beta_curves.measure(quick, folder, device)
            print(table.beta(content["beta"]), end="\n\n", flush=True)
        except processes.Failed as error:
            _note(failures, f"beta: {error}")
    if "growth" in parts:
        works = workloads.growth()
        print(table.growth(works, [compared(work) for work in works]), end="\n\n", flush=True)
    return content, failures


def alternate(task: Task, rounds: int | None, failures: list[str]) -> Rounds:
    """Run every contender once in each round, one after the other.

    rounds None: as many as the work says, with the SELDOM contenders in the first one only.
    """
    missing = [
        name
        for name in task.work.contenders
        if any(find_spec(package) is None for package in NEEDS.get(name, ()))
    ]
    for name in missing:
        print(f"{task.work.name}: {name} is not installed: pip install 'vae-cli[bench]'")
    found: Rounds = []
    for seed in range(rounds or task.work.rounds):
        found.append({})
        for name in task.work.contenders:
            seldom = rounds is None and name in SELDOM and seed >= SELDOM_ROUNDS
            if name in missing or seldom:
                continue
            try:
                found[-1][name] = one(name, replace(task, seed=seed))
            except processes.Failed as error:
                _note(failures, f"{task.work.name}, {name}: {error}")
    return found


def one(name: str, task: Task) -> Measured:
    """Run one contender in a fresh process. " bf16" behind a name is its precision."""
    base = name.removesuffix(" bf16")
    if base != name:
        task = replace(task, precision="bf16")
    if base in ours.EXTRA:
        return ours.run(task, ours.EXTRA[base])
    ended = processes.run(["-m", "benchmarks.contenders", base, task.to_json()])
    return Measured(**processes.result(ended))


def limit_threads(count: int) -> None:
    """Limit this process and its children to `count` cores and threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)


def _note(failures: list[str], text: str) -> None:
    failures.append(text)
    print(f"failed: {text}", file=sys.stderr, flush=True)


def _plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments without the folders of this machine."""
    kept = vars(arguments)
    return {k: v for k, v in kept.items() if k not in ("data_dir", "output")}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
