"""All that changes while a model trains, and what `last.ckpt` holds of it."""

import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vae_cli.config.check import higher_is_better
from vae_cli.config.settings import Config
from vae_cli.console import UserError
from vae_cli.data.dataset import Data
from vae_cli.training.build import fresh_vae
from vae_cli.training.optimization import Averaged, LearningRate, rival
from vae_cli.vae.regularizers import Corruption
from vae_cli.vae.schedules import Schedule
from vae_cli.vae.vae import VAE


class Meter:
    """Collects the metrics of the steps on the device, and their sums over the epoch."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        """capacity: the largest number of steps between two reads."""
        self.capacity = capacity
        self.names: list[str] = []
        self.rows = torch.empty(0, 0, device=device)  # [capacity, metrics]
        self.counts: list[int] = []  # examples in each row that is filled
        self.sums: dict[str, float] = {}  # over the examples of the epoch, up to the last read
        self.total = self.skipped = 0  # examples in these sums; updates that were left out

    def write(self, names: Iterable[str], values: Tensor, row: Tensor | None = None) -> None:
        """Write a step's metrics [M], on the device, into the next row, or row [1] int64."""
        if not self.names:
            self.names = list(names)
            self.rows = self.rows.new_empty(self.capacity, len(values))
        if row is None:
            self.rows[len(self.counts)] = values
        else:
            self.rows.index_copy_(0, row, values[None])

    def read(self) -> dict[str, float]:
        """Return the means since the last read, without updates that were left out."""
        pairs = zip(self.rows[: len(self.counts)].tolist(), self.counts, strict=True)
        finite = [(row, count) for row, count in pairs if all(map(math.isfinite, row))]
        self.skipped += len(self.counts) - len(finite)
        total, means = sum(count for _, count in finite), {}
        for column, name in enumerate(self.names):
            means[name] = sum(row[column] * count for row, count in finite) / total
            self.sums[name] = self.sums.get(name, 0.0) + means[name] * total
        self.total += total
        self.counts = []
        return means

    def epoch(self) -> dict[str, float]:
        """Return the means over the examples of the epoch, and begin the next one."""
        means = {name: total / self.total for name, total in self.sums.items()}
        means |= {"skipped": self.skipped} if self.skipped else {}
        self.sums, self.total, self.skipped = {}, 0, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to go on between two reads."""
        return vars(self) | {"rows": self.rows[: len(self.counts)].cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, perhaps with another capacity."""
        free = self.rows.new_empty(self.capacity, len(state["names"]))
        rows = torch.cat([state["rows"].to(free.device), free])
        vars(self).update(state | {"rows": rows, "capacity": self.capacity})


