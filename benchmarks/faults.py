"""Inject faults into real runs and count what survives.

    python -m benchmarks.faults [--kills 50] [--quick] [--only PART] [--seed 0] [--out DIR]

Every fault hits the real command in a subprocess: kill -9 at random moments, signals, damaged
checkpoints, a full disk, hostile files. A run that was hit goes on and must end with the weights,
metrics and TensorBoard points of one that was not, bit for bit. Prints a table, writes a dated JSON
file, and ends with 1 where anything was lost. It needs no network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks import fault_tools as tools
from benchmarks import hostile
from benchmarks.fault_tools import Lost, need
from vae_cli import checkpoint
from vae_cli.run import git_commit, read_summary, versions

RESULTS = Path(__file__).parent / "results"
KILLS_A_RUN = 5
QUICK_KILLS = 4


@dataclass
class Count:
    """One kind of fault."""

    injected: int = 0
    survived: int = 0
    losses: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.injected - self.survived


class Faults:
    """The counts, the settings of the runs, and the run that nothing happens to."""

    def __init__(self, place: Path, seed: int, quick: bool) -> None:
        self.place = place
        self.source = random.Random(seed)
        self.quick = quick
        self.counts: dict[str, Count] = {}
        self.settings = [
            "dataset=digits",
            "figures=none",
            "batch_size=32",
            "log_every=5",
            "model.latent_dim=3",
            f"epochs={20 if quick else 60}",
        ]
        if "checkpoint_minutes" in tools.call("--help")[1]:
            self.settings.append("checkpoint_minutes=0.001")  # every 60 ms: inside an epoch too
        self.whole = place / "whole"
        code, _, err = tools.call(*self.settings, f"hydra.run.dir={self.whole}")
        need(code == 0, f"the uninterrupted run failed: {err}")
        self.seconds = read_summary(self.whole)["seconds"]

    @contextmanager
    def injected(self, kind: str, count: int = 1) -> Iterator[None]:
        """Count faults of a kind: survived where the block ends well."""
        entry = self.counts.setdefault(kind, Count())
        entry.injected += count
        try:
            yield
        except (Lost, subprocess.TimeoutExpired) as error:
            entry.losses.append(str(error))
            print(f"LOST ({kind}): {error}", file=sys.stderr)
        else:
            entry.survived += count

    def ends_equal(self, folder: Path) -> None:
        """The run goes on to its end and is the uninterrupted one."""
        code, _, err = tools.call(*tools.go_on(folder, self.settings))
        need(code == 0, f"going on ended with {code}: {err}")
        tools.check_equal(folder, self.whole)

    def stopped_run(self, name: str, epochs: int = 3) -> Path:
        """A run killed after some epochs."""
        folder = self.place / name
        process = tools.start(*self.settings, f"hydra.run.dir={folder}")
        need(tools.wait_for(process, lambda: tools.epochs_done(folder) >= epochs), "ended early")
        tools.kill(process)
        tools.finish(process)
        return folder


# --------------------------------------------------------------------------------------- the kills


def kills(faults: Faults, wanted: int) -> None:
    """kill -9 at random moments, KILLS_A_RUN in each run, until there were enough."""
    moments: list[Callable[[Faults, Path, subprocess.Popen[str]], bool]] = [
        _any_moment,
        _while_writing,
        _any_moment,
        _first_epoch,
        _start_up,
    ]
    done = run = 0
    while done < wanted:
        folder = faults.place / f"killed-{run}"
        hit: list[str] = []
        while len(hit) < min(KILLS_A_RUN, wanted - done):
            moment = moments[(done + len(hit)) % len(moments)]
            process = tools.start(*tools.go_on(folder, faults.settings))
            try:
                struck = moment(faults, folder, process) and tools.kill(process)
            finally:
                tools.kill(process)
                code, _, err = tools.finish(process)
            if not struck:  # it had ended: nothing was injected
                need(code == 0, f"a session ended with {code}: {err}")
                break
            hit.append(moment.__name__.strip("_").replace("_", " "))
            if faults.source.random() < 0.5:
                tools.cut_logs(folder)
        kinds = {kind: hit.count(kind) for kind in dict.fromkeys(hit)}
        problem = ""
        try:
            faults.ends_equal(folder)
        except (Lost, subprocess.TimeoutExpired) as error:
            problem = f"{folder.name}: {error}"
        for kind, count in kinds.items():
            with faults.injected(f"kill -9, {kind}", count):
                need(not problem, problem)
        done += len(hit)
        run += 1


def _any_moment(faults: Faults, folder: Path, process: subprocess.Popen[str]) -> bool:
    """At a random time of the training, from this session's first step on."""
    before = _newest_event(folder)
    if not tools.wait_for(process, lambda: _newest_event(folder) != before):
        return False
    time.sleep(faults.source.random() * faults.seconds / 2)
    return True


