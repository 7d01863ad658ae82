"""`dry_run=true`: build everything, make a few updates, print sizes and times, keep nothing."""

from functools import partial
from timeit import timeit
from typing import Any

import torch
from torch import Tensor, nn

from vae_cli.config.settings import Config
from vae_cli.console import table
from vae_cli.training import build
from vae_cli.training.state import TrainState
from vae_cli.training.step import Engine


def dry_run(config: Config, job: str = "") -> None:
    """Print the shapes of a batch in each layer, the parameters, the memory and a step's time.

    job: the name of a sweep's job, of which only the sizes and times are printed, in a line.
    """
    data = build.load_data(config).to(build.device_of(config.device))
    state = TrainState(config, data, data.train.x.device)
    engine = Engine(state, data, config, state.vae.forward)
    (batch, labels), now = next(data.train.labelled(None, config.batch_size)), state.schedule()[0]
    names = {layer: name for name, layer in state.vae.model.named_modules()}
    shapes: dict[str, str] = {}
    saved: dict[int, int] = {}  # address -> bytes of what the forward pass keeps for the backward

    def note_shapes(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if layer in names and not list(layer.children()):
            shapes[names[layer]] = f"{list(inputs[0].shape)} -> {list(output.shape)}"

    def note_bytes(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hook = nn.modules.module.register_module_forward_hook(note_shapes)
    with hook, torch.autograd.graph.saved_tensors_hooks(note_bytes, lambda tensor: tensor):
        engine.update(batch, labels, now)
    update, wait = partial(engine.update, batch, labels, now), state.meter.rows.tolist
    step = (timeit(update, number=5) + timeit(wait, number=1)) / 5  # wait: for the device
    parameters = sum(parameter.numel() for parameter in state.parameters)
    # the weights are among what is saved; their gradients and Adam's two means are not
    memory = f"{(sum(saved.values()) + 12 * parameters) / 2**20:,.1f} MiB beside the data"
    duration = f"{step * state.steps_per_epoch:.1f} s, {step * 1e3:.2f} ms a step"
    rows = {"parameters": f"{parameters:,}", "memory": memory, "time of an epoch": duration}
    if job:
        print(f"  {job}: {', '.join(f'{name} {row}' for name, row in rows.items())}", flush=True)
        return
    print(state.vae.model, "\nshapes, for a batch:", table(shapes), "\nabout:", sep="\n")
    print(table(rows), "\ndry run: nothing was kept", sep="\n")
