"""Inject faults into real runs and count what survives.

    python -m benchmarks.faults [--quick] [--only PART] [--stops 60] [--seed 0] [--output DIR]

Each fault hits the real command in a process of its own. A run that was hit goes on, and must end
with the weights, the metrics and the TensorBoard points of a run that nothing happened to, bit for
bit. The script prints a table, writes a dated JSON file, and ends with 1 where anything was lost.
"""

import argparse
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import environment, table
from vae_cli.runs import checkpoint
from vae_cli.runs.saved import has_checkpoint, read_metrics, read_summary

TIMEOUT = 300.0  # seconds for one process, importing torch included
# a moment -> the new file that tells of it; None: any time in the first three seconds
MOMENTS = {"starting": None, "training": "events.out.*", "writing": "checkpoints/.last.ckpt.*"}
# the signals that a run gets one after the other, when, and the exit code that must follow
STOPS = (
    (signal.SIGKILL, "training", -signal.SIGKILL),
    (signal.SIGINT, "training", 130),
    (signal.SIGKILL, "writing", -signal.SIGKILL),
    (signal.SIGTERM, "training", 143),
    (signal.SIGKILL, "starting", -signal.SIGKILL),
    (signal.SIGUSR1, "training", 143),
)
Process = subprocess.Popen[str]


class Faults:
    """The settings of the runs, the run that nothing happens to, and the outcome of each fault."""

    def __init__(self, place: Path, asked: argparse.Namespace) -> None:
        self.place, self.quick, self.source = place, asked.quick, random.Random(asked.seed)
        self.stops = asked.stops or (6 if asked.quick else 60)
        self.losses: dict[str, list[str]] = {}  # kind of fault -> "" for each that cost nothing
        self.settings = [
            *("dataset=digits", "figures=none", "image_every=0", "batch_size=32", "log_every=5"),
            *("model.latent_dim=3", f"epochs={20 if asked.quick else 60}"),
            "checkpoint_minutes=0.001",  # every 60 ms: inside an epoch too
        ]
        code, said = finish(self.go_on(place / "whole"))
        assert code == 0, f"the uninterrupted run failed: {said}"
        self.outcome = outcome(place / "whole")
        self.seconds = read_summary(place / "whole")["seconds"]

    def start(self, *arguments: str) -> Process:
        """Start the command with one thread, so that runs can be compared bit for bit."""
        command = [sys.executable, "-m", "vae_cli", *arguments]
        paths = os.environ | {"PYTHONPATH": str(environment.ROOT), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.place, env=paths, text=True, stdout=pipe, stderr=pipe
        )

    def go_on(self, folder: Path) -> Process:
        """Start a process that goes on with a run, or begins one that has no checkpoint."""
        begin = [*self.settings, f"hydra.run.dir={folder}"]
        return self.start(*([f"resume={folder}"] if has_checkpoint(folder) else begin))

    @contextmanager
    def injected(self, kinds: Sequence[str]) -> Iterator[None]:
        """Count a fault of each kind: an AssertionError in the block is its loss."""
        loss = ""
        try:
            yield
        except (AssertionError, subprocess.TimeoutExpired) as error:
            loss = str(error)
            print(f"LOST ({', '.join(kinds)}): {loss}", file=sys.stderr)
        for kind in kinds:
            self.losses.setdefault(kind, []).append(loss)

    def ends_equal(self, folder: Path) -> None:
        """Let a run go on to its end. It must equal the whole run."""
        code, said = finish(self.go_on(folder))
        assert code == 0, f"going on ended with {code}: {said}"
        for name, value in outcome(folder).items():
            assert value == self.outcome[name], f"{folder.name}: {name} differs"


