"""Schemas of what makes the loss: likelihood and objective."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vae_cli.config.networks import Width
from vae_cli.config.optimization import Decay
from vae_cli.config.registry import Component, register

if TYPE_CHECKING:
    from vae_cli.config.settings import Config


class LikelihoodConfig(Component):
    needs_unit_interval: ClassVar[bool] = False
    of_whole_batch: ClassVar[bool] = False  # several processes cannot share its batch

    def problems(self, config: "Config") -> Iterator[str]:
        if self.needs_unit_interval and config.dataset.unit_interval is False:
            yield self.refusal_of_data(f"dataset={config.dataset.name} goes beyond")

    def refusal_of_data(self, values: str) -> str:
        """Say that this likelihood needs data in [0, 1]. values: what the data has instead."""
        return (
            f"likelihood={self.name} needs data in [0, 1] and {values};"
            " use likelihood=squared_error, gaussian or laplace"
        )


@register("likelihood", "bernoulli", builds="vae_cli.vae.likelihoods:Bernoulli")
class BernoulliConfig(LikelihoodConfig):
    needs_unit_interval: ClassVar[bool] = True


@register(
    "likelihood", "continuous_bernoulli", builds="vae_cli.vae.likelihoods:ContinuousBernoulli"
)
class ContinuousBernoulliConfig(LikelihoodConfig):
    needs_unit_interval: ClassVar[bool] = True


@register("likelihood", "squared_error", builds="vae_cli.vae.likelihoods:SquaredError")
class LocationConfig(LikelihoodConfig):
    """A density around a mean; the squared error has no more settings."""

    output: Literal["identity", "sigmoid"]


@register("likelihood", "gaussian", builds="vae_cli.vae.likelihoods:Gaussian")
class GaussianConfig(LocationConfig):
    sigma: float = Field(gt=0)


@register("likelihood", "gaussian_learned", builds="vae_cli.vae.likelihoods:GaussianLearned")
class GaussianLearnedConfig(LocationConfig):
    sigma: float = Field(gt=0)


@register("likelihood", "gaussian_optimal", builds="vae_cli.vae.likelihoods:GaussianOptimal")
class GaussianOptimalConfig(LocationConfig):
    of_whole_batch: ClassVar[bool] = True
    min_sigma: float = Field(gt=0)
    momentum: float = Field(gt=0, le=1)


@register("likelihood", "laplace", builds="vae_cli.vae.likelihoods:Laplace")
class LaplaceConfig(LocationConfig):
    scale: float = Field(gt=0)


class ObjectiveConfig(Component):
    monitor: ClassVar[str] = "val/elbo"  # decides the best epoch unless the user names a metric
    needs_density: ClassVar[bool] = False  # of the posterior: a point has none
    needs_factorised: ClassVar[bool] = False  # a posterior that is a product over dimensions
    has_kl: ClassVar[bool] = False  # the loss holds beta |KL - capacity|
    fits_prior: ClassVar[bool] = False  # codes come near p(z) even of a point posterior
    of_batch: ClassVar[bool] = False  # the loss is no mean over examples
    num_samples: int = Field(ge=1)

    @property
    def of_whole_batch(self) -> bool:
        """Whether several processes cannot share a batch."""
        return self.of_batch

    def problems(self, config: "Config") -> Iterator[str]:
        if self.needs_density and not config.posterior.has_density:
            yield (
                f"objective={self.name} needs a VAE and posterior={config.posterior.name}"
                f" (model={config.model.name}) has a deterministic code; use objective=elbo, or"
                " posterior=gaussian"
            )
        elif self.needs_factorised and not config.posterior.factorised:
            yield (
                f"objective={self.name} needs a posterior that is a product over dimensions and"
                f" posterior={config.posterior.name} is none; use posterior=gaussian"
            )


@register("objective", "elbo", builds="vae_cli.vae.objectives:ELBO")
class ElboConfig(ObjectiveConfig):
    has_kl: ClassVar[bool] = True
    free_bits: float = Field(ge=0)

    @property
    def of_whole_batch(self) -> bool:
        return self.of_batch or self.free_bits > 0

    def problems(self, config: "Config") -> Iterator[str]:
        yield from super().problems(config)
        if self.free_bits and not config.posterior.has_density:
            yield (
                f"objective.free_bits={self.free_bits:g}: posterior={config.posterior.name} has no"
                " KL; use objective.free_bits=0"
            )
        elif self.free_bits and not config.posterior.factorised:
            yield (
                f"objective.free_bits={self.free_bits:g} needs the KL of each latent dimension and"
                f" posterior={config.posterior.name} has only their sum; use posterior=gaussian"
            )
        if self.free_bits and not config.prior.factorised:
            yield (
                f"objective.free_bits={self.free_bits:g} needs the KL of each latent dimension and"
                f" prior={config.prior.name} has only their sum; use prior=standard_normal"
            )


@register("objective", "iwae", "miwae", "ciwae", builds="vae_cli.vae.objectives:IWAE")
class IWAEConfig(ObjectiveConfig):
    monitor: ClassVar[str] = "val/bound"
    needs_density: ClassVar[bool] = True
    groups: int = Field(ge=1)
    elbo_share: float = Field(ge=0, le=1)
    gradient: Literal["reparameterised", "stl", "dreg"]

    def problems(self, config: "Config") -> Iterator[str]:
        yield from super().problems(config)
        if self.num_samples % self.groups:
            yield f"objective.groups={self.groups}: must divide num_samples={self.num_samples}"
        if self.gradient != "reparameterised" and not config.posterior.stops:
            yield (
                f"objective.gradient={self.gradient} needs log q with its parameters stopped, which"
                f" posterior={config.posterior.name} has not; use reparameterised"
            )


@register("objective", "beta_tcvae", builds="vae_cli.vae.aggregate:BetaTCVAE")
class BetaTCVAEConfig(ObjectiveConfig):
    needs_density: ClassVar[bool] = True
    of_batch: ClassVar[bool] = True
    needs_factorised: ClassVar[bool] = True
    estimator: Literal["batch", "stratified"]


class AggregateConfig(ElboConfig):
    """The loss of the ELBO and a term of the codes of a batch together."""

    monitor: ClassVar[str] = "val/loss"
    of_batch: ClassVar[bool] = True


@register("objective", "mmd", builds="vae_cli.vae.aggregate:MMD")
class MMDConfig(AggregateConfig):
    fits_prior: ClassVar[bool] = True
    weight: float = Field(gt=0)
    kernel: Literal["imq", "rbf"]
    bandwidth: float = Field(gt=0)


@register("objective", "dip", builds="vae_cli.vae.aggregate:DIP")
class DIPConfig(AggregateConfig):
    kind: Literal[1, 2]
    off_diagonal: float = Field(ge=0)
    diagonal: float = Field(ge=0)

    def problems(self, config: "Config") -> Iterator[str]:
        yield from super().problems(config)
        if self.kind == 2 and not (config.posterior.has_density and config.posterior.factorised):
            yield (
                f"objective.kind=2 needs the variance of each latent dimension and posterior="
                f"{config.posterior.name} has none by itself; use objective.kind=1"
            )


class AdversarialConfig(AggregateConfig):
    """A term by a network that is trained against the others, by an Adam of its own."""

    weight: float = Field(gt=0)
    adversary_sizes: list[Width] = Field(min_length=1)
    adversary_lr: float = Field(gt=0)
    adversary_beta1: Decay
    adversary_beta2: Decay


@register("objective", "factor", builds="vae_cli.vae.aggregate:Factor")
class FactorConfig(AdversarialConfig):
    monitor: ClassVar[str] = "val/elbo"  # the adversary's term changes with the adversary


@register("objective", "aae", builds="vae_cli.vae.aggregate:AAE")
class AAEConfig(AdversarialConfig):
    monitor: ClassVar[str] = "val/reconstruction"  # the adversary's term changes with the adversary
    fits_prior: ClassVar[bool] = True
