"""Count the jobs of a sweep that are trained a minute: python -m benchmarks.sweep.

Small jobs, for which everything around the training counts: start-up, settings, data, checkpoints,
logs, pictures, the report. Whole commands are timed, in alternation.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, environment, processes, table
from benchmarks.measurement import spread
from benchmarks.workloads import MLP

TWO = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
WAYS = {
    "one after the other": (),
    "two at once": TWO,
    "two at once, each run drawn": (*TWO, "figures=all"),
}
SEEDS = "seed=0,1,2,3"


@dataclass(frozen=True)
class Timed:
    """One sweep: a whole command, from Enter to its last line."""

    jobs: int
    seconds: float
    cpu_seconds: float  # of all its processes; hardly changes while others use the machine
    best: float  # mean test ELBO of all jobs: equal for every way

    @property
    def jobs_per_minute(self) -> float:
        """Jobs that this sweep trains in a minute."""
        return 60 * self.jobs / self.seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print and write. Returns 1 where a sweep failed or gave other numbers."""
    parser = argparse.ArgumentParser("python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few jobs, one round: a smoke test")
    parser.add_argument("--only", choices=("digits", "mnist"), help="this work alone")
    parser.add_argument("--rounds", type=int, help="alternations (3; with --quick 1)")
    parser.add_argument("--data-dir", help="where MNIST lies, as vae-train's data_dir")
    parser.add_argument("--output", type=Path, default=environment.RESULTS, help="JSON's folder")
    asked = parser.parse_args(argv)
    about, started = environment.describe(), time.perf_counter()
    print(environment.in_a_line(about), end="\n\n", flush=True)
    content: dict[str, Any] = {"environment": about, "works": {}}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vae-sweep-") as place:
        for name, settings in works(asked.quick, asked.data_dir, Path(place)).items():
            if asked.only in (None, name):
                rounds = asked.rounds or (1 if asked.quick else 3)
                found = alternate(settings, rounds, Path(place), failures)
                shown = [word for word in settings if place not in word]  # no folders of here
                plain = {
                    way: [asdict(timed) for timed in several] for way, several in found.items()
                }
                content["works"][name] = {"settings": shown, "ways": plain}
                print(f"**{name}** (`vae-train -m {' '.join(shown)}`)\n\n{tabulated(found)}\n")
    content |= {"failures": failures, "seconds": time.perf_counter() - started}
    print(f"{content['seconds']:.0f} s; {environment.write('sweep', content, asked.output)}")
    return 1 if failures else 0


def works(quick: bool, data_dir: str | None, place: Path) -> dict[str, list[str]]:
    """Return the command lines: 16 jobs on the digits, 8 on MNIST or on random images as large.

    place: the folder into which the images are written. quick: two jobs each, of an epoch.
    """
    folder = data.folder(data_dir)
    at_hand = (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()
    images = replace(MLP, data="mnist" if at_hand else "synthetic", test_examples=2_000)
    for part, array in zip(("train", "test"), data.load(images, folder), strict=True):
        np.save(place / f"{part}.npy", array[:1_000] if quick else array)
    files = [f"dataset.{part}={place / part}.npy" for part in ("train", "test")]
    arrays = ["dataset=arrays", "likelihood=bernoulli", "dataset.layout=chw", *files]
    if quick:
        return {
            "digits": ["dataset=digits", "epochs=1", "beta=1,4"],
            "mnist": [*arrays, "epochs=1", "beta=1,4"],
        }
    return {
        "digits": ["dataset=digits", "epochs=20", "beta=0.5,1,2,4", SEEDS],
        "mnist": [*arrays, "epochs=3", "beta=1,4", SEEDS],
    }


def alternate(
    settings: list[str], rounds: int, place: Path, failures: list[str]
) -> dict[str, list[Timed]]:
    """Time every way once in each round, one after the other. -> the rounds of each way."""
    ways = {way: words for way, words in WAYS.items() if not words or find_spec("joblib")}
    if len(ways) < len(WAYS):
        print("joblib is not installed: pip install 'vae-cli[joblib]'")
    found: dict[str, list[Timed]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, words in ways.items():
            try:
                found[way].append(sweep([*settings, *words], place))
            except (processes.Failed, OSError, KeyError) as error:
                failures.append(f"{way}: {error}")
                print(f"failed: {failures[-1]}", file=sys.stderr, flush=True)
    elbos = {timed.best for several in found.values() for timed in several}
    if len(elbos) > 1:
        failures.append(f"the ways gave different numbers: {sorted(elbos)}")
        print(f"failed: {failures[-1]}", file=sys.stderr)
    return found


def sweep(settings: list[str], place: Path) -> Timed:
    """Time one sweep as a command in a fresh folder. Raises processes.Failed."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        before = os.times()
        words = ["-m", "vae_cli", "-m", *settings, f"hydra.sweep.dir={folder}/all"]
        ended = processes.run(words)
        after = os.times()
        summaries = [json.loads(p.read_text()) for p in Path(folder).glob("all/*/summary.json")]
    cpu = sum(after[2:4]) - sum(before[2:4])  # user and system, of children
    elbos = [summary["metrics"]["test/elbo"] for summary in summaries]
    return Timed(len(summaries), ended.seconds, cpu, sum(sorted(elbos)) / len(elbos))


def tabulated(found: dict[str, list[Timed]]) -> str:
    """Write the table of a work: medians (least–most) over the rounds."""
    head = ("way", "jobs a minute", "s, whole", "CPU s", "mean test ELBO")
    rows = [
        [
            way,
            spread([timed.jobs_per_minute for timed in several]).text(".0f"),
            spread([timed.seconds for timed in several]).text(".1f"),
            spread([timed.cpu_seconds for timed in several]).text(".1f"),
            f"{several[0].best:.4f}",
        ]
        for way, several in found.items()
        if several
    ]
    return table.markdown(head, rows)


if __name__ == "__main__":
    sys.exit(main())
