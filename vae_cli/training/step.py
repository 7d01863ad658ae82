"""One update of the weights, and the engine that makes the updates of an epoch one by one."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vae_cli.config.settings import Config
from vae_cli.console import RunFailed
from vae_cli.data.dataset import Data, derive, epoch_order
from vae_cli.models.kernels import fast_on
from vae_cli.runs.interrupt import Interrupt
from vae_cli.training.state import TrainState
from vae_cli.vae.objectives import Terms, Weight

# (x, noise, weight, seen, generator, labels) -> loss and metrics: the VAE's forward pass
Loss = Callable[[Tensor, Tensor, Weight, Tensor, torch.Generator, Tensor | None], Terms]


class Now(NamedTuple):
    """The values of the schedules at one step: scalars on the device."""

    beta: Tensor
    capacity: Tensor  # nats
    lr: Tensor


def train_step(
    state: TrainState,
    loss: Loss,
    x: Tensor,
    generator: torch.Generator,
    now: Now,
    config: Config,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """Make one update, waiting for no device; return its metrics, scalars.

    x [B, *shape], labels [B] int64.
    """
    vae, parameters = state.vae, state.parameters
    noise = torch.randn(vae.noise_shape(len(x)), generator=generator, device=x.device)  # [K, B, Z]
    seen = state.corruption(x, generator)  # [B, *shape], what the encoder gets
    skipping = config.on_nonfinite == "skip"
    buffers = [buffer.clone() for buffer in vae.buffers()] if skipping else []
    terms = loss(x, noise, Weight(now.beta, now.capacity), seen, generator, labels)
    for parameter in (*parameters, *state.rivals):
        parameter.grad = None
    terms.loss.backward()
    gradients = [p.grad for p in parameters if p.grad is not None]
    metrics = terms.metrics | {"grad_norm": clip(gradients, config.grad_clip)}
    if skipping:  # the optimiser leaves the update out, and BatchNorm keeps its statistics
        broken = ~torch.stack(list(metrics.values())).isfinite().all()
        for each in state.optimizers:
            each.found_inf = broken.float()
        for buffer, before in zip(vae.buffers(), buffers, strict=True):
            buffer.copy_(torch.where(broken, before, buffer))
    for group in state.optimizer.param_groups:
        group["lr"] = now.lr
    for each in state.optimizers:
        each.step()
    if state.averaged is not None:
        state.averaged.update(first=state.step == 0)
    return metrics


def clip(gradients: list[Tensor], limit: float | None) -> Tensor:
    """Scale the gradients down to the norm `limit` where it is larger; return the norm before."""
    if fast_on(gradients[0]):  # here dot takes half the time of torch's norms
        # permuted, a gradient in memory as channels_last is flattened without a copy
        orders = [sorted(range(g.dim()), key=g.stride, reverse=True) for g in gradients]
        flat = [g.permute(order).flatten() for g, order in zip(gradients, orders, strict=True)]
        norm = torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()
    elif torch.compiler.is_compiling():  # by rows, which share a loop with Adam
        norm = torch.stack([g.square().sum(-1).sum() for g in gradients]).sum().sqrt()
    else:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def stop_if_not_finite(state: TrainState, config: Config) -> None:
    """Raise RunFailed where an update since the last read (with "skip": each) is not finite."""
    rows = state.meter.rows[: len(state.meter.counts)].tolist()
    broken = [number for number, row in enumerate(rows) if not all(map(math.isfinite, row))]
    if not broken or (config.on_nonfinite == "skip" and len(broken) < len(rows)):
        return
    finite = [math.isfinite(value) for value in rows[broken[0]]]
    name = state.meter.names[finite.index(False)]
    step = state.step - len(rows) + broken[0]  # counted from 0
    batch = step - state.epoch * state.steps_per_epoch
    order = epoch_order(state.meter.rows.device, config.seed, state.epoch, state.examples)
    index = order[batch * config.batch_size :][: config.batch_size].tolist()
    raise RunFailed(
        f"{name} is not finite at step {step + 1:,} (epoch {state.epoch + 1}, batch {batch + 1},"
        f" training examples {str(index[:5])[1:-1]}, …); lower optimizer.lr, set grad_clip=1,"
        f" or take on_nonfinite=skip; the last checkpoint is of step {state.kept_step:,}"
    )


class Engine:
    """Makes each update when the loop asks for it."""

    def __init__(self, state: TrainState, data: Data, config: Config, loss: Loss) -> None:
        self.state, self.data, self.config, self.loss = state, data, config, loss
        # labels are gathered only for a model that reads them
        self.train = data.train if state.vae.classes else replace(data.train, labels=None)
        self.generator = torch.Generator(data.train.x.device)

    def steps(self, order: Tensor, schedule: Tensor, first: int) -> Iterator[int]:
        """Make the updates of an epoch from batch `first` on; yield the examples in each.

        On the device: order [N] int64 of the examples; schedule [steps, 3]: beta, capacity, lr.
        """
        size = self.config.batch_size
        batches = self.train.labelled(order[first * size :], size)
        for (raw, labels), now in zip(batches, schedule[first:].unbind(), strict=True):
            self.seed_noise()
            self.update(raw, labels, now)
            yield len(raw)

    def update(
        self, raw: Tensor, labels: Tensor | None, now: Tensor, row: Tensor | None = None
    ) -> None:
        """Make one update from stored values raw [B, *shape] at now [3].

        labels [B] int64; row: as in Meter.write.
        """
        x, at = self.data.prepare(raw, self.generator), Now(*now.unbind())  # x [B, *shape]
        metrics = train_step(self.state, self.loss, x, self.generator, at, self.config, labels)
        self.state.meter.write(metrics, torch.stack(list(metrics.values())), row)

    def seed_noise(self) -> None:
        """Seed the generator, so that the next update's noise depends on nothing but the step."""
        self.generator.manual_seed(derive(self.config.seed, "noise", self.state.step))

    def is_to_stop(self, interrupt: Interrupt) -> bool:
        """Return whether a signal has asked the run to stop after this step."""
        return interrupt.requested is not None
