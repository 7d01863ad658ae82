"""Which run a command line goes on with, and with which settings. Imports no torch.

A resumed run keeps its own saved configuration. What the command line names on top must not
contradict what has been trained; only what the past does not depend on may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vae_cli.checking import as_container, flatten, typed
from vae_cli.config import Config
from vae_cli.errors import UserError

CHECKPOINTS = ("last.ckpt", "previous.ckpt")  # to go on from, the newer one first

# settings that a resumed run may change: nothing that has been trained depends on them
CHANGEABLE = frozenset(
    {
        "epochs",
        "device",
        "compile",
        "data_dir",
        "resume",
        "figures",
        "manifold_size",
        "manifold_range",
        "interpolate",
        "patience",
        "log_every",
        "image_every",
        "dry_run",
    }
)


def requested_folder(overrides: Sequence[Override]) -> Path | None:
    """The folder of `resume=…`, checked to be a run that can go on; None without one."""
    given = [o for o in overrides if o.key_or_group == "resume" and not o.is_delete()]
    if not given or given[-1].value() is None:
        return None
    folder = Path(str(given[-1].value())).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"resume={folder}: no such folder")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"resume={folder}: not a run folder (it has no config.yaml)")
    if not any((folder / "checkpoints" / name).is_file() for name in CHECKPOINTS):
        raise UserError(
            f"resume={folder}: there is no checkpoints/last.ckpt to go on from;"
            " the run ended before its first epoch did, so start it again"
        )
    return folder


def saved_config(folder: Path) -> DictConfig:
    """The configuration in a run folder. Raises UserError where it cannot be read."""
    path = folder / "config.yaml"
    try:
        loaded = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {reason}") from error
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} is not a configuration of vae-train")
    return loaded


def saved_overrides(folder: Path) -> list[str]:
    """The command line that a run was started with, less an earlier resume."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return []
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    return [str(o) for o in loaded or [] if not str(o).startswith(("resume=", "dry_run="))]


def config(folder: Path, composed: DictConfig, overrides: Sequence[Override]) -> Config:
    """The saved configuration with the command line's settings; refused if they contradict.

    composed: the saved and the new overrides, composed together.
    """
    saved = saved_config(folder)
    wanted = saved.copy()
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if key == "experiment":
            wanted = composed
        else:
            OmegaConf.update(wanted, key, OmegaConf.select(composed, key), force_add=True)
    before, after = typed(saved), typed(wanted)
    different = differing_keys(before, after)
    if different:
        raise UserError(
            f"resume={folder}: the checkpoint was trained with other settings: "
            + "; ".join(different)
            + "; leave them out, or start a new run"
        )
    return after


def differing_keys(before: Config, after: Config) -> list[str]:
    """'beta: 1.0, now 4.0' for each setting that differs and may not."""
    old, new = flatten(as_container(before)), flatten(as_container(after))
    absent: Any = "absent"
    return [
        f"{key}: {old.get(key, absent)}, now {new.get(key, absent)}"
        for key in {**old, **new}
        if old.get(key, absent) != new.get(key, absent) and key not in CHANGEABLE
    ]


def quoted(value: str | Path) -> str:
    """A string as a quoted value in Hydra's override grammar."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
