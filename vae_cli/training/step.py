"""One update of the weights, and the engines that make an epoch's updates."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.config.settings import Config
from vae_cli.console import RunFailed, one_line, say
from vae_cli.data.dataset import Data, derive, epoch_order
from vae_cli.runs.interrupt import Interrupt
from vae_cli.training.state import TrainState
from vae_cli.vae.objectives import Terms, Weight

# (x, noise, weight, seen, generator, labels) -> loss and metrics: the VAE's forward pass
Loss = Callable[[Tensor, Tensor, Weight, Tensor, torch.Generator, Tensor | None], Terms]
WARM_UP = 3  # steps before a recording: cuDNN, cuBLAS, autotuning and the optimiser need them


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
    metrics = terms.metrics | {"grad_norm": clip(parameters, config.grad_clip)}
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


def clip(parameters: list[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradient down to the norm `limit` where it is larger; return its norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients[0].device.type == "cpu":  # here dot takes half the time of torch's norms
        # permuted, a gradient in memory as channels_last is flattened without a copy
        orders = [sorted(range(g.dim()), key=g.stride, reverse=True) for g in gradients]
        flat = [g.permute(order).flatten() for g, order in zip(gradients, orders, strict=True)]
        norm = torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()
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


def engine_for(state: TrainState, data: Data, config: Config) -> "Engine":
    """Choose how one process makes its updates."""
    loss: Loss = torch.compile(state.vae.forward) if config.compile else state.vae.forward
    on_cuda = isinstance(data.train.x, Tensor) and data.train.x.device.type == "cuda"
    return (Recorder if config.cuda_graph and on_cuda else Engine)(state, data, config, loss)


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
        self.state.meter.write(metrics, row)

    def seed_noise(self) -> None:
        """Seed the generator, so that the next update's noise depends on nothing but the step."""
        self.generator.manual_seed(derive(self.config.seed, "noise", self.state.step))

    def is_to_stop(self, interrupt: Interrupt) -> bool:
        """Return whether a signal has asked the run to stop after this step."""
        return interrupt.requested is not None


class Recorder(Engine):
    """Records one update as a CUDA graph and replays it: one launch in place of one a kernel.

    The graph reads the epoch's order and schedule, and two counters that it advances itself, at
    fixed places. The first updates of a run, and smaller batches, are made as `Engine` does.
    """

    def __init__(self, state: TrainState, data: Data, config: Config, loss: Loss) -> None:
        super().__init__(state, data, config, loss)
        assert isinstance(data.train.x, Tensor)
        self.x, self.labels, device = data.train.x, self.train.labels, data.train.x.device
        self.lanes = torch.arange(config.batch_size, device=device)
        self.order = torch.empty(len(self.x), dtype=torch.int64, device=device)
        self.schedule = torch.empty(state.steps_per_epoch, 3, device=device)
        self.at = torch.zeros(2, dtype=torch.int64, device=device)  # batch, row of the meter
        self.known = (0, 0)  # what the host knows of it
        self.made = 0  # updates that were not replayed
        self.replay: Callable[[], None] | None = None

    def steps(self, order: Tensor, schedule: Tensor, first: int) -> Iterator[int]:
        """Make the updates of an epoch as `Engine` does."""
        self.order.copy_(order)
        self.schedule.copy_(schedule)
        size = self.config.batch_size
        for batch in range(first, len(schedule)):
            examples = min(size, len(order) - batch * size)
            self.seed_noise()
            if examples == size and self.made >= WARM_UP:
                self.replay = self.replay or self._record()
                place = (batch, len(self.state.meter.counts))
                if place != self.known:
                    for counter, number in zip(self.at, place, strict=True):
                        counter.fill_(number)  # does not wait for the device
                self.replay()  # also after recording, which computes nothing
                self.known = (place[0] + 1, place[1] + 1)
            else:
                self.update(*self._at(self.order[batch * size :][:examples]), self.schedule[batch])
                self.made += 1
            yield examples

    def _advance(self) -> None:
        """Make the update that the counters point at and advance them: what the graph holds."""
        batch, row = self.at.split(1)
        index = self.order.index_select(0, batch * len(self.lanes) + self.lanes)  # [B]
        self.update(*self._at(index), self.schedule.index_select(0, batch)[0], row)
        self.at.add_(1)

    def _at(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take stored values and labels of the examples `index` [B], on the device."""
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return self.x.index_select(0, index), labels

    def _record(self) -> Callable[[], None]:
        """Record one update. Returns the replay, or the plain update where this is not possible."""
        if self.x.device.type != "cuda":  # tests of the bookkeeping
            return self._advance
        self.state.vae.zero_grad()  # gradients from the recording belong to the graph
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        try:
            # thread_local: other threads (those of TensorBoard, of a loader) may use CUDA meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._advance()
        except RuntimeError as error:
            say(f"warning: cuda_graph: training is slower, {one_line(error)[:300]}")
            self.state.vae.zero_grad()
            return self._advance
        return graph.replay
