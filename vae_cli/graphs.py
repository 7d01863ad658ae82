"""A whole training step recorded once as a CUDA graph and replayed: small networks are limited by
the launching of kernels, not by their work.

What is recorded is the same `train_step` as everywhere. All that changes from step to step lies in
memory whose address stays the same: the epoch's order and schedule, and two counters that the graph
advances by itself. The first steps of a run and the last, smaller batch of an epoch are not
replayed but made as usual; every step is a real one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vae_cli import console
from vae_cli.config import Config
from vae_cli.data.interface import Data
from vae_cli.randomness import derive
from vae_cli.state import TrainState
from vae_cli.step import Now, train_step

log = logging.getLogger(__name__)

# steps before the recording: cuDNN, cuBLAS, autotuning and the optimiser's state are set up
WARM_UP = 3


def recorder(state: TrainState, data: Data, config: Config) -> Recorder | None:
    """One for a run whose steps can be recorded: on a CUDA device, data held there, one process."""
    if state.ranks.size > 1:
        return None
    held = isinstance(data.train.x, Tensor) and data.train.x.device.type == "cuda"
    return Recorder(state, data, config) if config.cuda_graph and held else None


class Counter:
    """A number on the device that the graph advances; set from here only when it differs."""

    def __init__(self, device: torch.device) -> None:
        self.value = torch.zeros(1, dtype=torch.int64, device=device)
        self.known = 0

    def set(self, number: int) -> None:
        """Make the device's value `number`, without waiting for it."""
        if number != self.known:
            self.value.fill_(number)
            self.known = number


class Recorder:
    """Makes an epoch's updates, replayed where possible."""

    def __init__(self, state: TrainState, data: Data, config: Config) -> None:
        assert isinstance(data.train.x, Tensor)
        self.state, self.data, self.config = state, data, config
        self.x = data.train.x
        device = self.x.device
        self.generator = torch.Generator(device)
        self.lanes = torch.arange(config.batch_size, device=device)
        self.batch, self.row = Counter(device), Counter(device)
        self.order = torch.empty(0)
        self.schedule = torch.empty(0)
        self.made = 0  # full batches, not replayed
        self.replay: Callable[[], None] | None = None
        self.failed = False

    def updates(self, order: Tensor, schedule: Tensor, first: int) -> Iterator[int]:
        """The epoch's updates from batch `first` on; yields each one's number of examples.

        order [N] int64, schedule [steps, 3].
        """
        self._place(order, schedule)
        size = self.config.batch_size
        for batch in range(first, len(schedule)):
            examples = min(size, len(order) - batch * size)
            self.generator.manual_seed(derive(self.config.seed, "noise", self.state.step))
            if examples == size and self.made >= WARM_UP and self.replay is None:
                self.replay = self._record()
            if examples == size and self.replay is not None:
                self.batch.set(batch)
                self.row.set(len(self.state.meter.counts))
                self.replay()
                self.batch.known += 1
                self.row.known += 1
            else:
                self._step(self.order[batch * size :][:examples], self.schedule[batch], None)
                self.made += 1
            yield examples

    def _place(self, order: Tensor, schedule: Tensor) -> None:
        """Put the epoch's order and schedule where the graph reads them."""
        if len(self.order) == 0:
            self.order, self.schedule = order.clone(), schedule.clone()
        else:
            self.order.copy_(order)
            self.schedule.copy_(schedule)

    def _step(self, index: Tensor, now: Tensor, row: Tensor | None) -> None:
        """Gather, update, write the metrics down. index [B] int64, now [3]."""
        x = self.data.prepare(self.x.index_select(0, index), self.generator)
        metrics = train_step(self.state, x, self.generator, Now(*now.unbind()), self.config)
        self.state.meter.write(metrics, row)

    def _advance(self) -> None:
        """What is recorded: the step that the counters point at; then they move on."""
        position = self.batch.value * len(self.lanes) + self.lanes
        now = self.schedule.index_select(0, self.batch.value)[0]
        self._step(self.order.index_select(0, position), now, self.row.value)
        self.batch.value.add_(1)
        self.row.value.add_(1)

    def _record(self) -> Callable[[], None]:
        """Record one step. A recording does no work; the caller replays it at once."""
        if self.failed or self.x.device.type != "cuda":
            return self._advance
        self.state.forget_gradients()  # those made while recording belong to the graph
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        try:
            # thread_local: other threads (TensorBoard's, a loader's) may use CUDA meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._advance()
        except RuntimeError as error:
            self.failed = True
            log.exception("the training step could not be recorded")
            console.say(
                f"cuda_graph: this training step cannot be recorded ({str(error).splitlines()[0]});"
                " it goes on without, slower"
            )
            self.state.forget_gradients()
            return self._advance
        return graph.replay
