"""The task of a contender, in a form that can be sent to its process."""

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from benchmarks.workloads import Work


@dataclass(frozen=True)
class Task:
    """A work, and where and how to do it."""

    work: Work
    data_dir: str
    device: str = "cpu"
    precision: str = "fp32"  # fp32 | bf16
    seed: int = 0
    limit: int | None = None  # number of timed steps, for a contender that extrapolates

    @property
    def folder(self) -> Path:
        """The folder of the datasets."""
        return Path(self.data_dir)

    def to_json(self) -> str:
        """Write the task as text for a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        entries = json.loads(text)
        work = entries.pop("work")
        # JSON has no tuples
        work = {k: tuple(v) if isinstance(v, list) else v for k, v in work.items()}
        return cls(Work(**work), **entries)


def peak_memory_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
