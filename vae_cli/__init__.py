"""vae-cli: train autoencoders and VAEs, and use what was trained.

    import vae_cli
    run = vae_cli.train("dataset=digits", epochs=3)  # what `vae-train dataset=digits epochs=3` does
    runs = vae_cli.sweep("beta=1,4", dataset="digits")  # a table with a row for each run
    run = vae_cli.load_run(vae_cli.latest_run("outputs"))

A name is imported when it is first used, so `import vae_cli` costs no `import torch`.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_cli.analysis.trained import TrainedRun, load_run
    from vae_cli.config.registry import register
    from vae_cli.console import RunFailed, UserError
    from vae_cli.runs.saved import latest_run
    from vae_cli.sweeps.calls import sweep, train
    from vae_cli.sweeps.table import load_sweep

__all__ = [
    "RunFailed",
    "TrainedRun",
    "UserError",
    "latest_run",
    "load_run",
    "load_sweep",
    "register",
    "sweep",
    "train",
]

_ROOMS = {
    "RunFailed": "console",
    "TrainedRun": "analysis.trained",
    "UserError": "console",
    "latest_run": "runs.saved",
    "load_run": "analysis.trained",
    "load_sweep": "sweeps.table",
    "register": "config.registry",
    "sweep": "sweeps.calls",
    "train": "sweeps.calls",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("vae-cli")
    if name in _ROOMS:
        return getattr(import_module(f"vae_cli.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'vae_cli' has no attribute {name!r}")
