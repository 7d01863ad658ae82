"""From a configuration node to the object it describes: the one place where that happens.

A schema names what it builds (`builds = "module:Class"`), so a configuration can name only our own
components and never code of its own.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import torch

from vae_cli.checking import cannot_take
from vae_cli.config import Config, Precision
from vae_cli.corruption import Corruption
from vae_cli.data.download import default_data_dir
from vae_cli.data.interface import Data
from vae_cli.errors import UserError
from vae_cli.optimizers import Adam
from vae_cli.schedules import BetaSchedule, LRSchedule
from vae_cli.schema.optimization import AdamConfig, OptimizerConfig, RMSpropConfig, SGDConfig
from vae_cli.schema.registry import Component
from vae_cli.vae import VAE

PRECISIONS = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16}


def target(config: Component) -> Any:
    """The class or function that a schema names, imported now."""
    module, _, name = config.builds.partition(":")
    return getattr(importlib.import_module(module), name)


def device(name: str) -> torch.device:
    """The device of `device=…`. Raises UserError where there is none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(name)
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            there = f"only {count} CUDA devices" if count else "no CUDA device"
            raise UserError(f"device={name}: this machine has {there}; use device=auto or cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: not available on this machine; use device=auto or cpu")
    return chosen


def data(config: Config) -> Data:
    """Load the dataset and check it against the rest. Raises UserError for what cannot work."""
    folder = Path(config.data_dir).expanduser() if config.data_dir else default_data_dir()
    loaded: Data = target(config.dataset)(config.dataset, folder)
    if ("image" if len(loaded.shape) == 3 else "curve") not in config.model.accepts:
        raise UserError(cannot_take(config))
    low, high = loaded.value_range()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"dataset={loaded.name}: the training data holds NaN or infinite values")
    if config.likelihood.needs_unit_interval and not (low >= 0 and high <= 1):
        raise UserError(
            f"likelihood={config.likelihood.name} needs data in [0, 1] and dataset={loaded.name}"
            f" has values from {low:g} to {high:g}; use likelihood=squared_error, gaussian or"
            " laplace"
        )
    if config.batch_size > len(loaded.train):
        raise UserError(
            f"batch_size={config.batch_size}: must be at most the {len(loaded.train):,} training"
            f" examples of {loaded.name}"
        )
    return loaded


def vae(config: Config, shape: tuple[int, ...]) -> VAE:
    """Networks, likelihood and objective, with weights drawn from config.seed."""
    torch.manual_seed(config.seed)
    return VAE(
        target(config.model)(config.model, shape),
        target(config.likelihood)(config.likelihood),
        target(config.objective)(config.objective),
        target(config.penalty)(config.penalty),
        PRECISIONS[config.precision],
    )


def beta_schedule(config: Config, steps_per_epoch: int) -> BetaSchedule:
    """The weight of the KL as a function of the step. Refuses a warm-up beyond the training."""
    schedule: BetaSchedule = target(config.beta_schedule)(
        config.beta_schedule, config.beta, steps_per_epoch, config.epochs
    )
    steps = config.epochs * steps_per_epoch
    if schedule.final_step > steps:
        raise UserError(
            f"beta_schedule.steps={schedule.final_step}: the warm-up is longer than the training"
            f" ({config.epochs} epochs of {steps_per_epoch} steps), so beta would never be reached"
        )
    return schedule


def corruption(config: Config) -> Corruption:
    """What is done to the input while training."""
    built: Corruption = target(config.corruption)(config.corruption)
    return built


def lr_schedule(config: Config, steps_per_epoch: int) -> LRSchedule:
    """The learning rate's factor as a function of the step."""
    schedule: LRSchedule = target(config.scheduler)(
        config.scheduler, steps_per_epoch, config.epochs
    )
    return schedule


def optimizer(config: OptimizerConfig, module: VAE) -> torch.optim.Optimizer:
    """The optimiser over all parameters, in torch's fused form where there is one."""
    parameters = list(module.parameters())
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    fused = parameters[0].device.type in ("cpu", "cuda")
    match config:
        case AdamConfig():
            common |= {"betas": (config.beta1, config.beta2), "eps": config.eps}
            if fused:
                return Adam(parameters, decoupled=config.name == "adamw", **common)
            kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
            return kind(parameters, **common)
        case SGDConfig():
            return torch.optim.SGD(
                parameters,
                momentum=config.momentum,
                nesterov=config.nesterov,
                fused=fused,
                **common,
            )
        case RMSpropConfig():
            return torch.optim.RMSprop(
                parameters, alpha=config.alpha, eps=config.eps, momentum=config.momentum, **common
            )
    raise AssertionError(f"no optimiser for {config}")
