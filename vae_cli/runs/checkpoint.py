"""Training state and weights on disk: written whole, with checksums; loading runs no code."""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors import safe_open
from safetensors import torch as safetensors
from torch import Tensor

from vae_cli.console import RunFailed, UserError, one_line, say
from vae_cli.runs.files import write_bytes
from vae_cli.runs.saved import BEST, LAST, PREVIOUS, WEIGHTS

State = dict[str, Any]  # of a training: tensors, numbers, strings, lists and dicts of them
FORMAT = 6  # of both kinds of file; raised when older code could not read the new content


class Damaged(UserError):
    """A file of training state or weights that is not what was written."""


def save(path: Path, state: State, former: Path | None = None, best: Path | None = None) -> None:
    """Write a training state, which `best` names too; the old file moves to `former`."""
    buffer = io.BytesIO()  # torch.save into a file of a full disk raises errors of its own
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    with _writing(path):
        write_bytes(best or path, content, None if best else former)
        if best is not None:
            if former is not None and path.exists():
                path.replace(former)
            try:
                path.hardlink_to(best)
            except OSError:  # a file system without hard links
                write_bytes(path, content)


def load(path: Path) -> State:
    """Read a training state. Raises Damaged, also for a file of another format."""
    with _reading(path):
        if damaged := zipfile.ZipFile(path).testzip():  # torch.load notices no flipped bit
            raise ValueError(f"{damaged} does not match its checksum")
        state: State = torch.load(path, map_location="cpu", weights_only=True)
        if state.pop("format") != FORMAT:
            raise ValueError(f"it has another format than {FORMAT}; see summary.json")
        return state


def load_newest(folder: Path, names: Sequence[str] = (LAST, PREVIOUS)) -> tuple[State, str]:
    """The first whole checkpoint among `names`, and a line about damaged ones. Raises Damaged."""
    damaged: list[str] = []
    for path in (folder / name for name in names if (folder / name).exists()):
        try:
            return load(path), "; ".join([*damaged, f"{path.name} is taken"] if damaged else [])
        except Damaged as error:
            damaged.append(str(error))
    reasons = [*damaged, f"{folder} holds no whole checkpoint: start the run again"]
    raise Damaged("; ".join(reasons))


def set_damaged_aside(folder: Path) -> None:
    """Rename damaged checkpoints: else the next one would move a damaged one over a whole one."""
    for path in sorted(folder.glob("*.ckpt")):
        try:
            load(path)
        except Damaged as error:
            say(f"warning: {error}; it is now called {path.name}.damaged")
            path.replace(path.with_name(path.name + ".damaged"))


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write weights and what is to be known about them (JSON). Raises RunFailed."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    about = {"format": FORMAT, "crc": crc32(safetensors.save(tensors)), **about}
    content = safetensors.save(tensors, {"vae-cli": json.dumps(about)})
    with _writing(path):
        write_bytes(path, content)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and what was written about them. Raises Damaged as `load` does."""
    with _reading(path), safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["vae-cli"])
        if about.pop("format") != FORMAT:
            raise ValueError(f"it has another format than {FORMAT}; see summary.json")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if crc32(safetensors.save(weights)) != about.pop("crc"):
            raise ValueError("its content does not match its checksum")
        return weights, about


def best_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """Read the best weights of a run or, of one that has not ended, the newest there are.

    -> weights, the `identity` of the data, and the epoch that they come from. Raises Damaged.
    """
    path = folder / WEIGHTS
    try:
        weights, about = load_weights(path)
    except Damaged as error:
        about, note = load_newest(folder / "checkpoints", (BEST, LAST, PREVIOUS))
        weights, reason = about["vae"], error if path.exists() else f"{folder} has not ended"
        say(f"warning: {note or reason}: the weights are those of epoch {about['epoch']}")
    return weights, about["data"], int(about["epoch"])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise Damaged for whatever a damaged file makes the readers raise."""
    try:
        yield
    except Exception as error:
        raise Damaged(f"{path} is damaged: {one_line(error)[:200]}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say what to do where the disk does not take a file. Raises RunFailed."""
    try:
        yield
    except OSError as error:
        reason = f"{path} cannot be written: {error.strerror}"
        raise RunFailed(f"{reason}; make room, then go on with resume=auto") from error
