"""Write reports, arrays and pictures of a trained run; export its networks for other programs."""

import importlib.util
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.analysis.settings import ExportTask
from vae_cli.analysis.trained import TrainedRun
from vae_cli.config.check import flatten
from vae_cli.console import RunFailed, UserError
from vae_cli.runs.files import replacing, write_bytes, write_json


class Report(NamedTuple):
    """What a task has to say: a short table, the files it wrote, and what to keep in mind."""

    rows: dict[str, str]
    files: list[Path]
    notes: Sequence[str] = ()


def write_npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write named arrays or tensors, whole or not at all. Returns the path."""
    plain: dict[str, Any] = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in arrays.items()}
    with replacing(path) as file:
        np.savez_compressed(file, **plain)
    return path


def measured(
    run: TrainedRun, path: Path, result: Mapping[str, Any], notes: Mapping[str, Any], *files: Path
) -> Report:
    """Write a result as JSON, with the epoch, the seed and the binarisation of what is measured.

    notes: a line -> whether it is said. files: others that the task has written.
    """
    seed, kind = run.config.seed, run.data().binarize
    seeds = {"seed": seed, "binarize": kind, "binarize_seed": seed if kind == "dynamic" else None}
    result = {**result, "epoch": run.epoch, **seeds}
    write_json(path, result)
    rows = {k: f"{v:.6g}" for k, v in flatten(result).items() if isinstance(v, int | float)}
    return Report(rows, [path, *files], [note for note in notes if notes[note]])


class Picture(Figure):
    """A figure that a notebook shows by itself, as files show it."""

    def _repr_png_(self) -> bytes:
        return render(self)[0]


def render(figure: Figure, note: str = "") -> tuple[bytes, Tensor]:
    """Draw a figure, cut to what is on it, with a note in small print below it.

    -> PNG, and pixels for TensorBoard, uint8 [3, H, W].
    """
    png = BytesIO()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout stands; the note must not change it
    for legend in figure.legends:  # else it moves with the edge of what is cut out
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    box: Bbox = figure.get_tightbbox()  # in inches
    (width, height), most = figure.get_size_inches(), max(40, int(16 * box.width))
    lines = textwrap.wrap(note, most, break_on_hyphens=False)
    how: Any = {"va": "top", "fontsize": 7, "color": "#666666", "linespacing": 1.4}
    text = figure.text(box.x0 / width, (box.y0 - 0.06) / height, "\n".join(lines), **how)
    below = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    box = Bbox.union([box, below]) if note else box
    figure.savefig(png, format="png", dpi=120, bbox_inches=box.padded(0.08))
    pixels = np.array(Image.open(png).convert("RGB"))
    return png.getvalue(), torch.from_numpy(pixels).permute(2, 0, 1)


def rgb(x: Tensor, side: int) -> Tensor:
    """Make images [N, C, H, W] colours from 0 to 1 on the CPU, enlarged to about `side` pixels."""
    x = x.detach().cpu().float().nan_to_num(0, 0, 0).clamp(0, 1)
    x = x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1)
    scale = max(1, round(side / min(x.shape[-2:])))
    return x.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def tile_grid(x: Tensor) -> Tensor:
    """Put a table of images [R, C, channels, H, W] side by side. -> [3, H', W'] from 0 to 1."""
    tiles = F.pad(rgb(x.flatten(0, 1), 48), (0, 3, 0, 3), value=1.0).unflatten(0, x.shape[:2])
    grid = tiles.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return F.pad(grid, (3, 0, 3, 0), value=1.0)


def save_png(figure: Figure, path: Path, note: str) -> None:
    """Write a figure, whole or not at all, with a note such as `small_print` below it."""
    write_bytes(path, render(figure, note)[0])


def small_print(run: TrainedRun) -> str:
    """Say which run a picture shows: its folder, data, model, beta, and the epoch."""
    config, name = run.config, run.folder.absolute().name
    beta = f", beta = {config.beta:g}" if config.is_generative else ""
    return f"{name}: {config.dataset.name}, {config.model.name}{beta}, epoch {run.epoch}"


def save_gif(images: Tensor, path: Path) -> None:
    """Write images [S, C, H, W] as an endless film, there and back, one round in 4 seconds."""
    pixels = rgb(images, 256).mul(255).byte().permute(0, 2, 3, 1).numpy()
    frames = [Image.fromarray(image) for image in pixels]
    frames += frames[-2:0:-1]
    how = {"save_all": True, "append_images": frames[1:], "duration": 4000 // len(frames)}
    with replacing(path) as file:
        frames[0].save(file, "GIF", loop=0, **how)


def drawn(
    run: TrainedRun, stem: Path, arrays: Mapping[str, Any], figure: Figure, rows: dict[str, str]
) -> Report:
    """Write STEM.png and STEM.npz."""
    path = stem.with_suffix(".png")
    save_png(figure, path, small_print(run))
    return Report(rows, [path, write_npz(path.with_suffix(".npz"), arrays)])


class Encoder(nn.Module):
    """x [B, *shape] -> mean and log-variance [B, Z], where these are the whole posterior.

    Of another posterior the mean alone, of a plain autoencoder the code. labels [B] int64: of a
    conditional model.
    """

    def __init__(self, run: TrainedRun) -> None:
        super().__init__()
        self.model, self.head = run.vae.model, run.vae.head
        self.results = ["mean"] if run.config.is_generative else ["code"]
        self.results += ["log_var"] * run.config.posterior.factorised

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        posterior = self.head(self.model.encode(x, labels))
        if len(self.results) == 1:
            return (posterior.mean,)
        return posterior.mean, 2 * posterior.stddev.log()


class Decoder(nn.Module):
    """z [B, Z], of a conditional model with labels [B] int64 -> E[x|z] [B, *shape]."""

    def __init__(self, run: TrainedRun) -> None:
        super().__init__()
        self.model, self.likelihood, self.results = run.vae.model, run.vae.likelihood, ["x_mean"]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.likelihood.mean(self.model.decode(z, labels)[None])[0],)


@torch.no_grad()
def run(task: ExportTask, run: TrainedRun, out: Path) -> Report:
    """Write encoder and decoder in float32; raise RunFailed where one is not as the original."""
    report, is_onnx = Report({}, []), task.format == "onnx"
    if is_onnx and not all(map(importlib.util.find_spec, ("onnxscript", "onnxruntime"))):
        raise UserError("format=onnx needs an extra: pip install 'vae-cli[export]'")
    run.vae.cpu().to(memory_format=torch.contiguous_format)
    parts: Any = (Encoder(run), "x", run.shape), (Decoder(run), "z", (run.vae.latent_dim,))
    labels = [torch.arange(5) % run.vae.classes] if run.vae.classes else []
    batch = {0: torch.export.Dim("batch", min=1)}
    for part, given, shape in parts:
        name, x = type(part).__name__.lower(), [torch.rand(5, *shape), *labels]
        path, first = out / (name + (".onnx" if is_onnx else ".pt2")), tuple(v[:3] for v in x)
        inputs = [given, "labels"][: len(x)]
        with warnings.catch_warnings(action="ignore"), replacing(path) as file:
            dims = (batch,) * len(x)
            program: Any = torch.export.export(part.eval(), first, dynamic_shapes=dims)
            if is_onnx:
                names: Any = {"input_names": inputs, "output_names": part.results}
                program = torch.onnx.export(program, **names, verbose=False)
                file.write(program.model_proto.SerializeToString())
            else:
                torch.export.save(program, file)
        found = (program if is_onnx else torch.export.load(path).module())(*x)
        pairs = list(zip(found, part(*x), strict=True))
        far = max(float((found - wanted).abs().max()) for found, wanted in pairs)
        if not all(torch.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in pairs):
            raise RunFailed(f"the exported {name} differs from the original by {far:.3g}")
        taken = f"{given} {['B', *shape]}{', labels [B] int64' * len(labels)}".replace("'", "")
        results = f"{taken} -> {', '.join(part.results)}"
        report.rows[name] = f"{results}; largest difference from the original {far:.2g}"
        report.files.append(path)
    return report
