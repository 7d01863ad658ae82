"""What changes while a model trains, and what `last.ckpt` holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vae_cli import build, checkpoint, console
from vae_cli.averaging import Averaged
from vae_cli.checking import as_container
from vae_cli.config import Config
from vae_cli.corruption import Corruption
from vae_cli.data.interface import Data
from vae_cli.distributed import ALONE, Ranks
from vae_cli.errors import UserError
from vae_cli.meter import Meter
from vae_cli.objectives import Terms
from vae_cli.schedules import BetaSchedule, LRSchedule
from vae_cli.vae import VAE


@dataclass
class TrainState:
    """All that changes while training, and the schedules. What `last.ckpt` holds."""

    vae: VAE
    loss: Callable[..., Terms]  # vae's forward pass: compiled, shared among processes, or as it is
    parameters: list[nn.Parameter]  # vae's
    averaged: Averaged | None  # running average of the weights (`ema`)
    optimizer: torch.optim.Optimizer
    beta: BetaSchedule
    lr: LRSchedule
    corruption: Corruption
    meter: Meter  # of the epoch that is under way
    ranks: Ranks = ALONE  # the processes that share each batch
    epoch: int = 0  # epochs finished
    step: int = 0  # updates made
    best: float | None = None  # of the monitored metric
    best_epoch: int = 0
    waited: int = 0  # epochs since the best
    kept_step: int = 0  # that of the newest checkpoint
    seconds: float = 0.0  # spent so far, earlier sessions included
    epoch_seconds: float = 0.0  # those of them that belong to the epoch that is under way

    PLAIN = ("epoch", "step", "best", "best_epoch", "waited", "seconds", "epoch_seconds")

    @property
    def measured(self) -> VAE:
        """The weights that are measured, drawn and kept: the running average where there is one."""
        if self.averaged is None:
            return self.vae
        assert isinstance(self.averaged.module, VAE)
        return self.averaged.module

    def forget_gradients(self) -> None:
        """The next backward pass writes new ones and adds to none."""
        for parameter in self.parameters:
            parameter.grad = None

    def spent(self, seconds: float) -> None:
        """Time that has gone into the epoch that is under way."""
        self.seconds += seconds
        self.epoch_seconds += seconds

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs. "vae" holds the measured weights in every checkpoint."""
        averaged = {} if self.averaged is None else {"trained": self.vae.state_dict()}
        return {
            "vae": self.measured.state_dict(),
            **averaged,
            "optimizer": self.optimizer.state_dict(),
            "lr": self.lr.state(),
            "meter": self.meter.state_dict(),
            **{name: getattr(self, name) for name in self.PLAIN},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.measured.load_state_dict(state["vae"])
        if self.averaged is not None:
            self.vae.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr.load(state["lr"])
        self.meter.load_state_dict(state["meter"])
        for name in self.PLAIN:
            setattr(self, name, state[name])


def new_state(config: Config, data: Data, device: torch.device, ranks: Ranks = ALONE) -> TrainState:
    """Freshly initialised networks and optimiser."""
    steps = steps_per_epoch(config, data)
    vae = build.vae(config, data.shape).to(device)
    _refuse_single_example_batch(config, data, vae, ranks.size)
    if ranks.size > 1:
        vae = _with_shared_statistics(vae, device)
    compiled = config.compile and ranks.size == 1
    return TrainState(
        vae,
        torch.compile(vae.forward) if compiled else ranks.wrapped(vae),
        list(vae.parameters()),
        None if config.ema is None else Averaged(vae, config.ema),
        build.optimizer(config.optimizer, vae),
        build.beta_schedule(config, steps),
        build.lr_schedule(config, steps),
        build.corruption(config),
        Meter(config.log_every, device),
        ranks,
    )


def steps_per_epoch(config: Config, data: Data) -> int:
    """Updates in an epoch; a smaller last batch counts, every example is trained on."""
    return math.ceil(len(data.train) / config.batch_size)


def note_best(state: TrainState, record: dict[str, float], config: Config) -> bool:
    """Whether this epoch is the best so far. None counts before a beta warm-up has ended."""
    if config.monitor not in record or state.step < state.beta.final_step:
        return False
    value = record[config.monitor]
    sign = 1 if config.monitor.endswith("/elbo") else -1
    better = state.best is None or sign * value > sign * state.best
    if better:
        state.best, state.best_epoch, state.waited = value, state.epoch, 0
    else:
        state.waited += 1
    state.lr.observe(better)
    return better


def is_finished(state: TrainState, config: Config) -> bool:
    """All epochs done, or nothing better for `patience` epochs."""
    out_of_patience = config.patience is not None and state.waited >= config.patience
    return state.epoch >= config.epochs or out_of_patience


def save(
    path: Path, state: TrainState, config: Config, data: Data, written: Path | None = None
) -> None:
    """Write a checkpoint: the state, and what a model is rebuilt from.

    written: a checkpoint of this very state, if there is one. The former last.ckpt becomes
    previous.ckpt. Of several processes only the first writes.
    """
    former = path.with_name(checkpoint.PREVIOUS) if path.name == checkpoint.LAST else None
    if state.ranks.first and written is not None:
        checkpoint.repeat(written, path, former)
    elif state.ranks.first:
        about = {"config": as_container(config), "shape": list(data.shape)}
        checkpoint.save(path, state.state_dict() | about, former)
    state.kept_step = state.step


def _with_shared_statistics(vae: VAE, device: torch.device) -> VAE:
    """BatchNorm over the whole batch where torch has it: not on a CPU, where each process
    normalises by its own rows, and the first process's running statistics are kept."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in vae.modules()):
        return vae
    if device.type == "cuda":
        converted: VAE = nn.SyncBatchNorm.convert_sync_batchnorm(vae)
        return converted
    console.say(
        "warning: on a CPU each process normalises its own part of a batch (BatchNorm): the numbers"
        " differ from those of one process"
    )
    return vae


def _refuse_single_example_batch(config: Config, data: Data, vae: VAE, processes: int) -> None:
    """BatchNorm over one image of one pixel has nothing to normalise."""
    smallest = getattr(vae.model, "smallest", None)
    sizes = {config.batch_size, len(data.train) % config.batch_size or config.batch_size}
    single = min(sizes) // processes <= 1 if processes > 1 else 1 in sizes
    if smallest is not None and math.prod(smallest[1:]) == 1 and single:
        raise UserError(
            f"batch_size={config.batch_size}: leaves a batch of one among {len(data.train):,}"
            f" examples, and at {data.shape[1]}x{data.shape[2]} pixels model={config.model.name}"
            " cannot normalise a single image; use another batch_size or fewer model.channels"
        )
