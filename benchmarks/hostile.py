"""Run folders and data from a stranger: each plants something in a run folder, or beside it.

A plant returns the command line that would fall for it. What it wants to do is to make the folder
`marker`, to tell $VAE_TEST_SECRET, to write through a link, or to take all memory.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vae_cli import checkpoint


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def _checkpoint(folder: Path, marker: Path) -> list[str]:
    checkpoint.save(folder / "checkpoints" / "last.ckpt", {"vae": Payload(marker)})
    return [f"resume={folder}"]


def _raw_pickle(folder: Path, marker: Path) -> list[str]:
    for name in ("last", "previous", "best"):
        (folder / "checkpoints" / f"{name}.ckpt").write_bytes(pickle.dumps(Payload(marker)))
    return [f"resume={folder}"]


def _callback(folder: Path, marker: Path) -> list[str]:
    text = f"- +hydra.callbacks.x._target_=os.mkdir\n- +hydra.callbacks.x.path={marker}\n"
    (folder / ".hydra" / "overrides.yaml").write_text(text)
    return [f"resume={folder}"]


def _log_handler(folder: Path, marker: Path) -> list[str]:
    text = f"- '++hydra.job_logging.handlers.x={{class:os.mkdir,path:{marker}}}'\n"
    (folder / ".hydra" / "overrides.yaml").write_text(text)
    return [f"resume={folder}"]


def _interpolation(folder: Path, marker: Path) -> list[str]:
    path = folder / "config.yaml"
    path.write_text(
        path.read_text().replace("data_dir: null", "data_dir: ${oc.env:VAE_TEST_SECRET}")
    )
    return [f"resume={folder}"]


def _interpolated_override(folder: Path, marker: Path) -> list[str]:
    text = "- dataset=digits\n- monitor=${oc.env:VAE_TEST_SECRET}\n"
    (folder / ".hydra" / "overrides.yaml").write_text(text)
    return [f"resume={folder}", "experiment=vae_2d"]


def _object_tag(folder: Path, marker: Path) -> list[str]:
    path = folder / "config.yaml"
    path.write_text(path.read_text() + f"x: !!python/object/apply:os.mkdir ['{marker}']\n")
    return [f"resume={folder}"]


def _target(folder: Path, marker: Path) -> list[str]:
    path = folder / "config.yaml"
    planted = f"model:\n  _target_: os.mkdir\n  path: {marker}\n"
    path.write_text(path.read_text().replace("model:\n", planted))
    return [f"resume={folder}"]


def _aliases(folder: Path, marker: Path) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    (folder / "config.yaml").write_text("\n".join(lines) + "\n")
    return [f"resume={folder}"]


def _linked_log(folder: Path, marker: Path) -> list[str]:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(marker)
    (folder / "train.log").unlink()
    (folder / "train.log").symlink_to(marker)
    return [f"resume={folder}"]


def _linked_checkpoints(folder: Path, marker: Path) -> list[str]:
    outside = folder.with_name(folder.name + "-outside")
    shutil.move(folder / "checkpoints", outside)
    (folder / "checkpoints").symlink_to(outside)
    return [f"resume={folder}"]


def _petabyte(folder: Path, marker: Path) -> list[str]:
    for name in ("last", "previous"):
        with (folder / "checkpoints" / f"{name}.ckpt").open("wb") as file:
            file.truncate(1 << 43)  # takes no room; as much as common file systems let a file have
    return [f"resume={folder}"]


def _array(folder: Path, marker: Path) -> list[str]:
    path = folder / "data.npz"
    np.savez(path, x=np.array([Payload(marker)] * 9, dtype=object))
    return ["dataset=arrays", f"dataset.train={path}", f"hydra.run.dir={folder}/new"]


def _rerun(folder: Path, marker: Path) -> list[str]:
    (folder / "config.pickle").write_bytes(pickle.dumps(Payload(marker)))
    return ["--experimental-rerun", str(folder / "config.pickle")]


PLANTS: dict[str, Callable[[Path, Path], list[str]]] = {
    "pickle in a checkpoint": _checkpoint,
    "pickle as a checkpoint": _raw_pickle,
    "pickle in an npz": _array,
    "pickle of Hydra": _rerun,
    "callback in the overrides": _callback,
    "log handler in the overrides": _log_handler,
    "interpolation in the overrides": _interpolated_override,
    "interpolation in config.yaml": _interpolation,
    "object in config.yaml": _object_tag,
    "target in config.yaml": _target,
    "a billion aliases in config.yaml": _aliases,
    "logs that are links": _linked_log,
    "checkpoints that are a link": _linked_checkpoints,
    "checkpoints of 8 TiB": _petabyte,
}
