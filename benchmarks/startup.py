"""From Enter to the first training step, against a bare `import torch, torchvision`."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import ours, processes
from benchmarks.measurement import Spread, spread
from benchmarks.workloads import MNIST_EXAMPLES

BATCH = 128
# the default run on MNIST, but with an epoch of one step: all but one batch is held out
SETTINGS = (
    "dataset=mnist",
    f"dataset.val_size={MNIST_EXAMPLES - BATCH}",
    f"batch_size={BATCH}",
    "epochs=1",
)


def measure(rounds: int, data_dir: Path, device: str) -> dict[str, Any]:
    """Measure, in alternation, the seconds to the end of the first step and those of the imports.

    The epoch's line appears after `perf/seconds` of work that began with the first step, and that
    step took 128 / `perf/examples_per_second`. So the step ended at (time of the line)
    - `perf/seconds` + (seconds of the step). The run is stopped at that line. Before several rounds
    there is one that is not counted: it fills the disk's cache.
    """
    to_step, imports = [], []
    warm_up = int(rounds > 1)
    for _ in range(rounds + warm_up):
        to_step.append(first_step(data_dir, device))
        imports.append(processes.run(["-c", "import torch, torchvision"]).seconds)
    return summarised(to_step[warm_up:], imports[warm_up:])


def first_step(data_dir: Path, device: str) -> float:
    """Return the seconds from the start of the command to the end of its first step."""
    with tempfile.TemporaryDirectory() as name:
        settings = (*SETTINGS, f"data_dir={data_dir}", f"device={device}")
        records, seen, _ = ours.train(settings, Path(name) / "run", until=1)
    record = records[0]
    took: float = BATCH / record["perf/examples_per_second"]
    return seen[0] - float(record["perf/seconds"]) + took


def summarised(to_step: list[float], imports: list[float]) -> dict[str, Any]:
    """Return the spreads of both, and of their ratio within each round."""
    by_round = [step / bare for step, bare in zip(to_step, imports, strict=True)]
    found: dict[str, Spread] = {
        "first_step": spread(to_step),
        "imports": spread(imports),
        "ratio": spread(by_round),
    }
    return {name: vars(value) for name, value in found.items()} | {"seconds": to_step}
