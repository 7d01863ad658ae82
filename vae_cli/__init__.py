"""vae-cli: train autoencoders and VAEs, and use what was trained.

    from vae_cli import latest_run, load_run
    run = load_run(latest_run("outputs"))

Names are imported when they are first used, so `import vae_cli` costs no `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vae_cli.errors import RunFailed, UserError
from vae_cli.version import __version__

if TYPE_CHECKING:
    from vae_cli.eval_planning import latest_run
    from vae_cli.trained import TrainedRun, load_run

__all__ = ["RunFailed", "TrainedRun", "UserError", "__version__", "latest_run", "load_run"]

_LAZY = {
    "TrainedRun": "vae_cli.trained",
    "latest_run": "vae_cli.eval_planning",
    "load_run": "vae_cli.trained",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vae_cli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
