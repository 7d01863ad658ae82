"""Each kind of fault: how it is injected, and what must be there afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import fault_tools as tools
from benchmarks import hostile
from benchmarks.fault_count import Faults
from benchmarks.fault_tools import Lost, need
from vae_cli import checkpoint
from vae_cli.run import read_summary

KILLS_A_RUN = 5

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
                started = tools.wait_for(process, partial(tools.has_begun, folder))
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
