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
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from benchmarks import fault_kinds as kinds
from benchmarks.environment import command
from benchmarks.fault_count import Faults
from vae_cli.run import git_commit, versions

RESULTS = Path(__file__).parent / "results"
QUICK_KILLS = 4


def main() -> int:
    """Inject everything; 1 where something was lost."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, help="kill -9 so often (50; with --quick 4)")
    parser.add_argument("--quick", action="store_true", help="a minute or two: what CI runs")
    parser.add_argument(
        "--only", action="append", help="kills, signals, damaged, disk, many or hostile; repeatable"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    chosen = parser.parse_args()
    wanted = chosen.kills or (QUICK_KILLS if chosen.quick else 50)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vae-faults-") as place:
        faults = Faults(Path(place), chosen.seed, chosen.quick)
        parts: dict[str, Callable[[], None]] = {
            "kills": lambda: kinds.kills(faults, wanted),
            "signals": lambda: kinds.signals(faults, 1 if chosen.quick else 5),
            "damaged": lambda: kinds.damaged(faults, *((50, 1) if chosen.quick else (500, 6))),
            "disk": lambda: kinds.full_disk(faults),
            "many": lambda: kinds.many_at_once(faults, 4 if chosen.quick else 16),
            "hostile": lambda: kinds.hostile_files(faults),
        }
        for name, part in parts.items():
            if not chosen.only or name in chosen.only:
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
        "command": command(sys.orig_argv[1:]),
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
