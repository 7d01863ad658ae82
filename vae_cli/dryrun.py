"""`dry_run=true`: everything up to one step, on a tiny slice; sizes and times; nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vae_cli import build, console
from vae_cli.config import Config
from vae_cli.data.interface import Data
from vae_cli.randomness import generator
from vae_cli.state import TrainState, new_state, steps_per_epoch
from vae_cli.step import Now, train_step

TIMED_STEPS = 5


def dry_run(config: Config) -> None:
    """Build all, take a few steps, print shapes, parameters, memory and time an epoch."""
    device = build.device(config.device)
    data = build.data(config).to(device)
    state = new_state(config, data, device)
    batch = min(config.batch_size, len(data.train))
    small = replace(data, train=data.train.take(torch.arange(batch, device=device)))

    with _recorded_shapes(state.vae.model) as shapes, _saved_bytes() as saved:
        _step(state, small, config)  # the first step also sets up the optimiser's state
    seconds = _time_a_step(state, small, config)
    steps = steps_per_epoch(config, data)

    parameters = sum(p.numel() for p in state.vae.parameters())
    weights = _bytes(state.vae.state_dict().values())
    optimizer = _bytes(v for s in state.optimizer.state.values() for v in s.values())
    images = sum(_bytes([s.x]) for s in (data.train, data.val, data.test) if s is not None)
    print(state.vae.model)
    print("\nshapes, for a batch:")
    print(console.table(shapes))
    print("\nsizes:")
    rows = {
        "parameters": f"{parameters:,}",
        "data": f"{len(data.train):,} training examples, {steps:,} steps an epoch",
        "memory, about": _megabytes(2 * weights + optimizer + images + saved[0])
        + f" (weights and gradients {_megabytes(2 * weights)}, optimiser {_megabytes(optimizer)},"
        f" data {_megabytes(images)}, activations {_megabytes(saved[0])})",
        "time an epoch, about": f"{seconds * steps:.1f} s on {device}"
        f" ({seconds * 1e3:.2f} ms a step, without validation)",
    }
    print(console.table(rows))
    print("\ndry run: nothing was kept")


def _step(state: TrainState, data: Data, config: Config) -> None:
    noise = generator(data.train.x.device, config.seed, "dry run")
    x = data.prepare(data.train.x, noise)
    now = torch.tensor([config.beta, 0.0, config.optimizer.lr], device=x.device)
    train_step(state, x, noise, Now(*now.unbind()), config)


def _time_a_step(state: TrainState, data: Data, config: Config) -> float:
    """Median seconds of a step."""
    times = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        _step(state, data, config)
        if data.train.x.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[TIMED_STEPS // 2]


@contextmanager
def _recorded_shapes(model: nn.Module) -> Iterator[dict[str, str]]:
    """Input and output shape of every layer, as they are called."""
    shapes: dict[str, str] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kind = type(module).__name__
            shapes[f"{name} ({kind})"] = f"{list(inputs[0].shape)} -> {list(output.shape)}"

        return record

    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [m.register_forward_hook(hook(n)) for n, m in leaves]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _saved_bytes() -> Iterator[list[int]]:
    """Bytes that a forward pass keeps for the backward pass."""
    total, seen = [0], set()

    def pack(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if not isinstance(tensor, nn.Parameter) and pointer not in seen:
            seen.add(pointer)
            total[0] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(int(t.nbytes) for t in tensors if isinstance(t, Tensor))


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
