"""Beta and the learning rate as functions of the step, so that resuming needs no state for them.

The one exception is `PlateauLR`, which must remember what it has seen; its state goes into the
checkpoint. `step` counts updates from 0 over the whole training.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from vae_cli.schema.losses import (
    BetaScheduleConfig,
    CapacityBetaConfig,
    CyclicalBetaConfig,
    WarmupBetaConfig,
)
from vae_cli.schema.optimization import (
    CosineLRConfig,
    ExponentialLRConfig,
    PlateauLRConfig,
    SchedulerConfig,
    StepLRConfig,
)


class BetaSchedule(ABC):
    """The weight of the KL at every step: beta |KL - capacity|."""

    def __init__(
        self, config: BetaScheduleConfig, beta: float, steps_per_epoch: int, epochs: int
    ) -> None:
        self.beta = beta
        self.final_step = 0  # from here on the weight is what was asked for

    @abstractmethod
    def at(self, step: int) -> float:
        """beta at a step."""

    def capacity(self, step: int) -> float:
        """The KL that costs nothing at a step, in nats."""
        return 0.0


class ConstantBeta(BetaSchedule):
    """beta at every step."""

    def at(self, step: int) -> float:
        return self.beta


class WarmupBeta(BetaSchedule):
    """Linear rise from `start` to beta (Bowman et al. 2016, Sonderby et al. 2016)."""

    def __init__(
        self, config: WarmupBetaConfig, beta: float, steps_per_epoch: int, epochs: int
    ) -> None:
        super().__init__(config, beta, steps_per_epoch, epochs)
        self.start = config.start
        self.final_step = config.steps or max(1, round(config.epochs * steps_per_epoch))

    def at(self, step: int) -> float:
        share = min(1.0, step / self.final_step)
        return self.start + share * (self.beta - self.start)


class CyclicalBeta(BetaSchedule):
    """In each of `cycles` equal parts of the training: a linear rise from 0, then beta
    (Fu et al. 2019, equation 6)."""

    def __init__(
        self, config: CyclicalBetaConfig, beta: float, steps_per_epoch: int, epochs: int
    ) -> None:
        super().__init__(config, beta, steps_per_epoch, epochs)
        self.cycles = config.cycles
        self.length = epochs * steps_per_epoch / config.cycles  # steps
        self.rise = config.rise * self.length
        self.final_step = math.ceil((config.cycles - 1) * self.length + self.rise)

    def at(self, step: int) -> float:
        cycle = min(int(step / self.length), self.cycles - 1)
        return self.beta * min(1.0, (step - cycle * self.length) / self.rise)


class CapacityBeta(BetaSchedule):
    """Constant beta on |KL - C| with C rising linearly from 0 (Burgess et al. 2018)."""

    def __init__(
        self, config: CapacityBetaConfig, beta: float, steps_per_epoch: int, epochs: int
    ) -> None:
        super().__init__(config, beta, steps_per_epoch, epochs)
        self.final_capacity = config.capacity
        self.final_step = max(1, round(config.epochs * steps_per_epoch))

    def at(self, step: int) -> float:
        return self.beta

    def capacity(self, step: int) -> float:
        return self.final_capacity * min(1.0, step / self.final_step)


class LRSchedule(ABC):
    """The learning rate as a share of optimizer.lr."""

    def __init__(self, config: SchedulerConfig, steps_per_epoch: int, epochs: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs

    @abstractmethod
    def factor(self, step: int) -> float:
        """The share at a step."""

    def observe(self, better: bool) -> None:  # noqa: B027
        """Told at every epoch's end whether the monitored metric became better."""

    def state(self) -> dict[str, float]:
        """What must be kept for a resume."""
        return {}

    def load(self, state: dict[str, float]) -> None:  # noqa: B027
        """Take up what `state` returned."""


class ConstantLR(LRSchedule):
    """1 at every step."""

    def factor(self, step: int) -> float:
        return 1.0


class ExponentialLR(LRSchedule):
    """gamma^epoch."""

    def __init__(self, config: ExponentialLRConfig, steps_per_epoch: int, epochs: int) -> None:
        super().__init__(config, steps_per_epoch, epochs)
        self.gamma = config.gamma

    def factor(self, step: int) -> float:
        return float(self.gamma ** (step // self.steps_per_epoch))


class StepLR(LRSchedule):
    """gamma^(number of whole `every_epochs` that have passed)."""

    def __init__(self, config: StepLRConfig, steps_per_epoch: int, epochs: int) -> None:
        super().__init__(config, steps_per_epoch, epochs)
        self.gamma, self.every_epochs = config.gamma, config.every_epochs

    def factor(self, step: int) -> float:
        return float(self.gamma ** (step // self.steps_per_epoch // self.every_epochs))


class CosineLR(LRSchedule):
    """Linear rise over `warmup_epochs`, then half a cosine (Loshchilov & Hutter 2017)."""

    def __init__(self, config: CosineLRConfig, steps_per_epoch: int, epochs: int) -> None:
        super().__init__(config, steps_per_epoch, epochs)
        self.warmup = round(config.warmup_epochs * steps_per_epoch)
        self.final_factor = config.final_factor

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        total = self.epochs * self.steps_per_epoch - self.warmup
        share = min(1.0, (step - self.warmup) / max(1, total - 1))
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * share))


class PlateauLR(LRSchedule):
    """A drop by gamma when the monitored metric has not become better for `patience` epochs."""

    def __init__(self, config: PlateauLRConfig, steps_per_epoch: int, epochs: int) -> None:
        super().__init__(config, steps_per_epoch, epochs)
        self.patience, self.gamma = config.patience, config.gamma
        self.min_factor = config.min_factor
        self.current, self.waited = 1.0, 0

    def factor(self, step: int) -> float:
        return self.current

    def observe(self, better: bool) -> None:
        self.waited = 0 if better else self.waited + 1
        if self.waited > self.patience:
            self.current = max(self.min_factor, self.current * self.gamma)
            self.waited = 0

    def state(self) -> dict[str, float]:
        return {"current": self.current, "waited": self.waited}

    def load(self, state: dict[str, float]) -> None:
        self.current, self.waited = state["current"], int(state["waited"])
