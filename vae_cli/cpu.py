"""How this process uses the CPU: denormals, freed memory, threads. None of it changes a result by
more than rounding below 1e-38."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

# libgomp: how often a thread that has finished its part looks for the others before it sleeps
_SPINS = "GOMP_SPINCOUNT"
_POLITE = "1000"
# glibc's mallopt
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30  # bytes


def before_torch() -> None:
    """Be polite where the machine is busy: must be called before torch is imported.

    Threads that wait for each other by spinning take the core from the very thread they wait for
    when another program needs it too; two runs on two cores then take ten times as long each. On a
    quiet machine spinning is faster by a fifth, so it stays on there.
    """
    if _SPINS not in os.environ and _running_elsewhere() >= max(1, (os.cpu_count() or 1) // 2):
        os.environ[_SPINS] = _POLITE


def _running_elsewhere() -> int:
    """Threads of other programs that run at this moment; 0 where the system does not tell.

    The usual load averages remember the last minutes: a run right after another would meet itself.
    """
    seen = []
    try:
        for _ in range(5):
            running, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
            seen.append(int(running) - 1)  # this one runs too
            time.sleep(0.002)
    except (OSError, ValueError, IndexError):
        return 0
    return sorted(seen)[len(seen) // 2]


def tune() -> None:
    """Settings of the whole process; called once, before torch starts its threads."""
    import torch

    # Adam's running means of gradients that are nearly always zero (a picture's border) decay into
    # denormal numbers, which a CPU handles a hundred times slower; threads started later inherit it
    torch.set_flush_denormal(True)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Activations and gradients come and go at every step: without this glibc returns their pages
    to the system each time and has them zeroed again."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another libc
        return
    # many versions of glibc allow no more than 32 MiB; setting only the other would make it worse
    if mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, 1 << 25):
        mallopt(_TRIM_THRESHOLD, _KEPT)
