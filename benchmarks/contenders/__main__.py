"""One contender in this process: python -m benchmarks.contenders NAME JSON. Prints JSON last."""

from __future__ import annotations

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
    """Run what the arguments say."""
    name, text = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.contenders.{MODULES[name]}")
    print(MARK + json.dumps(asdict(module.run(Task.from_json(text)))), flush=True)


if __name__ == "__main__":
    main()
