"""Optimisers, the learning rate over the steps, a running average of the weights."""

import math
from collections.abc import Callable
from copy import deepcopy
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from vae_cli.config import optimization as schemas
from vae_cli.config.losses import AdversarialConfig, ObjectiveConfig
from vae_cli.vae.vae import VAE


def adam(config: schemas.AdamConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019)."""
    settings = config.model_dump(include={"lr", "eps", "weight_decay"})
    return Adam(parameters, config.decoupled, betas=(config.beta1, config.beta2), **settings)


def rival(config: ObjectiveConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the Adam of an objective's adversary; its learning rate has no schedule."""
    assert isinstance(config, AdversarialConfig)
    betas = (config.adversary_beta1, config.adversary_beta2)
    return Adam(parameters, False, lr=config.adversary_lr, betas=betas)


def sgd(config: schemas.SGDConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build stochastic gradient descent; our settings have torch's names."""
    return torch.optim.SGD(parameters, fused=True, **config.model_dump(exclude={"name"}))


def rmsprop(config: schemas.RMSpropConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build RMSprop (Tieleman & Hinton 2012); our settings have torch's names."""
    return torch.optim.RMSprop(parameters, **config.model_dump(exclude={"name"}))


class Adam(torch.optim.Adam):
    """torch's fused Adam or AdamW; gathers its tensors once, which halves a small net's update."""

    # torch wraps these for compiled code, and imports its compiler (1.3 s) when one is called
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    state_dict = unwrap(torch.optim.Adam.state_dict)

    def __init__(self, parameters: list[nn.Parameter], decoupled: bool, **settings: Any) -> None:
        """decoupled: use the weight decay of AdamW. settings: lr, betas, eps, weight_decay."""
        super().__init__(parameters, fused=True, **settings)
        self.found_inf: Tensor | None = None  # scalar on the device; 1: leave this update out
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self.parameters, self.decoupled = parameters, decoupled
        # a graph that read them from the group would hold its learning rate too
        self.constants = (*settings["betas"], self.defaults["eps"], self.defaults["weight_decay"])
        self.weights = [parameter.data for parameter in parameters]
        for parameter in parameters:
            means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **means}
        self.load_state_dict(self.state_dict())  # makes the lists

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one update, or none where `found_inf` is 1."""
        (group,) = self.param_groups
        names = ("lr", "weight_decay", "eps", "amsgrad", "maximize")
        settings = {name: group[name] for name in names} | {"found_inf": self.found_inf}
        beta1, beta2 = group["betas"]
        gradients = [parameter.grad for parameter in self.parameters]
        lists: Any = (self.weights, gradients, self.means, self.squares, [], self.counts)
        self.count.add_(1)
        self.kernel(*lists, beta1=beta1, beta2=beta2, **settings)
        if self.found_inf is not None:
            self.count.sub_(self.found_inf)

    def with_corrections(self, schedule: Tensor) -> Tensor:
        """Put Adam's corrections of the coming updates behind their schedules. [S, C] -> [S, C+2].

        The two columns: the step size lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t); lr in column 2.
        """
        updates = torch.arange(len(schedule), dtype=torch.float64) + 1 + float(self.count)
        beta1, beta2, *_ = self.constants
        first, second = 1 - beta1**updates, 1 - beta2**updates
        columns = torch.stack([schedule[:, 2].double() / first, second.rsqrt()], 1)
        return torch.cat([schedule, columns.to(schedule)], 1)

    @torch.no_grad()
    def update(self, gradients: list[Tensor], row: Tensor) -> None:
        """Make the update of `step` in plain operations, which a compiler fuses to one loop.

        row: of `with_corrections`.
        """
        beta1, beta2, eps, decay = self.constants
        lr, size, correction = row[2], row[-2], row[-1]
        self.count.add_(1)
        lists = (self.parameters, gradients, self.means, self.squares)
        for parameter, gradient, mean, square in zip(*lists, strict=True):
            if decay and self.decoupled:
                parameter.mul_(1 - lr * decay)
            elif decay:
                gradient = gradient + decay * parameter
            mean.copy_(mean + (1 - beta1) * (gradient - mean))
            square.copy_(beta2 * square + (1 - beta2) * gradient * gradient)
            parameter.copy_(parameter - size * mean / (square.sqrt() * correction + eps))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an optimiser of this class or of torch's."""
        unwrap(torch.optim.Adam.load_state_dict)(self, state_dict)
        states = [self.state[parameter] for parameter in self.parameters]
        self.count: Tensor = states[0]["step"]
        self.counts = [self.count] * len(states)
        for state in states:
            state["step"] = self.count
        self.means = [state["exp_avg"] for state in states]
        self.squares = [state["exp_avg_sq"] for state in states]


