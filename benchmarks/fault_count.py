"""The counts of the fault script, and the run that nothing happens to."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import fault_tools as tools
from benchmarks.fault_tools import Lost, need
from vae_cli.run import read_summary


@dataclass
class Count:
    """One kind of fault."""

    injected: int = 0
    survived: int = 0
    losses: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.injected - self.survived


class Faults:
    """The counts, the settings of the runs, and the run that nothing happens to."""

    def __init__(self, place: Path, seed: int, quick: bool) -> None:
        self.place = place
        self.source = random.Random(seed)
        self.quick = quick
        self.counts: dict[str, Count] = {}
        self.settings = [
            "dataset=digits",
            "figures=none",
            "batch_size=32",
            "log_every=5",
            "model.latent_dim=3",
            f"epochs={20 if quick else 60}",
        ]
        if "checkpoint_minutes" in tools.call("--help")[1]:
            self.settings.append("checkpoint_minutes=0.001")  # every 60 ms: inside an epoch too
        self.whole = place / "whole"
        code, _, err = tools.call(*self.settings, f"hydra.run.dir={self.whole}")
        need(code == 0, f"the uninterrupted run failed: {err}")
        self.seconds = read_summary(self.whole)["seconds"]

    @contextmanager
    def injected(self, kind: str, count: int = 1) -> Iterator[None]:
        """Count faults of a kind: survived where the block ends well."""
        entry = self.counts.setdefault(kind, Count())
        entry.injected += count
        try:
            yield
        except (Lost, subprocess.TimeoutExpired) as error:
            entry.losses.append(str(error))
            print(f"LOST ({kind}): {error}", file=sys.stderr)
        else:
            entry.survived += count

    def ends_equal(self, folder: Path) -> None:
        """The run goes on to its end and is the uninterrupted one."""
        code, _, err = tools.call(*tools.go_on(folder, self.settings))
        need(code == 0, f"going on ended with {code}: {err}")
        tools.check_equal(folder, self.whole)

    def stopped_run(self, name: str, epochs: int = 3) -> Path:
        """A run killed after some epochs."""
        folder = self.place / name
        process = tools.start(*self.settings, f"hydra.run.dir={folder}")
        need(tools.wait_for(process, lambda: tools.epochs_done(folder) >= epochs), "ended early")
        tools.kill(process)
        tools.finish(process)
        return folder
