"""`task=export`: encoder and decoder as files that need nothing of this package."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vae_cli.errors import RunFailed, UserError
from vae_cli.eval_config import ExportTask, Format
from vae_cli.files import write_bytes
from vae_cli.models.interface import Autoencoder
from vae_cli.posteriors import DiagonalGaussian
from vae_cli.randomness import generator
from vae_cli.tasks.interface import Report, seed_of
from vae_cli.trained import TrainedRun
from vae_cli.vae import VAE

BATCHES = (1, 2, 5)  # sizes that the files are checked with; they are made with another
EXAMPLES = 3
TOLERANCE = 1e-3  # an exported network further off than this (relative) is not the same network
SUFFIX = {Format.onnx: ".onnx", Format.torchscript: ".torchscript.pt", Format.torch_export: ".pt2"}

Function = Callable[[Tensor], tuple[Tensor, ...]]


class Encoder(nn.Module):
    """x [B, *shape] -> mean and log-variance [B, Z]; of a deterministic autoencoder the code."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        posterior = self.model.encode(x)
        if isinstance(posterior, DiagonalGaussian):
            return posterior.mean, posterior.log_var
        return (posterior.mean,)


class Decoder(nn.Module):
    """z [B, Z] -> E[x|z] [B, *shape]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.model, self.likelihood = vae.model, vae.likelihood

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        params = self.model.decode(z)
        return (self.likelihood.mean(params[None])[0],)


def run(task: ExportTask, run: TrainedRun, out: Path) -> Report:
    """Write encoder and decoder, run the files, and say how far they are from the original."""
    if task.format is Format.onnx:
        require_onnx()
    # weights as other programs expect them in memory
    vae = run.vae.cpu().eval().to(memory_format=torch.contiguous_format)
    source = generator(torch.device("cpu"), seed_of(task, run), "export")

    def x(count: int) -> Tensor:
        return torch.rand((count, *run.shape), generator=source)

    def z(count: int) -> Tensor:
        return torch.randn((count, run.model.latent_dim), generator=source)

    outputs = ["mean", "log_var"] if len(Encoder(vae.model)(x(1))) == 2 else ["code"]
    jobs: list[tuple[str, nn.Module, Callable[[int], Tensor], str, list[str]]] = [
        ("encoder", Encoder(vae.model).eval(), x, "x", outputs),
        ("decoder", Decoder(vae).eval(), z, "z", ["x_mean"]),
    ]
    rows, files = {}, []
    for name, module, inputs, input_name, output_names in jobs:
        with torch.no_grad(), _quiet():
            content = WRITERS[task.format](module, inputs(EXAMPLES), input_name, output_names)
            path = out / f"{name}{SUFFIX[task.format]}"
            write_bytes(path, content)
            loaded = READERS[task.format](path)
            batches = [inputs(count) for count in BATCHES]
            difference = max(_difference(loaded(b), module(b), name) for b in batches)
        files.append(path)
        rows[name] = (
            f"{input_name} [B, {', '.join(map(str, batches[0].shape[1:]))}] ->"
            f" {', '.join(output_names)}; largest difference from the original {difference:.2g}"
        )
    return Report(rows, files)


def require_onnx() -> None:
    """Raise a UserError where the packages for ONNX are missing."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format=onnx needs {' and '.join(missing)}, which the extra `export` brings:"
            " pip install 'vae-cli[export]'; or use format=torch_export"
        )


def _difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], name: str) -> float:
    """The largest absolute difference. Raises RunFailed where the file is another network."""
    largest = 0.0
    for one, other in zip(found, wanted, strict=True):
        difference = float((one - other).abs().max())
        if one.shape != other.shape or not difference <= TOLERANCE * (1 + float(other.abs().max())):
            raise RunFailed(f"the exported {name} differs from the original by {difference:.3g}")
        largest = max(largest, difference)
    return largest


# ------------------------------------------------------------------------------------- the formats


def _write_torchscript(module: nn.Module, example: Tensor, name: str, outputs: list[str]) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, (example,)), buffer)
    return buffer.getvalue()


def _write_torch_export(module: nn.Module, example: Tensor, name: str, outputs: list[str]) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _write_onnx(module: nn.Module, example: Tensor, name: str, outputs: list[str]) -> bytes:
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        input_names=[name],
        output_names=outputs,
        verbose=False,
    )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _read_torchscript(path: Path) -> Function:
    function: Function = torch.jit.load(str(path))
    return function


def _read_torch_export(path: Path) -> Function:
    function: Function = torch.export.load(path).module()
    return function


def _read_onnx(path: Path) -> Function:
    """Through onnxruntime where it is installed, else through ONNX's own reference."""
    session: Any
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
        name = session.input_names[0]

    def call(batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(o) for o in session.run(None, {name: batch.numpy()}))

    return call


WRITERS = {
    Format.onnx: _write_onnx,
    Format.torchscript: _write_torchscript,
    Format.torch_export: _write_torch_export,
}
READERS: dict[Format, Callable[[Path], Function]] = {
    Format.onnx: _read_onnx,
    Format.torchscript: _read_torchscript,
    Format.torch_export: _read_torch_export,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own internals and of each other's retirement."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(before)