class LearningRate:
    """The learning rate as a share of `optimizer.lr`: a function of the step, counted from 0."""

    def __init__(self, share: Callable[[int], float], **state: float) -> None:
        """share: by step. state: what a resumed run needs."""
        self.share, self.state = share, state

    def observe(self, better: bool) -> None:
        """Hear after an epoch whether the monitored metric became better."""


def constant_lr(config: schemas.ConstantLRConfig, steps: int, epochs: int) -> LearningRate:
    """1 at every step. Here and below: steps in an epoch."""
    return LearningRate(lambda step: 1.0)


def exponential_lr(config: schemas.ExponentialLRConfig, steps: int, epochs: int) -> LearningRate:
    """gamma^epoch."""
    return LearningRate(lambda step: config.gamma ** (step // steps))


def step_lr(config: schemas.StepLRConfig, steps: int, epochs: int) -> LearningRate:
    """gamma^(epoch // every_epochs)."""
    return LearningRate(lambda step: config.gamma ** (step // (steps * config.every_epochs)))


def cosine_lr(config: schemas.CosineLRConfig, steps: int, epochs: int) -> LearningRate:
    """A linear rise over `warmup_epochs`, then half a cosine (Loshchilov & Hutter 2017)."""
    warmup = round(config.warmup_epochs * steps)
    fall = max(1, epochs * steps - warmup - 1)

    def share(step: int) -> float:
        cosine = math.cos(math.pi * min(1.0, (step - warmup) / fall))
        height = config.final_factor + (1 - config.final_factor) * 0.5 * (1 + cosine)
        return height if step >= warmup else (step + 1) / warmup

    return LearningRate(share)


class PlateauLR(LearningRate):
    """A drop by gamma when the monitored metric has not become better for `patience` epochs."""

    def __init__(self, config: schemas.PlateauLRConfig, steps: int, epochs: int) -> None:
        super().__init__(lambda step: self.state["factor"], factor=1.0, waited=0)
        self.config = config

    def observe(self, better: bool) -> None:
        factor, waited = self.state["factor"], 0 if better else self.state["waited"] + 1
        if waited > self.config.patience:
            factor, waited = max(self.config.min_factor, factor * self.config.gamma), 0
        self.state = {"factor": factor, "waited": waited}


class Averaged:
    """average <- decay * average + (1 - decay) * weights (Polyak & Juditsky 1992)."""

    def __init__(self, module: VAE, decay: float) -> None:
        self.decay = decay
        self.module = deepcopy(module).requires_grad_(False)
        self.average: list[Tensor] = list(self.module.parameters())
        self.weights: list[Tensor] = list(module.parameters())
        self.buffers = list(zip(self.module.buffers(), module.buffers(), strict=True))

    @torch.no_grad()
    def update(self, first: bool) -> None:
        """Follow an update of the weights; the first one makes the average equal to them."""
        torch._foreach_lerp_(self.average, self.weights, 1.0 if first else 1 - self.decay)
        for average, newest in self.buffers:  # the statistics of BatchNorm are averages already
            average.copy_(newest)
