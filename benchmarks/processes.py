"""Fresh processes for the measurements: their output, their seconds, their memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.environment import ROOT

MARK = "measured: "  # before the JSON that a contender prints
POLL_SECONDS = 0.05  # rarely: a process that watches takes time from the one that it watches
LIMIT_SECONDS = 1800.0


class Failed(Exception):
    """A process that did not end well; the message says how it ended."""


@dataclass(frozen=True)
class Ended:
    """A process that ended well, or that `watch` stopped."""

    output: str
    seconds: float
    peak_memory_mib: float


def run(
    arguments: list[str], watch: Callable[[], bool] | None = None, limit: float = LIMIT_SECONDS
) -> Ended:
    """Run python with these arguments in the checkout. Raises Failed.

    watch: a function that is called every POLL_SECONDS; when it returns True, the process is
    killed. This process must not have torch loaded: a child's peak memory begins with its parent's.
    """
    command = [sys.executable, *arguments]
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        stopped = False
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG if watch else 0)
                seconds = time.perf_counter() - started
                if pid:
                    break
                if watch is not None and not stopped and watch():
                    stopped = True
                    process.kill()
                if seconds > limit:
                    raise Failed(f"not done after {limit:.0f} s: {' '.join(arguments)[:200]}")
                time.sleep(POLL_SECONDS)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        output.seek(0)
        text = output.read()
    if process.returncode and not stopped:
        lines = "\n    ".join(text.strip().splitlines()[-8:])
        raise Failed(f"exit code {process.returncode}: {' '.join(arguments)[:200]}\n    {lines}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Ended(text, seconds, usage.ru_maxrss * unit / 2**20)


def result(ended: Ended) -> dict[str, Any]:
    """Return the JSON that a contender printed. Raises Failed."""
    for line in reversed(ended.output.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    raise Failed(f"printed no result: {ended.output[-300:]}")