class TrainState:
    """All that changes while a model trains, and the schedules."""

    PLAIN = ("epoch", "step", "best", "best_epoch", "waited", "seconds", "epoch_seconds")

    def __init__(self, config: Config, data: Data, device: torch.device) -> None:
        """Initialise the networks and the optimiser. Raises UserError for a batch too small."""
        self.examples = len(data.train)
        self.steps_per_epoch = steps = math.ceil(self.examples / config.batch_size)
        self.vae = fresh_vae(config, data).to(device)
        last = self.examples - (steps - 1) * config.batch_size
        if min(last, config.batch_size) < self.vae.model.smallest_batch():
            raise UserError(
                f"batch_size={config.batch_size}: leaves a batch of one among {self.examples:,}"
                f" examples, which BatchNorm in model={config.model.name} cannot normalise"
            )
        self.averaged = Averaged(self.vae, config.ema) if config.ema is not None else None
        adversary = self.vae.objective.adversary  # trains against all the others
        self.rivals = [] if adversary is None else list(adversary.parameters())
        rivals = set(self.rivals)
        self.parameters = [p for p in self.vae.parameters() if p not in rivals]
        self.optimizer: torch.optim.Optimizer = config.optimizer.build(self.parameters)
        own = [rival(config.objective, self.rivals)] if rivals else []
        self.optimizers = [self.optimizer, *own]
        self.beta: Schedule = config.beta_schedule.build(config.beta, steps, config.epochs)
        self.lr: LearningRate = config.scheduler.build(steps, config.epochs)
        self.corruption: Corruption = config.corruption.build()
        self.meter = Meter(config.log_every, device)
        self.epoch = self.step = 0  # finished epochs; updates
        self.best: float | None = None  # of the monitored metric
        self.best_epoch = self.waited = 0  # waited: epochs since the best one
        self.seconds = self.epoch_seconds = 0.0  # of training: in all sessions; in this epoch
        self.compiled: bool | None = None  # how updates are made; None: not decided yet
        self.kept_step, self.marked = 0, 0.0  # of the newest checkpoint; the last call of `lap`

    @property
    def measured(self) -> VAE:
        """The model to measure, draw and keep: the running average where there is one."""
        return self.vae if self.averaged is None else self.averaged.module

    @property
    def step_of_epoch(self) -> int:
        """How many updates of the epoch that is under way are made."""
        return self.step - self.epoch * self.steps_per_epoch

    def schedules(self, step: int) -> tuple[float, float, float]:
        """Return beta, capacity (nats) and learning rate at a step."""
        lr: float = self.optimizer.defaults["lr"] * self.lr.share(step)
        return self.beta.beta_at(step), self.beta.capacity_at(step), lr

    def schedule(self) -> Tensor:
        """Return `schedules` at each step of the epoch. -> [steps, 3] on the device."""
        steps = range(self.epoch * self.steps_per_epoch, (self.epoch + 1) * self.steps_per_epoch)
        return torch.tensor([self.schedules(step) for step in steps]).to(self.meter.rows.device)

    def point(self) -> dict[str, float]:
        """Return beta and learning rate of the last update by their names in TensorBoard."""
        beta, _, lr = self.schedules(self.step - 1)
        return {"schedule/beta": beta, "schedule/lr": lr}

    def lap(self, counts: bool = True) -> None:
        """Count the seconds since the last lap as training, or not at all."""
        before, self.marked = self.marked, time.perf_counter()
        if counts:
            self.seconds += self.marked - before
            self.epoch_seconds += self.marked - before

    def note_best(self, record: dict[str, float], config: Config) -> bool:
        """Return whether this epoch is the best so far; none is before beta has its value."""
        metric = config.monitored
        if metric not in record or self.step < self.beta.final_step:
            return False
        sign, number = (1 if higher_is_better(metric) else -1), record[metric]
        better = self.best is None or sign * number > sign * self.best
        better = better and math.isfinite(number)
        self.waited += 1
        if better:
            self.best, self.best_epoch, self.waited = number, self.epoch, 0
        self.lr.observe(better)
        return better

    def is_finished(self, config: Config) -> bool:
        """Return whether all epochs are done, or none was better for `patience` epochs."""
        return self.epoch >= config.epochs or self.waited >= (config.patience or math.inf)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs; "vae" holds the measured weights."""
        return {
            "vae": self.measured.state_dict(),
            "trained": self.vae.state_dict(),  # takes no room where these are the same tensors
            "optimizer": self.optimizer.state_dict(),
            "rivals": [each.state_dict() for each in self.optimizers[1:]],
            "lr": self.lr.state,
            "meter": self.meter.state_dict(),
            "compiled": self.compiled,
            **{name: getattr(self, name) for name in self.PLAIN},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.vae.load_state_dict(state["trained"])
        self.measured.load_state_dict(state["vae"])
        states = [state["optimizer"], *state["rivals"]]
        for optimizer, saved in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(saved)
        self.meter.load_state_dict(state["meter"])
        self.lr.state = state["lr"]
        self.compiled = state["compiled"]
        for name in self.PLAIN:
            setattr(self, name, state[name])
