"""What a contender is asked to do, as it travels to its process."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.workloads import Work


@dataclass(frozen=True)
class Task:
    """A work and where and how it is done."""

    work: Work
    data_dir: str
    device: str = "cpu"
    precision: str = "fp32"  # fp32 | bf16
    seed: int = 0
    limit: int | None = None  # of the steps that are timed, where a contender extrapolates

    @property
    def folder(self) -> Path:
        """Where datasets lie."""
        return Path(self.data_dir)

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """What `to_json` made."""
        entries = json.loads(text)
        work = entries.pop("work")
        # JSON has no tuples
        work = {k: tuple(v) if isinstance(v, list) else v for k, v in work.items()}
        return cls(Work(**work), **entries)


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
