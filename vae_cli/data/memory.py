"""How much memory is free, and how much of it a dataset may take: the one place that decides."""

from __future__ import annotations

import os
from pathlib import Path

import torch

# a dataset is kept in memory when it needs no more than this share of what is free, on the host
# and on the device: the rest is for the networks, their activations and other programs
SHARE = 0.5
_ASSUMED = 4 << 30  # bytes, where the system does not tell


def allowed(device: torch.device) -> int:
    """Bytes that a dataset on a device may take by itself (it passes through the host)."""
    return int(SHARE * min(free(torch.device("cpu")), free(device)))


def free(device: torch.device) -> int:
    """Bytes free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_host(), _container())


def human(size: float) -> str:
    """A number of bytes as one reads it."""
    units = ("KiB", "MiB", "GiB", "TiB", "PiB")
    power = min(max(1, (int(size).bit_length() - 1) // 10), len(units))
    return f"{size / 1024**power:,.1f} {units[power - 1]}"


def _host() -> int:
    """What could be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) << 10 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass  # not Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return _ASSUMED


def _container() -> int:
    """What the control group leaves, in a container with a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            return max(0, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control groups, or not of version 2
    return 1 << 62
