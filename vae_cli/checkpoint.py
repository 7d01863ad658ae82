"""Training state and weights on disk: written atomically, verified when loaded.

A checkpoint is an ordinary `torch.save` file, which is a zip archive; the SHA-256 of its bytes
stands in the archive's comment. So `torch.load(path, weights_only=True)` reads it anywhere, and a
truncated or altered file is noticed here before anything of it is used. Weights are an ordinary
safetensors file with the SHA-256 in its header. Loading runs no code, and allocates no more than
the file's own size promises.

Two checkpoints to go on from are kept, last.ckpt and previous.ckpt: a new one is written whole
before the one before last goes, so a kill at any moment leaves a whole one.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from vae_cli import console, resuming
from vae_cli.data import memory
from vae_cli.errors import RunFailed, UserError
from vae_cli.files import link, write_bytes

FORMAT = 2  # raised when the content changes so that older code could not read it
LAST, PREVIOUS = resuming.CHECKPOINTS
BEST = "best.ckpt"
_HEADER = "vae-cli"  # the entry in a safetensors file's metadata
_DIGEST = 64  # hexadecimal digits of a SHA-256
_END_OF_ZIP = b"PK\x05\x06"  # begins the 22-byte record that ends a zip archive
# what torch and zipfile raise where a file holds something else than they expect
_READERS_RAISE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Damaged(UserError):
    """A checkpoint that is not what was written."""


def save(path: Path, state: dict[str, Any], former: Path | None = None) -> None:
    """Write a training state: tensors, numbers, strings, and lists and dicts of them.

    former: the name that the checkpoint in that place gets (see `files.replacing`).
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    archive = buffer.getvalue()
    assert archive[-22:-18] == _END_OF_ZIP, "torch.save no longer ends in a plain zip record"
    # the record's last two bytes are the comment's length
    sealed = archive[:-2] + _DIGEST.to_bytes(2, "little")
    _write(path, sealed + sha256(sealed).hexdigest().encode(), former)


def repeat(written: Path, path: Path, former: Path | None = None) -> None:
    """Let `path` hold what the checkpoint `written` holds; `former` as in `save`."""
    with _failure_explained(path):
        link(written, path, former)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a training state. Raises Damaged (a UserError) if it is not whole."""
    content = _sealed(path)
    try:
        _refuse_bomb(content)
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        found = state.get("format")
    except torch.OutOfMemoryError:
        raise  # the device's, not the file's
    except _READERS_RAISE as error:
        raise Damaged(f"{path} is not a checkpoint of vae-train: {_first_line(error)}") from error
    _check_format(path, found)
    return {key: item for key, item in state.items() if key != "format"}


def load_newest(folder: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], str]:
    """The newest whole checkpoint to go on from in a folder, and a line of what was passed over.

    The line is "" where nothing was. Raises Damaged where none is whole: a run is never silently
    started again.
    """
    return _first_whole(folder, (LAST, PREVIOUS), device)


def load_best(folder: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], str]:
    """The checkpoint of the best epoch or, where it is missing or damaged, the newest whole one."""
    return _first_whole(folder, (BEST, LAST, PREVIOUS), device)


def set_damaged_aside(folder: Path) -> list[str]:
    """Rename damaged checkpoints to NAME.damaged, so that none takes a whole one's place.

    Returns their names.
    """
    found = []
    for name in (LAST, PREVIOUS, BEST):
        path = folder / name
        if path.exists():
            try:
                _sealed(path)
            except Damaged:
                path.replace(path.with_name(name + ".damaged"))
                found.append(name)
    return found


def save_weights(path: Path, weights: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write weights as safetensors, with `about` (JSON) and a checksum in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # one entry: safetensors writes several in no fixed order, and equal weights are equal files
    blank = {"sha256": "0" * _DIGEST, "format": FORMAT, **about}
    content = safetensors.save(tensors, {_HEADER: json.dumps(blank)})
    digest = sha256(content).hexdigest()  # of the file with zeros in the checksum's place
    _write(path, content.replace(b"0" * _DIGEST, digest.encode(), 1))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and what was written about them. Raises Damaged if the file is not whole.

    A file of the first days, whose header has no checksum, is read without that check.
    """
    content = _content(path)
    try:
        weights = safetensors.load(content)
        # the header: 8 bytes of length, then JSON
        length = int.from_bytes(content[:8], "little")
        entry = json.loads(content[8 : 8 + length])["__metadata__"][_HEADER]
        about = json.loads(entry)
        if not entry.startswith('{"format"'):  # as it does where there is no checksum
            digest = about.pop("sha256")
            blank = content.replace(digest.encode(), b"0" * _DIGEST, 1)
            if sha256(blank).hexdigest() != digest:
                raise Damaged(f"{path} is damaged: its content does not match its checksum")
        found = about.pop("format", None)
    except (SafetensorError, *_READERS_RAISE) as error:
        raise Damaged(f"{path} is damaged: {_first_line(error)}") from error
    _check_format(path, found)
    return weights, about


def _write(path: Path, content: bytes, former: Path | None = None) -> None:
    with _failure_explained(path):
        write_bytes(path, content, former)


@contextmanager
def _failure_explained(path: Path) -> Iterator[None]:
    """What a file that cannot be written means for the run. Raises RunFailed."""
    try:
        yield
    except OSError as error:
        checkpoints = path.parent / "checkpoints" if path.suffix == ".safetensors" else path.parent
        kept = any((checkpoints / name).exists() for name in (LAST, PREVIOUS))
        again = f"vae-train resume={console.quoted(checkpoints.parent)}"
        raise RunFailed(
            f"{path.name} cannot be written: {error.strerror}; "
            + (
                f"the checkpoint before it is whole: make room, then {again}"
                if kept
                else "make room and start again"
            )
        ) from error


def _first_whole(
    folder: Path, names: tuple[str, ...], device: torch.device | str
) -> tuple[dict[str, Any], str]:
    reasons = []
    for name in names:
        if not (folder / name).exists():
            continue
        try:
            state = load(folder / name, device)
        except Damaged as error:
            reasons.append(str(error))
            continue
        return state, "; ".join([*reasons, f"{name} is taken"]) if reasons else ""
    if not reasons:
        raise Damaged(f"{folder} holds no checkpoint")
    raise Damaged("; ".join(reasons) + "; there is no whole checkpoint: start the run again")


def _sealed(path: Path) -> bytes:
    """All bytes of a checkpoint whose checksum is right."""
    content = _content(path)
    if sha256(content[:-_DIGEST]).hexdigest().encode() != content[-_DIGEST:]:
        raise Damaged(f"{path} is damaged: its content does not match its checksum")
    return content


def _content(path: Path) -> bytes:
    """All bytes of a regular file that fits the free memory."""
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise Damaged(f"{path} cannot be read: no regular file")
        size, there = path.stat().st_size, memory.free(torch.device("cpu"))
        if size > there // 2:  # twice: its bytes, and what is made of them
            raise Damaged(
                f"{path} cannot be read: it has {memory.human(size)} and"
                f" {memory.human(there)} of memory are free"
            )
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error


def _refuse_bomb(content: bytes) -> None:
    """torch.save compresses nothing, so an archive holds no more than its own size."""
    members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > len(content):
        raise ValueError("its members promise more than the file holds")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _check_format(path: Path, found: Any) -> None:
    if found != FORMAT:
        raise UserError(
            f"{path} has format {found} and this version of vae-train reads format {FORMAT};"
            " use the version that wrote it (summary.json names it)"
        )
