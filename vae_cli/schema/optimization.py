"""Schemas of the optimisers and the learning-rate schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vae_cli.rules import value
from vae_cli.schema.registry import Component, component


@dataclass
class OptimizerConfig(Component):
    lr: float = value("learning rate at the start (after a warm-up)", above=0)
    weight_decay: float = value("weight decay", at_least=0)


@component("optimizer", "adam", "adamw")
@dataclass
class AdamConfig(OptimizerConfig):
    beta1: float = value("decay of the gradient's running mean", at_least=0, below=1)
    beta2: float = value("decay of the squared gradient's running mean", at_least=0, below=1)
    eps: float = value("added to the denominator", above=0)


@component("optimizer", "sgd")
@dataclass
class SGDConfig(OptimizerConfig):
    momentum: float = value("momentum", at_least=0, below=1)
    nesterov: bool = value("Nesterov's momentum")


@component("optimizer", "rmsprop")
@dataclass
class RMSpropConfig(OptimizerConfig):
    alpha: float = value("decay of the squared gradient's running mean", at_least=0, below=1)
    eps: float = value("added to the denominator", above=0)
    momentum: float = value("momentum", at_least=0, below=1)


@dataclass
class SchedulerConfig(Component):
    pass


@component("scheduler", "constant")
@dataclass
class ConstantLRConfig(SchedulerConfig):
    builds: ClassVar[str] = "vae_cli.schedules:ConstantLR"


@component("scheduler", "exponential")
@dataclass
class ExponentialLRConfig(SchedulerConfig):
    builds: ClassVar[str] = "vae_cli.schedules:ExponentialLR"
    gamma: float = value("factor an epoch", above=0, at_most=1)


@component("scheduler", "cosine")
@dataclass
class CosineLRConfig(SchedulerConfig):
    builds: ClassVar[str] = "vae_cli.schedules:CosineLR"
    warmup_epochs: float = value("epochs of linear rise from 0", at_least=0)
    final_factor: float = value(
        "last learning rate, as a share of the first", at_least=0, at_most=1
    )


@component("scheduler", "step")
@dataclass
class StepLRConfig(SchedulerConfig):
    builds: ClassVar[str] = "vae_cli.schedules:StepLR"
    every_epochs: int = value("epochs between two drops", at_least=1)
    gamma: float = value("factor a drop", above=0, at_most=1)


@component("scheduler", "plateau")
@dataclass
class PlateauLRConfig(SchedulerConfig):
    builds: ClassVar[str] = "vae_cli.schedules:PlateauLR"
    patience: int = value("epochs without a better `monitor` before a drop", at_least=0)
    gamma: float = value("factor a drop", above=0, below=1)
    min_factor: float = value("never below this share of optimizer.lr", at_least=0, below=1)
