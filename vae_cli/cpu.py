"""How this process uses the CPU: denormals, freed memory, threads. None of it changes a result by
more than rounding below 1e-38."""

from __future__ import annotations

import ctypes
import os
import sys

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
    try:
        busy = os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # not Unix
        return
    if busy:
        os.environ.setdefault(_SPINS, _POLITE)


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
