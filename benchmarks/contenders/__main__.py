"""Run one contender in this process: python -m benchmarks.contenders NAME JSON. Prints JSON."""

import importlib
import json
import sys
from dataclasses import asdict

from benchmarks.contenders.task import Task
from benchmarks.processes import MARK

MODULES = {
    "tutorial": "tutorial",
    "pythae": "pythae_trainer",
    "jax": "jax_scan",
    "floor": "floor",
    "beta": "beta_loop",
}


def main() -> None:
    """Run the contender that the arguments name."""
    name, text = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.contenders.{MODULES[name]}")
    print(MARK + json.dumps(asdict(module.run(Task.from_json(text)))), flush=True)


if __name__ == "__main__":
    main()
