"""One run by several processes of torchrun or srun; each writes a folder, and rank 0's counts."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vae_cli.config.settings import Config
from vae_cli.console import UserError, say
from vae_cli.data.dataset import Data
from vae_cli.runs.interrupt import Interrupt
from vae_cli.training.state import TrainState
from vae_cli.training.step import Engine
from vae_cli.vae.objectives import Terms, Weight
from vae_cli.vae.vae import BATCH_NORMS

Result = TypeVar("Result")


def size() -> int:
    """Return how many processes share the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(config: Config) -> Iterator[None]:
    """Join the run's other processes for the block. Raises UserError where they cannot share it."""
    if size() == 1 or dist.is_initialized():
        yield
        return
    for group, component in config.components():
        if getattr(component, "of_whole_batch", False):
            raise UserError(f"{group}={component.name}: {size()} processes cannot share a batch")
    backend = "gloo"
    if torch.cuda.is_available() and config.device != "cpu":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # each takes its own
    dist.init_process_group(backend, timeout=timedelta(minutes=10))  # for a process that hangs
    try:
        yield
    finally:
        dist.destroy_process_group()


def from_first(work: Callable[[], Result]) -> Result:
    """Call `work` in rank 0 and return its result in every process."""
    if size() == 1:
        return work()
    box = [work() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]  # type: ignore[return-value]


def share(examples: int, rank: int, processes: int) -> tuple[slice, float]:
    """Return the rows of one process among a batch's examples, and their part of the batch."""
    start, stop = (examples * r // processes for r in (rank, rank + 1))
    # a process without a row computes one that counts 0, since all take part in every update
    return slice(start, max(stop, start + 1)), (stop - start) / examples


class SharedEngine(Engine):
    """Draws whole batches like a process alone, computes its rows, averages the gradients."""

    def __init__(self, state: TrainState, data: Data, config: Config) -> None:
        super().__init__(state, data, config, self.shared_loss)
        if data.train.x.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(state.vae)
        elif any(isinstance(m, BATCH_NORMS) for m in state.vae.modules()):
            say("warning: on a CPU, BatchNorm normalises the rows of each process apart")
        self.module = DistributedDataParallel(state.vae)
        self.parent = os.getppid()

    def shared_loss(
        self,
        x: Tensor,
        noise: Tensor,
        weight: Weight,
        seen: Tensor,
        generator: torch.Generator,
        labels: Tensor | None,
    ) -> Terms:
        """Compute the rows of this process; the metrics are those of the whole batch."""
        rows, part = share(len(x), dist.get_rank(), size())
        given = None if labels is None else labels[rows]
        terms = self.module(x[rows], noise[:, rows], weight, seen[rows], generator, given)
        means = torch.stack(list(terms.metrics.values()))
        means = means * part if part else torch.zeros_like(means)  # 0 * infinity is not 0
        dist.all_reduce(means)
        metrics = dict(zip(terms.metrics, means.unbind(), strict=True))
        return Terms(terms.loss * (part * size()), metrics)  # the gradients are averaged

    def is_to_stop(self, interrupt: Interrupt) -> bool:
        """Return whether any process got a signal or lost torchrun, at steps where all ask."""
        if self.state.step % self.config.log_every and self.state.step_of_epoch != 1:
            return False
        orphaned = os.getppid() != self.parent
        number = torch.tensor(interrupt.requested or orphaned * signal.SIGTERM)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        interrupt.requested = int(number) or interrupt.requested
        return int(number) > 0