def _while_writing(faults: Faults, folder: Path, process: subprocess.Popen[str]) -> bool:
    """While the half-written file of a checkpoint is there."""
    # a former kill leaves such a file until the session begins
    before = _newest_event(folder)
    return tools.wait_for(
        process, lambda: _newest_event(folder) != before and tools.is_writing(folder)
    )


def _first_epoch(faults: Faults, folder: Path, process: subprocess.Popen[str]) -> bool:
    """In the first epoch of the session."""
    before, done = _newest_event(folder), tools.epochs_done(folder)
    if not tools.wait_for(process, lambda: _newest_event(folder) != before):
        return False
    time.sleep(faults.source.random() * 0.05)
    return tools.epochs_done(folder) <= done + 1


def _start_up(faults: Faults, folder: Path, process: subprocess.Popen[str]) -> bool:
    """Before the training of the session begins."""
    time.sleep(faults.source.random() * 3)
    return True


def _newest_event(folder: Path) -> str:
    return max((path.name for path in folder.glob("events.out.tfevents.*")), default="")


# --------------------------------------------------------------------------------- the other faults


def signals(faults: Faults, rounds: int) -> None:
    """Ctrl-C, SIGTERM and SIGUSR1 at random moments: the exit code, one line, exact resumption."""
    for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)):
        for i in range(rounds):
            folder = faults.place / f"{number.name}-{i}"
            with faults.injected(f"{number.name}, then resumed"):
                process = tools.start(*faults.settings, f"hydra.run.dir={folder}")
                started = tools.wait_for(process, lambda f=folder: tools.epochs_done(f) >= 1)
                need(started, "ended early")
                time.sleep(faults.source.random() * faults.seconds / 3)
                tools.kill(process, number)
                code, _, err = tools.finish(process)
                need(code == expected, f"exit code {code} and not {expected}: {err}")
                need(f"vae-train resume={folder}" in err, f"does not say how to go on: {err}")
                need("Traceback" not in err, err)
                need(read_summary(folder)["status"] == "interrupted", "status is wrong")
                faults.ends_equal(folder)


def damaged(faults: Faults, files: int, runs: int) -> None:
    """Checkpoints that were cut or of which a bit flipped: found out, and the one before taken."""
    stopped = faults.stopped_run("damaged")
    checkpoints, trial = stopped / "checkpoints", faults.place / "trial"
    for _ in range(files):
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(checkpoints, trial)
        done = tools.damage(trial / "last.ckpt", faults.source)
        with faults.injected("damaged last.ckpt: named, previous.ckpt taken"):
            state, line = checkpoint.load_newest(trial)
            need("last.ckpt" in line, f"not named: {done}")
            expected = checkpoint.load(checkpoints / "previous.ckpt")
            need(state["step"] == expected["step"], f"not the one before: {done}")
        tools.damage(trial / "previous.ckpt", faults.source)
        with faults.injected("both damaged: refused"):
            _refused(trial)
    for i in range(runs):
        folder = faults.place / f"damaged-{i}"
        shutil.copytree(stopped, folder)
        tools.damage(folder / "checkpoints" / "last.ckpt", faults.source)
        if i % 2:
            tools.damage(folder / "checkpoints" / "best.ckpt", faults.source)
        with faults.injected("damaged, then resumed"):
            faults.ends_equal(folder)
    folder = faults.place / "hopeless"
    shutil.copytree(stopped, folder)
    for name in ("last.ckpt", "previous.ckpt"):
        tools.damage(folder / "checkpoints" / name, faults.source)
    before = (folder / "metrics.jsonl").read_bytes()
    with faults.injected("both damaged, then resumed: refused, nothing touched"):
        code, _, err = tools.call(f"resume={folder}")
        need(code == 2 and "there is no whole checkpoint" in err, f"{code}: {err}")
        need("Traceback" not in err, err)
        need((folder / "metrics.jsonl").read_bytes() == before, "metrics.jsonl was touched")


def _refused(folder: Path) -> None:
    try:
        checkpoint.load_newest(folder)
    except checkpoint.Damaged:
        return
    raise Lost("a damaged checkpoint was loaded")


def full_disk(faults: Faults) -> None:
    """A small tmpfs fills up, is made larger, and the run goes on."""
    disk = faults.place / "disk"
    disk.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(size, capture_output=True).returncode:
        print("no tmpfs can be mounted here: the full disk is left out", file=sys.stderr)
        return
    try:
        folder = disk / "run"
        with faults.injected("full disk: stopped cleanly, resumed with room"):
            code, _, err = tools.call(*faults.settings, f"hydra.run.dir={folder}")
            need(code == 1, f"exit code {code}: {err}")
            need("cannot be written: No space left on device" in err, err)
            need("Traceback" not in err, err)
            checkpoint.load_newest(folder / "checkpoints")
            subprocess.run(
                ["mount", "-o", "remount,size=20m", str(disk)], check=True, capture_output=True
            )
            faults.ends_equal(folder)
        subprocess.run(
            ["mount", "-o", "remount,size=20m", str(disk)], check=True, capture_output=True
        )
        shutil.rmtree(folder)
        with faults.injected("full disk for logs alone: training goes on"):
            # a folder of a file's name: it can never be written
            (folder / "metrics.jsonl").mkdir(parents=True)
            code, _, err = tools.call(*faults.settings, f"hydra.run.dir={folder}")
            need(code == 0, f"exit code {code}: {err}")
            need(err.count("metrics.jsonl cannot be written") == 1, err)
            weights = [(f / "model.safetensors").read_bytes() for f in (folder, faults.whole)]
            need(weights[0] == weights[1], "the weights differ")
    finally:
        subprocess.run(["umount", str(disk)], capture_output=True)


