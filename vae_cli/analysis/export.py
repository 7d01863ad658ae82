"""What tasks write: reports and arrays; encoder and decoder for other programs (`task=export`)."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from vae_cli.analysis import figures
from vae_cli.analysis.settings import ExportTask
from vae_cli.analysis.trained import TrainedRun
from vae_cli.config.check import flatten
from vae_cli.console import RunFailed, UserError
from vae_cli.runs.files import replacing, write_json


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


def write_result(path: Path, result: Mapping[str, Any]) -> dict[str, str]:
    """Write a result as JSON; return its numbers as the rows of a table."""
    write_json(path, result)
    return {k: f"{v:.6g}" for k, v in flatten(result).items() if isinstance(v, int | float)}


def seeds(run: TrainedRun) -> dict[str, Any]:
    """The seed of what is measured, and the binarisation with the seed of its one draw."""
    seed, kind = run.config.seed, run.data().binarize
    return {"seed": seed, "binarize": kind, "binarize_seed": seed if kind == "dynamic" else None}


def drawn(stem: Path, arrays: Mapping[str, Any], figure: Figure, rows: dict[str, str]) -> Report:
    """Write STEM.png and STEM.npz."""
    path = stem.with_suffix(".png")
    figures.save_png(figure, path)
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
