"""`task=export`: encoder and decoder as files that need nothing of this package."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vae_cli.analysis.results import Report
from vae_cli.analysis.settings import ExportTask
from vae_cli.analysis.trained import TrainedRun
from vae_cli.console import RunFailed, UserError
from vae_cli.runs.files import replacing


class Encoder(nn.Module):
    """x [B, *shape] -> mean and log-variance [B, Z], where these are the whole posterior.

    Of another posterior the mean alone, of a plain autoencoder the code.
    """

    def __init__(self, run: TrainedRun) -> None:
        super().__init__()
        self.model, self.head = run.vae.model, run.vae.head
        self.results = ["mean"] if run.config.is_generative else ["code"]
        self.results += ["log_var"] * run.config.posterior.factorised

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        posterior = self.head(self.model.encode(x))
        if len(self.results) == 1:
            return (posterior.mean,)
        return posterior.mean, 2 * posterior.stddev.log()


class Decoder(nn.Module):
    """z [B, Z] -> E[x|z] [B, *shape]."""

    def __init__(self, run: TrainedRun) -> None:
        super().__init__()
        self.model, self.likelihood, self.results = run.vae.model, run.vae.likelihood, ["x_mean"]

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return (self.likelihood.mean(self.model.decode(z)[None])[0],)


@torch.no_grad()
def run(task: ExportTask, run: TrainedRun, out: Path) -> Report:
    """Write encoder and decoder in float32; raise RunFailed where one is not as the original."""
    report, is_onnx = Report({}, []), task.format == "onnx"
    if is_onnx and not all(map(importlib.util.find_spec, ("onnxscript", "onnxruntime"))):
        raise UserError("format=onnx needs an extra: pip install 'vae-cli[export]'")
    run.vae.cpu().to(memory_format=torch.contiguous_format)
    parts: Any = (Encoder(run), "x", run.shape), (Decoder(run), "z", (run.vae.latent_dim,))
    for part, given, shape in parts:
        name, dims = type(part).__name__.lower(), ({0: torch.export.Dim("batch", min=1)},)
        path, x = out / (name + (".onnx" if is_onnx else ".pt2")), torch.rand(5, *shape)
        with warnings.catch_warnings(action="ignore"), replacing(path) as file:
            program: Any = torch.export.export(part.eval(), (x[:3],), dynamic_shapes=dims)
            if is_onnx:
                names: Any = {"input_names": [given], "output_names": part.results}
                program = torch.onnx.export(program, **names, verbose=False)
                file.write(program.model_proto.SerializeToString())
            else:
                torch.export.save(program, file)
        found = program(x) if is_onnx else torch.export.load(path).module()(x)
        pairs = list(zip(found, part(x), strict=True))
        far = max(float((found - wanted).abs().max()) for found, wanted in pairs)
        if not all(torch.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in pairs):
            raise RunFailed(f"the exported {name} differs from the original by {far:.3g}")
        results = f"{given} {['B', *shape]} -> {', '.join(part.results)}".replace("'", "")
        report.rows[name] = f"{results}; largest difference from the original {far:.2g}"
        report.files.append(path)
    return report