def many_at_once(faults: Faults, runs: int) -> None:
    """Runs that start in the same second: a folder and whole files each."""
    place = faults.place / "many"
    place.mkdir()
    with faults.injected(f"{runs} runs started at once", runs):
        processes = [tools.start(*faults.settings, "epochs=1", cwd=place) for _ in range(runs)]
        for process in processes:
            code, _, err = tools.finish(process)
            need(code == 0, f"exit code {code}: {err}")
        folders = [path.parent for path in place.glob("outputs/*/*/config.yaml")]
        need(len(folders) == runs, f"{len(folders)} folders")
        contents = set()
        for folder in folders:
            need(read_summary(folder).get("status") == "completed", "a run is not completed")
            need(tools.epochs_done(folder) == 1, "metrics.jsonl is not one line")
            checkpoint.load(folder / "checkpoints" / "last.ckpt")
            contents.add((folder / "model.safetensors").read_bytes())
        need(len(contents) == 1, "the same seed gave other weights")


def hostile_files(faults: Faults) -> None:
    """Code planted in files that are loaded, sizes that are lies, links that lead out."""
    stopped = faults.stopped_run("stranger")
    for name, plant in hostile.PLANTS.items():
        folder = faults.place / f"hostile-{name.replace(' ', '-')}"
        shutil.copytree(stopped, folder)
        marker = faults.place / "marker"
        with faults.injected(f"hostile: {name}"):
            arguments = plant(folder, marker)
            environment = {"VAE_TEST_SECRET": "do-not-tell"}
            code, out, err = tools.call(*arguments, "epochs=4", env=environment)
            need(not marker.exists(), "code was run")
            need("Traceback" not in err, err)
            need(code in (0, 2), f"exit code {code}: {err}")
            told = out + err + "".join(p.read_text() for p in folder.glob("*.yaml"))
            need("do-not-tell" not in told, "the environment was told")
        marker.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------- the results


def main() -> int:
    """Inject everything; 1 where something was lost."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, help="kill -9 so often (50; with --quick 4)")
    parser.add_argument("--quick", action="store_true", help="a minute or two: what CI runs")
    parser.add_argument("--only", help="kills, signals, damaged, disk, many or hostile")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    chosen = parser.parse_args()
    wanted = chosen.kills or (QUICK_KILLS if chosen.quick else 50)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vae-faults-") as place:
        faults = Faults(Path(place), chosen.seed, chosen.quick)
        parts: dict[str, Callable[[], None]] = {
            "kills": lambda: kills(faults, wanted),
            "signals": lambda: signals(faults, 1 if chosen.quick else 5),
            "damaged": lambda: damaged(faults, *((50, 1) if chosen.quick else (500, 6))),
            "disk": lambda: full_disk(faults),
            "many": lambda: many_at_once(faults, 4 if chosen.quick else 16),
            "hostile": lambda: hostile_files(faults),
        }
        for name, part in parts.items():
            if chosen.only in (None, name):
                part()
    print(_table(faults))
    _write(chosen, faults, time.monotonic() - started)
    return 1 if any(count.lost for count in faults.counts.values()) else 0


def _table(faults: Faults) -> str:
    rows = [(k, str(c.injected), str(c.survived), str(c.lost)) for k, c in faults.counts.items()]
    total = [sum(getattr(c, n) for c in faults.counts.values()) for n in ("injected", "survived")]
    rows.append(("all", str(total[0]), str(total[1]), str(total[0] - total[1])))
    lines = ["| fault | injected | survived | lost |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _write(chosen: argparse.Namespace, faults: Faults, seconds: float) -> None:
    now = datetime.now().astimezone()
    result = {
        "date": now.isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.faults {' '.join(sys.argv[1:])}".strip(),
        "commit": git_commit(),
        "processor": _processor(),
        "system": platform.platform(),
        "versions": versions(),
        "settings": faults.settings,
        "seconds": round(seconds, 1),
        "faults": {k: asdict(c) | {"lost": c.lost} for k, c in faults.counts.items()},
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"faults-{now:%Y-%m-%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{seconds:.0f} s, {path}")


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
