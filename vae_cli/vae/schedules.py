"""The weight of the KL over the training."""

import math
from collections.abc import Callable
from typing import NamedTuple

from vae_cli.config import optimization as schemas
from vae_cli.console import UserError


class Schedule(NamedTuple):
    """The weight of the KL as functions of the step, so that a resume needs no state.

    The loss has beta |KL - capacity|. A step counts updates from 0 over the whole training. Each
    builder takes its schema, the beta of the configuration, the steps of an epoch and the epochs.
    """

    beta_at: Callable[[int], float]
    capacity_at: Callable[[int], float] = lambda step: 0.0  # the KL that costs nothing, in nats
    final_step: int = 0  # from here on the weight is the one that was asked for


def constant(config: schemas.ConstantBetaConfig, beta: float, steps: int, epochs: int) -> Schedule:
    """Keep beta at every step."""
    return Schedule(lambda step: beta)


def warmup(config: schemas.WarmupBetaConfig, beta: float, steps: int, epochs: int) -> Schedule:
    """Rise linearly from `start` to beta (Bowman et al. 2016, Sonderby et al. 2016).

    Raises UserError for a rise that is longer than the training.
    """
    final = config.steps or max(1, round(config.epochs * steps))
    if final > epochs * steps:
        raise UserError(
            f"beta_schedule.steps={final}: the warm-up is longer than the training"
            f" ({epochs} epochs of {steps} steps), so beta would never be reached"
        )
    rise = beta - config.start
    return Schedule(lambda step: config.start + min(1.0, step / final) * rise, final_step=final)


def cyclical(config: schemas.CyclicalBetaConfig, beta: float, steps: int, epochs: int) -> Schedule:
    """Rise linearly from 0, then stay at beta, in each of `cycles` equal parts of the training
    (Fu et al. 2019, equation 6)."""
    length = epochs * steps / config.cycles  # steps
    rise = config.rise * length

    def beta_at(step: int) -> float:
        cycle = min(int(step / length), config.cycles - 1)
        return beta * min(1.0, (step - cycle * length) / rise)

    return Schedule(beta_at, final_step=math.ceil((config.cycles - 1) * length + rise))


def capacity(config: schemas.CapacityBetaConfig, beta: float, steps: int, epochs: int) -> Schedule:
    """Keep beta on |KL - C| while C rises linearly from 0 (Burgess et al. 2018)."""
    final = max(1, round(config.epochs * steps))
    return Schedule(lambda step: beta, lambda step: config.capacity * min(1.0, step / final), final)
