"""Training state and weights on disk: written atomically, verified when loaded.

A checkpoint is an ordinary `torch.save` file, which is a zip archive; the SHA-256 of its bytes
stands in the archive's comment. So `torch.load(path, weights_only=True)` reads it anywhere, and a
truncated or altered file is noticed here before anything of it is used. Loading runs no code.
"""

from __future__ import annotations

import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from vae_cli.errors import UserError
from vae_cli.files import write_bytes

FORMAT = 1  # raised when the content changes so that older code could not read it
_HEADER = "vae-cli"  # the entry in a safetensors file's metadata
_DIGEST = 64  # hexadecimal digits of a SHA-256
_END_OF_ZIP = b"PK\x05\x06"  # begins the 22-byte record that ends a zip archive


class Damaged(UserError):
    """A checkpoint that is not what was written."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a training state: tensors, numbers, strings, and lists and dicts of them."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    archive = buffer.getvalue()
    assert archive[-22:-18] == _END_OF_ZIP, "torch.save no longer ends in a plain zip record"
    # the record's last two bytes are the comment's length
    sealed = archive[:-2] + _DIGEST.to_bytes(2, "little")
    write_bytes(path, sealed + sha256(sealed).hexdigest().encode())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a training state. Raises Damaged (a UserError) if it is not whole."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    sealed, digest = content[:-_DIGEST], content[-_DIGEST:]
    if sha256(sealed).hexdigest().encode() != digest:
        raise Damaged(f"{path} is damaged: its content does not match its checksum")
    state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    _check_format(path, state.get("format"))
    return {key: item for key, item in state.items() if key != "format"}


def save_weights(path: Path, weights: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write weights as safetensors, with `about` (JSON) in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # one entry: safetensors writes several in no fixed order, and equal weights are equal files
    header = {_HEADER: json.dumps({"format": FORMAT, **about})}
    write_bytes(path, safetensors.save(tensors, header))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and what was written about them. Raises Damaged if the file is not whole."""
    try:
        content = path.read_bytes()
        weights = safetensors.load(content)
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    # the header: 8 bytes of length, then JSON
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    about = json.loads(header.get(_HEADER, "{}"))
    _check_format(path, about.pop("format", None))
    return weights, about


def _check_format(path: Path, found: Any) -> None:
    if found != FORMAT:
        raise UserError(
            f"{path} has format {found} and this version of vae-train reads format {FORMAT};"
            " use the version that wrote it (summary.json names it)"
        )
