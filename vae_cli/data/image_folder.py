"""A folder of images: found, checked, and decoded at one size."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vae_cli import console
from vae_cli.data import images
from vae_cli.data.interface import Data, Split, carve_test, carve_validation
from vae_cli.data.streaming import Streamed, in_threads, printable
from vae_cli.errors import UserError
from vae_cli.schema.datasets import ImageFolderConfig

log = logging.getLogger(__name__)

NAMED = 10  # damaged files named on the screen; the log has all
FEWEST = 3  # one each to train, to validate and to test


def load(config: ImageFolderConfig, data_dir: Path) -> Data:
    """Find the images, leave out the damaged ones by name, and split the rest.

    None is decoded yet: `Data.to` decides whether all of them go to memory. Raises UserError where
    there is nothing to train on.
    """
    root = Path(config.path).expanduser()
    names = find(root)
    if not names:
        kinds = ", ".join(sorted(images.SUFFIXES))
        raise UserError(f"dataset.path={config.path}: there are no images ({kinds}) in it")
    problems = in_threads(partial(_problem, root), names, "checking images")
    damaged = [pair for pair in zip(names, problems, strict=True) if pair[1]]
    good = [name for name, why in zip(names, problems, strict=True) if not why]
    if damaged:
        _say_skipped(damaged, len(names))
    if len(good) < FEWEST:
        raise UserError(
            f"dataset.path={config.path}: {len(good)} of {len(names)} files in it are sound images"
            f" and at least {FEWEST} are needed"
        )
    labels, class_names = classes(good)
    streamed = Streamed(
        files=tuple(os.path.join(root, name) for name in good),
        read=partial(images.decode, size=config.size, channels=config.channels),
        example=(config.channels, config.size, config.size),
        in_memory=config.in_memory,
    )
    rest, test = carve_test(Split(streamed, labels), config.test_size, config.name)
    train, val = carve_validation(rest, config.val_size, config.name)
    return Data(
        name=config.name,
        train=train,
        val=val,
        test=test,
        class_names=class_names,
        binarize=config.binarize,
    )


def find(root: Path) -> list[str]:
    """Image files below a folder by their names, relative to it, with "/", in sorted order.

    Links are followed, each folder once; what begins with a dot is left out. Raises UserError
    where the folder is missing or cannot be read.
    """
    try:
        if not root.is_dir():
            what = "not a folder" if root.exists() else "no such folder"
            raise UserError(f"dataset.path={root}: {what}")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UserError(f"dataset.path={root}: cannot be read: {error.strerror}") from error
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_cannot_list):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder that has been visited, perhaps to one above
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(folder, name).relative_to(root).as_posix()
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in images.SUFFIXES
        ]
    return sorted(found)


def classes(names: list[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels [N] from the first-level subfolders, and their names in sorted order.

    None and () unless every image lies in a subfolder and there are at least two of them.
    """
    if not all("/" in name for name in names):
        return None, ()
    folders = [name.partition("/")[0] for name in names]
    numbers = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    if len(numbers) < 2:
        return None, ()
    return torch.tensor([numbers[f] for f in folders]), tuple(map(printable, numbers))


def _problem(root: Path, name: str) -> str | None:
    try:
        images.check(os.path.join(root, name))
    except images.Damaged as error:
        return str(error)
    return None


def _say_skipped(damaged: list[tuple[str, str | None]], count: int) -> None:
    """Name the files that are left out: the first on the screen, all in the log."""
    shown = [f"{printable(name)} ({why})" for name, why in damaged]
    head = f"skipped {len(damaged)} of {count} files: "
    log.warning("%s%s", head, ", ".join(shown))
    more = f", … and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    console.say(head + ", ".join(shown[:NAMED]) + more)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"dataset.path: {error.filename} cannot be read: {error.strerror}") from error
