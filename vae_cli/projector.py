"""The files of TensorBoard's projector: codes, what is known about them, and their images.

projector_config.pbtxt has to lie in the run's own folder, the rest in `projector/`: there it is no
run in TensorBoard's list. `SummaryWriter.add_embedding` makes a folder for every step instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vae_cli.figures import tiles
from vae_cli.files import write_bytes, write_text
from vae_cli.randomness import generator
from vae_cli.viewer import Viewer

POINTS = 1000
LARGEST_SPRITE = 8192  # pixels a side: TensorBoard's limit
LARGEST_TILE = 64  # pixels a side: enough to tell images apart, and the file stays small
FEWEST_DIMENSIONS = 3  # the projector's PCA starts with three components


def write(view: Viewer, folder: Path) -> None:
    """Write, or replace, the projector's files in a run folder."""
    parts = folder / "projector"
    parts.mkdir(exist_ok=True)
    codes = view.codes.mean[:POINTS]
    padding = max(0, FEWEST_DIMENSIONS - codes.shape[1])
    write_text(parts / "tensors.tsv", _tsv(functional.pad(codes, (0, padding)).tolist()))
    lines = ['tensor_name: "test codes"', 'tensor_path: "projector/tensors.tsv"']
    known = metadata(view)
    if known:
        write_text(parts / "metadata.tsv", known)
        lines.append('metadata_path: "projector/metadata.tsv"')
    if view.images:
        images = _images(view)
        png, (width, height) = sprite(images)
        write_bytes(parts / "sprite.png", png)
        dims = f"single_image_dim: {width} single_image_dim: {height}"
        lines.append(f'sprite {{ image_path: "projector/sprite.png" {dims} }}')
    body = "\n".join(f"  {line}" for line in lines)
    write_text(folder / "projector_config.pbtxt", f"embeddings {{\n{body}\n}}\n")


def metadata(view: Viewer) -> str:
    """Class names, or the numbers that curves were made from, a line a code; "" without any."""
    labels, parameters = view.test.labels, view.test.parameters
    if labels is not None:
        names, classes = view.data.class_names, labels[:POINTS].tolist()
        # a single column has no header: TensorBoard would take it for a point
        return _tsv([[names[c] if c < len(names) else c] for c in classes])
    if parameters:
        rows = torch.stack(list(parameters.values()), dim=-1)[:POINTS].tolist()
        columns = list(parameters)
        return _tsv(rows if len(columns) == 1 else [columns, *rows])
    return ""


def sprite(images: Tensor) -> tuple[bytes, tuple[int, int]]:
    """Images [N, C, H, W] side by side, row by row, as PNG; and a tile's width and height."""
    shown, _ = tiles.shown_channels(images.cpu().float())
    height, width = shown.shape[-2:]
    columns = math.ceil(math.sqrt(len(shown)))
    limit = min(LARGEST_TILE, LARGEST_SPRITE // columns)
    if max(height, width) > limit:
        shrunk = limit / max(height, width)
        height, width = (max(1, round(side * shrunk)) for side in (height, width))
        shown = functional.interpolate(shown, (height, width), mode="area")
    picture = tiles.paste(shown.nan_to_num().clamp(0, 1), columns, gap=0)
    pixels = (picture * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    data = BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue(), (width, height)


def _images(view: Viewer) -> Tensor:
    source = generator(view.device, view.config.seed, "pictures", "sprite")
    return view.data.prepare(view.test.head(POINTS).to(view.device), source)


def _tsv(rows: Sequence[Sequence[object]]) -> str:
    def cell(item: object) -> str:
        text = f"{item:.6g}" if isinstance(item, float) else str(item)
        return " ".join(text.split())  # no tabs or line ends inside

    return "".join("\t".join(map(cell, row)) + "\n" for row in rows)
