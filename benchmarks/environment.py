"""Hardware, versions and commit, on which numbers depend, and the dated files that keep them.

Nothing here imports torch: the memory of a benchmark's parent process counts as the first peak of
its children, so it must stay small.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vae_cli.runs.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "tensorboard", "jax", "optax", "pythae")
# units that decide which kernels a library picks
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
FOLDERS = ("--data-dir", "--output", "--out")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")


def describe() -> dict[str, Any]:
    """Describe date, command, commit ('+': changed), hardware, versions and the machine's load."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command(sys.orig_argv[1:]),
        "commit": _run("git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+"),
        "cpu": cpu(),
        "gpu": _run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        "platform": platform.platform(),
        "versions": {"python": platform.python_version(), **versions()},
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "niceness": os.nice(0),
        "load_average": os.getloadavg()[0],  # runnable processes over the last minute
    }


def command(arguments: list[str]) -> str:
    """Return the command line without the folders of this machine, to repeat it elsewhere."""
    kept, words = ["python"], iter(arguments)
    for word in words:
        if word in FOLDERS:
            next(words, None)
        elif not word.startswith(tuple(f"{name}=" for name in FOLDERS)):
            kept.append(word)
    return shlex.join(kept)


def write(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write results to folder/DATE-TIME-name.json. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}.json"
    write_json(path, content)
    return path


def cpu() -> dict[str, Any]:
    """Describe the processor: model, cores for this process, and vector units."""
    found = {"model": platform.processor() or platform.machine(), "cores": cores(), "flags": []}
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.partition(":") for line in info.read_text().splitlines()]
        entries = {key.strip(): text.strip() for key, _, text in reversed(lines)}
        flags = entries.get("flags", entries.get("Features", "")).split()
        found["model"] = entries.get("model name", found["model"])
        found["family"] = f"{entries.get('cpu family')}, model {entries.get('model')}"
        found["flags"] = [flag for flag in FLAGS if flag in flags]
    return found


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Return the versions of those PACKAGES that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def in_a_line(about: dict[str, Any]) -> str:
    """Put what `describe` returned into the lines that stand over a table."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    flags = " ".join(about["cpu"]["flags"])
    gpu = f", {about['gpu']}" if about["gpu"] else ""
    return (
        f"{about['date']}, commit {str(about['commit'])[:12]}\n{about['command']}\n"
        f"{about['cpu']['cores']} cores of {about['cpu']['model']} ({flags}){gpu}\n{versions}"
    )


def _run(*command: str) -> str | None:
    """Return what a command prints; None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
