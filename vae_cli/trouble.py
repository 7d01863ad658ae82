"""What can go wrong while training, in words that help: numbers that are not finite, no memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vae_cli.config import Config, OnNonfinite
from vae_cli.errors import RunFailed, UserError
from vae_cli.meter import Window
from vae_cli.randomness import epoch_order
from vae_cli.state import TrainState

log = logging.getLogger(__name__)

SHOWN = 5  # of a batch's examples, in the message; train.log has all


def stop_if_not_finite(state: TrainState, window: Window, config: Config, examples: int) -> None:
    """Raise RunFailed if a step of the window was not finite and may not be skipped.

    window: of the last steps. examples: in the training set.
    """
    broken = window.broken()
    if not broken:
        return
    if config.on_nonfinite is OnNonfinite.skip:
        if len(broken) < len(window.rows):
            return
        remedy = "every update since the last reading was left out"
    else:
        remedy = "on_nonfinite=skip leaves out such updates"
    row, name = broken[0]
    step = state.step - len(window.rows) + row  # counted from 0
    batch = step - state.epoch * -(-examples // config.batch_size)
    order = epoch_order(state.meter.device, config.seed, state.epoch, examples)
    index = order[batch * config.batch_size : (batch + 1) * config.batch_size].tolist()
    log.error("%s is not finite at step %d, of training examples %s", name, step + 1, index)
    term = "the gradient" if name == "grad_norm" else name
    shown = ", ".join(map(str, index[:SHOWN])) + (", …" if len(index) > SHOWN else "")
    raise RunFailed(
        f"{term} is not finite at step {step + 1:,} (epoch {state.epoch + 1}, batch {batch + 1},"
        f" training examples {shown}); lower optimizer.lr, set grad_clip=1, or warm beta up with"
        f" beta_schedule=warmup; {remedy}; the last checkpoint is of step {state.kept_step:,}"
    )


@contextmanager
def out_of_memory(config: Config, shape: tuple[int, ...] | None = None) -> Iterator[None]:
    """Say what to lower when the block needs more memory than there is.

    shape: of an example, once training has begun. Raises UserError before that, RunFailed after.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        log.exception("out of memory")
        if shape is None:
            raise UserError(
                f"out of memory while model={config.model.name} and dataset={config.dataset.name}"
                " were set up: use smaller layers or fewer examples"
            ) from error
        size = "x".join(map(str, shape))
        precision = "" if config.precision.name == "bf16" else ", precision=bf16"
        raise RunFailed(
            f"out of memory with batch_size={config.batch_size} and examples of shape {size} on"
            f" {config.device}: lower batch_size (half of it first){precision}, smaller layers, or"
            f" fewer objective.num_samples (now {config.objective.num_samples})"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    # torch's CPU allocator raises a plain RuntimeError
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in words
    )
