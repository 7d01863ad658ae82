"""One run by several processes: who this one is, its part of each batch, what all of them agree on.

torchrun, or whatever sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, starts the
processes. Each draws the order, the noise and the corruption of whole batches as one process alone
would and computes its own rows; DistributedDataParallel averages the gradients. The first process
(rank 0) writes everything.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vae_cli.config import Config
from vae_cli.errors import RunFailed, UserError, one_line

log = logging.getLogger(__name__)

Result = TypeVar("Result")
PATIENCE = timedelta(hours=1)  # with a process that prepares data, or draws
NOTICE = timedelta(seconds=3)  # for the first process to see that the run ends
GRACE = timedelta(seconds=20)  # and to write that down: torchrun grants 30
# what gloo says when another process has gone; NCCL has an error type of its own
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo")


class Share(NamedTuple):
    """A process's part of a batch."""

    rows: slice
    part: float  # of the batch's examples, 0 to 1


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, as one of them sees them. On its own by default."""

    rank: int = 0
    size: int = 1
    store: Any = None  # torch.distributed's; None: one process

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, examples: int) -> Share:
        """This process's rows among so many: consecutive, and as many as any other has or one more.

        Every process must take part in every update: one without rows takes a row that counts 0.
        """
        each, more = divmod(examples, self.size)
        count = each + (self.rank < more)
        start = self.rank * each + min(self.rank, more) if count else 0
        return Share(slice(start, start + max(count, 1)), count / examples)

    def own(self, order: Tensor, batch_size: int) -> tuple[Tensor, int]:
        """What this process computes of an order [N], and how many in a whole batch."""
        parts = [part[self.share(len(part)).rows] for part in order.split(batch_size)]
        return torch.cat(parts), len(parts[0])

    def wrapped(self, vae: nn.Module) -> Callable[..., Any]:
        """The module's forward pass, whose backward pass averages over the processes."""
        if self.size == 1:
            return vae.forward
        return DistributedDataParallel(vae)

    def mean(self, metrics: dict[str, Tensor], part: float) -> dict[str, Tensor]:
        """A batch's means from each process's. part: this one's of the batch's examples."""
        vector = torch.stack(list(metrics.values()))
        # a row that counts 0 may be infinite
        vector = vector * part if part else torch.zeros_like(vector)
        dist.all_reduce(vector)
        return dict(zip(metrics, vector.unbind(), strict=True))

    def from_first(self, work: Callable[[], Result]) -> Result:
        """What the first process gets from `work`; an error there is everybody's."""
        if self.size == 1:
            return work()
        result, problem = None, None
        if self.first:
            try:
                result = work()
            except Exception as error:
                problem = error
        self._agree(problem)
        box = [result]
        dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """What `work` gives here: first the first process, so that one alone downloads, then the
        others. An error anywhere is everybody's."""
        if self.size == 1:
            return work()
        result: Any = None
        for mine in (self.first, not self.first):
            problem = None
            if mine:
                try:
                    result = work()
                except Exception as error:
                    problem = error
            self._agree(problem)
        return result  # type: ignore[no-any-return]

    def any(self, number: int | None) -> int | None:
        """The largest of the processes' numbers (signals); None where all have None."""
        if self.size == 1:
            return number
        largest = torch.tensor(number or 0)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest) or None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say so when another process ends inside the block. Raises RunFailed."""
        if self.size == 1:
            yield
            return
        # torchrun asks all to end when one has; what is to be written down then comes first
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        try:
            with self._seen():
                yield
        except RuntimeError as error:
            known = isinstance(error, dist.DistError) or any(w in str(error) for w in LOST)
            if not known:
                raise
            log.exception("the connection to another process was lost")
            raise RunFailed(f"{self._lost()}; all {self.size} processes end") from error

    def send(self, order: Config | int) -> None:
        """Tell the waiting processes what to train or, as an exit code, that there is nothing."""
        self.store.set("order", pickle.dumps(order))

    def receive(self) -> Config | int:
        """Wait for what the first process sends."""
        self.store.wait(["order"], PATIENCE)
        order: Config | int = pickle.loads(self.store.get("order"))
        return order

    def done(self) -> None:
        """The first process has written all it will."""
        self.store.set("ending", "1")
        self.store.set("done", "1")

    def leave(self, report: str) -> bool:
        """Report a failure and, where the first process has it too, stay until that has written it
        down: torchrun ends all as soon as one is gone, and until then the first may wait for this
        one. Returns whether it has."""
        try:
            self.store.set(f"report/{self.rank}", report or "?")
            self.store.wait(["ending"], NOTICE)
            self.store.wait(["done"], GRACE)
        except RuntimeError:  # the first process is gone, or waits for this one
            return False
        return True

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """Let the others know at once that the first process ends too."""
        try:
            yield
        except BaseException:
            if self.first:
                self.store.set("ending", "1")
            raise

    def _lost(self) -> str:
        """Which process ended, if it has said so."""
        for rank in range(self.size):
            if rank != self.rank and self.store.check([f"report/{rank}"]):
                report = self.store.get(f"report/{rank}").decode()
                log.error("process %d of %d: %s", rank, self.size, report)
                lines = [line for line in report.splitlines() if line.startswith("vae-train: ")]
                why = lines[0].removeprefix("vae-train: ") if lines else "without a word"
                return f"process {rank} has ended: {why}"
        return "another process ended without a word (killed, or out of memory)"

    def _agree(self, problem: Exception | None) -> None:
        """Raise the first problem that any process has."""
        found: list[Any] = [None] * self.size
        text = None if problem is None else str(problem) or type(problem).__name__
        dist.all_gather_object(found, text and (isinstance(problem, UserError), text))
        if problem is not None:
            raise problem
        for rank, entry in enumerate(found):
            if entry is not None:
                kind = UserError if entry[0] else RunFailed
                raise kind(f"process {rank} of {self.size}: {entry[1]}")


ALONE = Ranks()
_current = ALONE


def current() -> Ranks:
    """This process's place among those of its run."""
    return _current


@contextmanager
def group() -> Iterator[Ranks]:
    """Join the other processes, for the block. Raises UserError where they cannot be found."""
    global _current
    if not dist.is_available():
        raise UserError("this torch is built without torch.distributed: train with one process")
    # not in every build of torch
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=PATIENCE)))
    except (ValueError, OSError, RuntimeError) as error:
        line = one_line(error)
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: the other processes cannot be joined: {line};"
            " start them with torchrun, or unset WORLD_SIZE for a run of one process"
        ) from error
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    _current = Ranks(rank, size, PrefixStore("vae-cli", store))
    try:
        yield _current
    finally:
        _current = ALONE
        dist.destroy_process_group()


def device(name: str, ranks: Ranks) -> str:
    """The device of this process: each takes a GPU of its own. Raises UserError for too few."""
    if ranks.size == 1 or not name.startswith(("auto", "cuda")):
        return name
    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    local = int(os.environ.get("LOCAL_RANK", ranks.rank))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= count:
        raise UserError(
            f"device={name}: process {local} of this machine finds {count} CUDA devices; start as"
            " many processes as there are, or use device=cpu"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"