def outcome(folder: Path) -> dict[str, Any]:
    """What must be equal in two finished runs: all but the numbers of the clock."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("perf/")]
    last = checkpoint.load(folder / "checkpoints" / "last.ckpt")
    return {
        "status": read_summary(folder).get("status"),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        "metrics.jsonl": [
            {key: number for key, number in line.items() if not key.startswith("perf/")}
            for line in read_metrics(folder)
        ],
        "TensorBoard": {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags},
        "last.ckpt": {name: tensor.tolist() for name, tensor in last["vae"].items()},
        "number of half-written files": len([*folder.rglob(".*.tmp")]),
    }


def finish(process: Process) -> tuple[int, str]:
    """Wait for a process. Returns its exit code and what it wrote to stderr."""
    _, said = process.communicate(timeout=TIMEOUT)
    return process.returncode, said


def wait_for(process: Process, folder: Path, pattern: str, old: set[Path]) -> None:
    """Wait until a folder has a file of this pattern that is not old, or the process has ended."""
    until = time.monotonic() + TIMEOUT
    while process.poll() is None and old.issuperset(folder.glob(pattern)):
        assert time.monotonic() < until, f"{folder} has no {pattern}"
        time.sleep(0.0005)


def stops(faults: Faults) -> None:
    """Send kill -9 and other signals at random moments, several to each run."""
    done = run = 0
    while done < faults.stops:
        folder, kinds = faults.place / f"stopped-{run}", list[str]()
        with faults.injected(kinds):
            for number, moment, code in STOPS[: faults.stops - done]:
                pattern, old = MOMENTS[moment], {*folder.rglob("*")}
                process = faults.go_on(folder)
                if pattern:
                    wait_for(process, folder, pattern, old)
                if moment != "writing":
                    time.sleep(faults.source.random() * (faults.seconds / 3 if pattern else 3))
                process.send_signal(number)
                ended, said = finish(process)
                if read_summary(folder).get("status") == "completed":
                    break  # the run had reached its end before
                kinds.append(f"{number.name} while {moment}")
                assert ended == code, f"exit code {ended} and not {code}: {said}"
                assert code < 0 or f"resume={folder}" in said, f"no way to go on: {said}"
            faults.ends_equal(folder)
        done, run = done + len(kinds), run + 1


def damaged(faults: Faults) -> None:
    """Cut checkpoints or flip a bit: where the content is damaged, the former one is taken."""
    stopped, trial = faults.place / "damaged", faults.place / "trial"
    process = faults.go_on(stopped)
    wait_for(process, stopped, "checkpoints/best.ckpt", set())
    process.terminate()
    finish(process)
    last, former = (
        checkpoint.load(stopped / f"checkpoints/{n}.ckpt") for n in ("last", "previous")
    )
    for _ in range(50 if faults.quick else 500):
        shutil.copytree(stopped / "checkpoints", trial)
        damage(trial / "last.ckpt", faults.source)
        with faults.injected(["damaged last.ckpt"]):
            state, said = checkpoint.load_newest(trial)
            # a bit between the entries of the archive harms nothing, and nothing is said about it
            expected = former if "last.ckpt" in said else last
            assert state["step"] == expected["step"], "another checkpoint"
            for name, tensor in expected["vae"].items():
                assert tensor.equal(state["vae"][name]), f"{name} was damaged and loaded"
        shutil.rmtree(trial)
    damage(stopped / "checkpoints" / "last.ckpt", faults.source)
    with faults.injected(["damaged last.ckpt, then resumed"]):
        faults.ends_equal(stopped)
    with faults.injected(["damaged last.ckpt and previous.ckpt"]), suppress(checkpoint.Damaged):
        for path in (stopped / "checkpoints").iterdir():
            path.write_bytes(path.read_bytes()[:-99])
        assert not checkpoint.load_newest(stopped / "checkpoints"), "a cut checkpoint was loaded"


def damage(path: Path, source: random.Random) -> None:
    """Cut a file or flip one of its bits, at a random place."""
    content = path.read_bytes()
    where = source.randrange(len(content))
    flipped = bytes([content[where] ^ 1 << source.randrange(8)]) + content[where + 1 :]
    path.write_bytes(content[:where] + source.choice([b"", flipped]))


def full_disk(faults: Faults) -> None:
    """Fill a small tmpfs: the run ends cleanly, and with more room it goes on."""
    disk = faults.place / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        print("no tmpfs can be mounted here: the full disk is left out", file=sys.stderr)
        return
    try:
        with faults.injected(["full disk"]):
            code, said = finish(faults.go_on(disk / "run"))
            assert code == 1, f"exit code {code}: {said}"
            assert "No space left on device" in said, said
            assert "Traceback" not in said, said
            subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
            faults.ends_equal(disk / "run")
    finally:
        subprocess.run(["umount", str(disk)], capture_output=True)


def many(faults: Faults) -> None:
    """Start runs in one second: each gets a folder and whole files of its own."""
    count = 4 if faults.quick else 16
    with faults.injected([f"{count} runs at once"] * count):
        started = [faults.start(*faults.settings, "epochs=1") for _ in range(count)]
        ended = [finish(process) for process in started]
        assert not any(code for code, _ in ended), str(ended)
        outcomes = [outcome(p.parent) for p in faults.place.glob("outputs/*/*/config.yaml")]
        assert len(outcomes) == count, f"{len(outcomes)} folders"
        assert all(o == outcomes[0] for o in outcomes), "equal settings gave other numbers"


PARTS = {"stops": stops, "damaged": damaged, "disk": full_disk, "many": many}


def main() -> int:
    """Inject the faults. Returns 1 where something was lost."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of each kind: a minute or two")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; can be repeated")
    parser.add_argument("--stops", type=int, help="number of signals (60; with --quick 6)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and places")
    parser.add_argument("--output", type=Path, default=environment.RESULTS, help="JSON's folder")
    asked = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each purge
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vae-faults-") as place:
        faults = Faults(Path(place), asked)
        for name in asked.only or PARTS:
            PARTS[name](faults)
    seconds = round(time.monotonic() - started, 1)
    rows = [[kind, str(len(v)), str(sum(map(bool, v)))] for kind, v in faults.losses.items()]
    print(table.markdown(("fault", "injected", "lost"), rows))
    counts = {
        kind: {"injected": len(v), "lost": [*filter(None, v)]} for kind, v in faults.losses.items()
    }
    about = {"environment": environment.describe(), "settings": faults.settings, "seconds": seconds}
    print(f"\n{seconds} s, {environment.write('faults', about | {'faults': counts}, asked.output)}")
    return int(any(count["lost"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
