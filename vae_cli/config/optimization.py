"""Schemas of the optimisers, and of the learning rate and beta over the training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from vae_cli.config.registry import Component, register

if TYPE_CHECKING:
    from vae_cli.config.settings import Config

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Component):
    can_skip: ClassVar[bool] = False  # an update, where its `found_inf` is 1
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)

    def problems(self, config: "Config") -> Iterator[str]:
        if config.on_nonfinite == "skip" and not self.can_skip:
            yield (
                f"on_nonfinite=skip cannot leave out an update of optimizer={self.name};"
                " use optimizer=adam, adamw or sgd"
            )


@register("optimizer", "adam", builds="vae_cli.training.optimization:adam")
class AdamConfig(OptimizerConfig):
    can_skip: ClassVar[bool] = True
    decoupled: ClassVar[bool] = False  # the weight decay, from the gradient
    beta1: Decay
    beta2: Decay
    eps: float = Field(gt=0)


@register("optimizer", "adamw", builds="vae_cli.training.optimization:adam")
class AdamWConfig(AdamConfig):
    decoupled: ClassVar[bool] = True


@register("optimizer", "sgd", builds="vae_cli.training.optimization:sgd")
class SGDConfig(OptimizerConfig):
    can_skip: ClassVar[bool] = True
    momentum: Decay
    nesterov: bool

    def problems(self, config: "Config") -> Iterator[str]:
        if self.nesterov and self.momentum == 0:
            yield "optimizer.nesterov=true needs optimizer.momentum > 0"


@register("optimizer", "rmsprop", builds="vae_cli.training.optimization:rmsprop")
class RMSpropConfig(OptimizerConfig):
    alpha: Decay
    eps: float = Field(gt=0)
    momentum: Decay


@register("scheduler", "constant", builds="vae_cli.training.optimization:constant_lr")
class ConstantLRConfig(Component):
    """No settings of its own."""


@register("scheduler", "exponential", builds="vae_cli.training.optimization:exponential_lr")
class ExponentialLRConfig(Component):
    gamma: float = Field(gt=0, le=1)


@register("scheduler", "cosine", builds="vae_cli.training.optimization:cosine_lr")
class CosineLRConfig(Component):
    uses_epochs = True
    warmup_epochs: float = Field(ge=0)
    final_factor: float = Field(ge=0, le=1)

    def problems(self, config: "Config") -> Iterator[str]:
        if self.warmup_epochs >= config.epochs:
            yield (
                f"scheduler.warmup_epochs={self.warmup_epochs:g}: must be less than"
                f" epochs={config.epochs}"
            )


@register("scheduler", "step", builds="vae_cli.training.optimization:step_lr")
class StepLRConfig(Component):
    every_epochs: int = Field(ge=1)
    gamma: float = Field(gt=0, le=1)


@register("scheduler", "plateau", builds="vae_cli.training.optimization:PlateauLR")
class PlateauLRConfig(Component):
    patience: int = Field(ge=0)
    gamma: float = Field(gt=0, lt=1)
    min_factor: float = Field(ge=0, lt=1)

    def problems(self, config: "Config") -> Iterator[str]:
        if config.dataset.val_size == 0:
            yield f"scheduler={self.name} needs validation data and dataset.val_size=0"


class BetaScheduleConfig(Component):
    of_whole_batch: ClassVar[bool] = False
    changes_loss: ClassVar[bool] = True  # so it needs a KL whose weight it can change
    needs_kl: ClassVar[bool] = False  # as a term of its own in the loss

    def length(self) -> float:
        """The epochs that the training must have for the schedule to reach its end."""
        return 0.0

    def problems(self, config: "Config") -> Iterator[str]:
        if self.changes_loss and not config.posterior.has_density:
            yield (
                f"beta_schedule={self.name}: posterior={config.posterior.name} has no KL that"
                " beta could weigh; use beta_schedule=constant"
            )
        if self.needs_kl and not config.objective.has_kl:
            yield (
                f"beta_schedule={self.name} has no effect with objective={config.objective.name},"
                " whose loss does not hold the KL by itself; use objective=elbo"
            )
        if self.length() > config.epochs:
            yield (
                f"beta_schedule.epochs={self.length():g}: the warm-up is longer than the training"
                f" (epochs={config.epochs}), so beta would never be reached"
            )


@register("beta_schedule", "constant", builds="vae_cli.vae.schedules:constant")
class ConstantBetaConfig(BetaScheduleConfig):
    changes_loss: ClassVar[bool] = False


@register("beta_schedule", "warmup", builds="vae_cli.vae.schedules:warmup")
class WarmupBetaConfig(BetaScheduleConfig):
    start: float = Field(ge=0)
    epochs: float = Field(gt=0)
    steps: int | None = Field(ge=1)

    def length(self) -> float:
        return self.epochs if self.steps is None else 0.0


@register("beta_schedule", "cyclical", builds="vae_cli.vae.schedules:cyclical")
class CyclicalBetaConfig(BetaScheduleConfig):
    uses_epochs = True
    cycles: int = Field(ge=1)
    rise: float = Field(gt=0, le=1)


@register("beta_schedule", "capacity", builds="vae_cli.vae.schedules:capacity")
class CapacityBetaConfig(BetaScheduleConfig):
    needs_kl: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True
    capacity: float = Field(ge=0)
    epochs: float = Field(gt=0)

    def length(self) -> float:
        return self.epochs
