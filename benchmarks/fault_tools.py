"""What the fault script needs: the real command in a subprocess, and whether two runs are equal."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_cli import checkpoint
from vae_cli.run import read_metrics, read_summary

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each purge
TIMEOUT = 300.0  # seconds for one session, importing torch included
POLL = 0.0005  # seconds between two looks at a folder that is waited for


class Lost(Exception):
    """A fault that cost something; says what."""


def need(condition: bool, what: str) -> None:
    """Raise Lost unless the condition holds."""
    if not condition:
        raise Lost(what)


def start(*arguments: str, **extra: Any) -> subprocess.Popen[str]:
    """The command, started; one thread, so that runs can be compared bit for bit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return subprocess.Popen(
        [sys.executable, "-m", "vae_cli", *arguments],
        env=environment | extra.pop("env", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **extra,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, what it printed and what it said."""
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def call(*arguments: str, **extra: Any) -> tuple[int, str, str]:
    """Run the command to its end."""
    return finish(start(*arguments, **extra))


def go_on(folder: Path, settings: Sequence[str]) -> list[str]:
    """The arguments that go on with a run or, where it left no checkpoint, start it again."""
    if any(folder.glob("checkpoints/*.ckpt")):
        return [f"resume={folder}"]
    return [*settings, f"hydra.run.dir={folder}"]


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> bool:
    """Wait until something has happened; False where the process ended before."""
    until = time.monotonic() + TIMEOUT
    while not happened():
        if process.poll() is not None:
            return False
        need(time.monotonic() < until, "nothing happened in time")
        time.sleep(POLL)
    return True


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> bool:
    """Send a signal; False where the process had ended."""
    if process.poll() is not None:
        return False
    process.send_signal(number)
    return True


def epochs_done(folder: Path) -> int:
    """Lines of metrics.jsonl."""
    return len(read_metrics(folder))


def has_begun(folder: Path) -> bool:
    """Whether an epoch is done."""
    return epochs_done(folder) >= 1


def is_writing(folder: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((folder / "checkpoints").glob(".*.tmp"))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's points, as TensorBoard reads them, without those of the clock."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in found.Tags()["scalars"] if not tag.startswith("perf/")]
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl, without what depends on the clock; each must be whole."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines]


def check_equal(folder: Path, whole: Path) -> None:
    """Raise Lost where a run differs from an uninterrupted one in anything but its times."""
    need(read_summary(folder).get("status") == "completed", "the run is not completed")
    weights = [(f / "model.safetensors").read_bytes() for f in (folder, whole)]
    need(weights[0] == weights[1], "the weights differ")
    need(metrics(folder) == metrics(whole), "metrics.jsonl differs")
    points, expected = scalars(folder), scalars(whole)
    need(points.keys() == expected.keys(), "TensorBoard's tags differ")
    for tag, wanted in expected.items():
        need(len(points[tag]) == len(wanted), f"TensorBoard's {tag} has a step twice or misses one")
        need(points[tag] == wanted, f"TensorBoard's {tag} differs")
    for name in ("last.ckpt", "best.ckpt"):
        states = [checkpoint.load(f / "checkpoints" / name) for f in (folder, whole)]
        need(_same(*({k: v for k, v in s.items() if k not in CLOCK} for s in states)), name)
    leftovers = [path.name for path in folder.rglob(".*.tmp")]
    need(not leftovers, f"half-written files are left: {leftovers}")


CLOCK = ("seconds", "config")  # config: names the folder that was resumed


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.equal(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def cut_logs(folder: Path) -> None:
    """Leave half a record at the end of the event file and half a line in metrics.jsonl, as a kill
    in the middle of a write does."""
    files = sorted(folder.glob("events.out.tfevents.*"))
    if files:
        with files[-1].open("ab") as file:
            file.write(struct.pack("<Q", 500) + b"\x01\x02\x03\x04" + b"half a record")
    if (folder / "metrics.jsonl").exists():
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 99, "step": 12')


def damage(path: Path, source: random.Random) -> str:
    """Cut a file off or flip a bit of it, at a random place. Returns what was done."""
    content = bytearray(path.read_bytes())
    if source.random() < 0.5:
        length = source.randrange(len(content))
        path.write_bytes(content[:length])
        return f"cut to {length} bytes"
    # the first and last kilobyte hold the archive's structure
    ends = [*range(min(1024, len(content))), *range(max(0, len(content) - 1024), len(content))]
    where = source.choice(ends) if source.random() < 0.5 else source.randrange(len(content))
    content[where] ^= 1 << source.randrange(8)
    path.write_bytes(content)
    return f"bit flipped in byte {where}"
