"""Faster engines: an update as one compiled graph on a CPU, or as one recording on a GPU."""

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vae_cli.config.settings import Config
from vae_cli.console import one_line, say
from vae_cli.data.dataset import Data
from vae_cli.training import distributed
from vae_cli.training.optimization import Adam
from vae_cli.training.state import TrainState
from vae_cli.training.step import Engine, Loss, clip
from vae_cli.vae.objectives import Weight

WARM_UP = 3  # steps before a recording: cuDNN, cuBLAS, autotuning and the optimiser need them
# `compile=auto` compiles a run of so many updates: compiling takes 3 s where the program is known,
# else 7 to 26 s, and an update of a small network then takes 0.7 to 1.5 ms less
PAYS_FROM = 8000

Inputs = tuple[Tensor, Tensor, Tensor | None]  # x, what the encoder sees of it, labels


def engine_for(state: TrainState, data: Data, config: Config) -> Engine:
    """Choose how updates are made. With compile=auto a run that goes on keeps what was chosen."""
    resident, several = isinstance(data.train.x, Tensor), distributed.size() > 1
    recorded = resident and data.train.x.device.type == "cuda"
    reasons = {
        "several processes": several,
        "images on the disk": not resident,
        f"device={config.device}": data.train.x.device.type != "cpu",
        "on_nonfinite=skip": config.on_nonfinite == "skip",
        f"objective={config.objective.name}": state.rivals,
    }
    hindrance = next((reason for reason, holds in reasons.items() if holds), "")
    if config.compile is True and hindrance:
        say(f"note: compile=true has no effect together with {hindrance}")
    if config.compile != "auto" or state.compiled is None:
        long = config.epochs * state.steps_per_epoch >= PAYS_FROM
        state.compiled = config.compile is True or (config.compile == "auto" and long)
    state.compiled = state.compiled and not hindrance
    if several:
        return distributed.SharedEngine(state, data, config)
    kind = Recorder if recorded and config.cuda_graph else Compiled if state.compiled else Engine
    return kind(state, data, config, state.vae.forward)


class Resident(Engine):
    """Takes examples that lie on the device by their numbers."""

    def __init__(self, state: TrainState, data: Data, config: Config, loss: Loss) -> None:
        super().__init__(state, data, config, loss)
        assert isinstance(data.train.x, Tensor)
        self.x, self.labels = data.train.x, self.train.labels

    def take(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take stored values [B, *shape] and labels [B] of the examples `index` [B]."""
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return self.x.index_select(0, index), labels


class Compiled(Resident):
    """Compiles an update: gather, forward, backward, clipping, Adam and metrics are one graph.

    Random numbers are drawn outside, so the results are those of `Engine` but for rounding. The
    graph finds beta and the learning rate in a tensor, so the runs of a sweep find it compiled, in
    the user's cache. Smaller batches, and a step that cannot be compiled, are made as by `Engine`.
    """

    def __init__(self, state: TrainState, data: Data, config: Config, loss: Loss) -> None:
        super().__init__(state, data, config, loss)
        self.adam = state.optimizer if isinstance(state.optimizer, Adam) else None
        head = self.x[:1].float()
        corrupts = state.corruption(head, torch.Generator(head.device)) is not head
        self.draws = corrupts or data.binarize == "dynamic"
        torch.compiler.reset()  # graphs of earlier runs in this process count towards a limit
        if hasattr(torch._dynamo.config, "trace_autograd_ops"):  # from torch 2.11 on
            torch._dynamo.config.trace_autograd_ops = True  # torch.autograd.grad is in the graph
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "no CUDA"
        self.graph = torch.compile(self.whole, fullgraph=True, dynamic=False)

    def steps(self, order: Tensor, schedule: Tensor, first: int) -> Iterator[int]:
        """Make the updates of an epoch as `Engine` does."""
        size, schedule = self.config.batch_size, schedule[first:]
        rows = schedule if self.adam is None else self.adam.with_corrections(schedule)
        for index, row in zip(order[first * size :].split(size), rows.unbind(), strict=True):
            self.seed_noise()
            whole = len(index) == size and self.state.compiled
            if not (whole and self.advance(index, row)):
                self.update(*self.take(index), row[:3])
            yield len(index)

    def advance(self, index: Tensor, row: Tensor) -> bool:
        """Make one update by the graph, of the examples `index` [B] at row; tell whether it is one.

        row: beta, capacity, learning rate; of Adam also `with_corrections`.
        """
        state, draw = self.state, self.generator
        inputs: Inputs | None = None
        if self.draws:
            raw, labels = self.take(index)
            x = self.data.prepare(raw, draw)
        noise = torch.randn(state.vae.noise_shape(len(index)), generator=draw, device=index.device)
        if self.draws:
            inputs = x, state.corruption(x, draw), labels
        try:
            names, values, gradients = self.graph(index, inputs, noise, row)
        except torch._dynamo.exc.TorchDynamoException as error:  # of compiling: nothing is done yet
            reason = one_line(error).partition(" Set TORCHDYNAMO")[0][:300]
            say(f"note: compile: training goes on without, {reason}")
            state.compiled = False  # also of a run that goes on: its numbers depend on it
            self.seed_noise()
            return False
        if self.adam is None:
            for parameter, gradient in zip(state.parameters, gradients, strict=True):
                parameter.grad = gradient
            for group in state.optimizer.param_groups:
                group["lr"] = row[2]
            state.optimizer.step()
        if state.averaged is not None:
            state.averaged.update(first=state.step == 0)
        state.meter.write(names, values)
        return True

    def whole(
        self, index: Tensor, inputs: Inputs | None, noise: Tensor, row: Tensor
    ) -> tuple[tuple[str, ...], Tensor, list[Tensor]]:
        """Make an update: what the graph holds. Returns names of metrics, values, gradients.

        inputs: x, what the encoder sees, labels; None: they are gathered here, in the graph.
        """
        if inputs is None:
            raw, labels = self.take(index)
            x = seen = self.data.prepare(raw, self.generator)
        else:
            x, seen, labels = inputs
        parameters = self.state.parameters
        loss, metrics = self.loss(x, noise, Weight(row[0], row[1]), seen, self.generator, labels)
        gradients = list(torch.autograd.grad(loss, parameters))
        metrics = metrics | {"grad_norm": clip(gradients, self.config.grad_clip)}
        if self.adam is not None:
            self.adam.update(gradients, row)
            gradients = []
        return tuple(metrics), torch.stack(list(metrics.values())), gradients


class Recorder(Resident):
    """Records one update as a CUDA graph and replays it: one launch in place of one a kernel.

    The graph reads the epoch's order and schedule, and two counters that it advances itself, at
    fixed places. The first updates of a run, and smaller batches, are made as `Engine` does.
    """

    def __init__(self, state: TrainState, data: Data, config: Config, loss: Loss) -> None:
        super().__init__(state, data, config, loss)
        device = self.x.device
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
                self.update(*self.take(self.order[batch * size :][:examples]), self.schedule[batch])
                self.made += 1
            yield examples

    def _advance(self) -> None:
        """Make the update that the counters point at and advance them: what the graph holds."""
        batch, row = self.at.split(1)
        index = self.order.index_select(0, batch * len(self.lanes) + self.lanes)  # [B]
        self.update(*self.take(index), self.schedule.index_select(0, batch)[0], row)
        self.at.add_(1)

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
