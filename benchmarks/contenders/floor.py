"""The floor: the matrix products or convolutions of a step alone, each by its fastest kernel here.

It counts forward pass, weight gradient and input gradient of every layer (no input gradient for
the first one), and no bias, activation, loss, optimiser or data. Every kernel that computes a
product at the precision is timed; then the fastest ones run one after the other, as in a step. Each
convolution may use another memory format, and a change of format costs nothing here: the floor is a
lower bound.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.contenders.task import Task, peak_memory_mib
from benchmarks.measurement import Measured
from benchmarks.networks import Network

Kernel = Callable[[], object]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRIAL_SECONDS = 0.02
BLOCKS = 5


class Product(NamedTuple):
    """One product and the kernels that can compute it, by name."""

    what: str
    flops: float
    kernels: dict[str, Kernel]


@torch.no_grad()
def run(task: Task) -> Measured:
    """Time the products of a step. An epoch counts examples / batch size steps."""
    device, dtype = torch.device(task.device), DTYPES[task.precision]
    torch.backends.cudnn.benchmark = True
    found = products(task, device, dtype)
    chosen: list[Kernel] = []
    details = {}
    for product in found:
        seconds = {name: _seconds(kernel, device) for name, kernel in product.kernels.items()}
        best = min(seconds, key=lambda name: seconds[name])
        chosen.append(product.kernels[best])
        details[product.what] = {
            name: round(product.flops / taken / 1e9, 1) for name, taken in seconds.items()
        }

    def step() -> None:
        for kernel in chosen:
            kernel()

    steps = task.work.examples / task.work.batch_size
    epochs = [_seconds(step, device) * steps for _ in range(BLOCKS)]
    return Measured(
        task.work.examples,
        epochs,
        peak_memory_mib=peak_memory_mib(),
        details={
            "gflops_by_kernel": details,
            "gflop_a_step": sum(product.flops for product in found) / 1e9,
        },
    )


def products(task: Task, device: torch.device, dtype: torch.dtype) -> list[Product]:
    """List the products of a step in the order of the layers, with random operands."""
    shapes: list[tuple[nn.Module, Tensor, Tensor]] = []  # layer, its input, its output

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes.append((layer, inputs[0], output))

    network = Network(task.work)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(note)
    x = torch.zeros(task.work.batch_size, *task.work.shape)
    network.decode(network.encode(x)[0])
    made: list[Product] = []
    for position, (layer, before, after) in enumerate(shapes):
        make = _linear if isinstance(layer, nn.Linear) else _convolution
        made += make(layer, before.to(device, dtype), after.to(device, dtype), position == 0)
    return made


def _linear(layer: nn.Module, before: Tensor, after: Tensor, first: bool) -> list[Product]:
    assert isinstance(layer.weight, Tensor)
    x, grad = torch.randn_like(before), torch.randn_like(after)  # [B, in], [B, out]
    weight = layer.weight.to(x)  # [out, in]
    shape = f"{x.shape[0]}x{x.shape[1]}x{grad.shape[1]}"
    flops = 2.0 * x.shape[0] * x.shape[1] * grad.shape[1]
    # a product is left @ right.T, the form that oneDNN's op takes; it takes strided operands too
    pairs = {"forward": (x, weight), "weight gradient": (grad.T, x.T)}
    if not first:
        pairs["input gradient"] = (grad, weight.T)
    return [
        Product(f"{what} {shape}", flops, _matmuls(left, right))
        for what, (left, right) in pairs.items()
    ]


def _matmuls(left: Tensor, right: Tensor) -> dict[str, Kernel]:
    """Return the kernels that compute left [N, K] @ right [M, K].T."""
    kernels: dict[str, Kernel] = {"mm": lambda: torch.mm(left, right.T)}
    if left.device.type == "cpu" and torch.backends.mkldnn.is_available():
        pointwise: Any = torch.ops.mkldnn._linear_pointwise
        kernels["oneDNN"] = lambda: pointwise(left, right, None, "none", [], "")
    return kernels


def _convolution(layer: nn.Module, before: Tensor, after: Tensor, first: bool) -> list[Product]:
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    transposed = isinstance(layer, nn.ConvTranspose2d)
    extra = list(layer.output_padding) if transposed else [0, 0]
    positions = before if transposed else after  # where the kernel is laid
    flops = 2.0 * positions.shape[0] * positions.shape[2:].numel() * layer.weight.numel()
    forward: dict[str, Kernel] = {}
    backward: dict[str, Kernel] = {}
    for name, memory in (
        ("NCHW", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        x, grad = (torch.randn_like(t).contiguous(memory_format=memory) for t in (before, after))
        weight = layer.weight.to(x).contiguous(memory_format=memory)
        shape = (list(layer.stride), [1, 1], [1, 1], transposed, extra, 1)

        def conv(x: Tensor = x, weight: Tensor = weight, shape: Any = shape) -> object:
            return torch.ops.aten.convolution(x, weight, None, *shape)

        def gradients(
            x: Tensor = x, weight: Tensor = weight, grad: Tensor = grad, shape: Any = shape
        ) -> object:
            wanted = [not first, True, False]
            return torch.ops.aten.convolution_backward(grad, x, weight, None, *shape, wanted)

        forward[name], backward[name] = conv, gradients
    what = f"{list(before.shape)} -> {list(after.shape)}"
    return [
        Product(f"forward {what}", flops, forward),
        Product(f"gradients {what}", flops * (1 if first else 2), backward),
    ]


def _seconds(kernel: Kernel, device: torch.device) -> float:
    """Return the seconds of one call, averaged over as many as fill TRIAL_SECONDS."""

    def taken(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            kernel()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started) / calls

    taken(2)  # warm up
    calls = max(3, int(TRIAL_SECONDS / taken(1)))
    return min(taken(calls) for _ in range(3))
