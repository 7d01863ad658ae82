"""Schemas of the networks, of the posterior that they make, and of the prior."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from vae_cli.config.registry import Component, register

if TYPE_CHECKING:
    from vae_cli.config.settings import Config

Width = Annotated[int, Field(ge=1)]


class ModelConfig(Component):
    accepts: ClassVar[frozenset[str]] = frozenset({"image", "curve"})
    latent_dim: int = Field(ge=1)
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "softplus"]
    init: Literal["torch", "glorot"]
    output_bias: Literal["init", "data_mean"]

    def problems(self, config: "Config") -> Iterator[str]:
        kind = config.dataset.kind
        if kind is not None and kind not in self.accepts:
            yield self.refusal_of_curves(config.dataset.name)

    def refusal_of_curves(self, dataset: str) -> str:
        """Say that this model needs images and the dataset holds curves."""
        return (
            f"model={self.name} cannot take dataset={dataset}: it needs images and these are"
            " 1-D curves; use model=mlp_vae or model=ae"
        )


@register("model", "ae", "mlp_vae", builds="vae_cli.models.networks:MLP")
class MLPConfig(ModelConfig):
    hidden_sizes: list[Width]


@register("model", "conv_vae", "conv_ae", builds="vae_cli.models.networks:Conv")
class ConvConfig(ModelConfig):
    accepts: ClassVar[frozenset[str]] = frozenset({"image"})
    channels: list[Width] = Field(min_length=1)


class PosteriorConfig(Component):
    has_density: ClassVar[bool] = True  # False: a point for a posterior, a plain autoencoder
    evaluates: ClassVar[bool] = True  # log q(z|x) is known at every z, not only where it was drawn


@register("posterior", "gaussian", builds="vae_cli.vae.posteriors:GaussianHead")
class GaussianPosteriorConfig(PosteriorConfig):
    """No settings of its own."""


@register("posterior", "point", builds="vae_cli.vae.posteriors:PointHead")
class PointPosteriorConfig(PosteriorConfig):
    has_density: ClassVar[bool] = False
    evaluates: ClassVar[bool] = False


class PriorConfig(Component):
    factorised: ClassVar[bool] = False  # the KL is a sum over latent dimensions
    needs_density: ClassVar[bool] = True  # of the posterior

    def problems(self, config: "Config") -> Iterator[str]:
        if self.needs_density and not config.posterior.has_density:
            yield (
                f"prior={self.name} needs a posterior with a density and posterior="
                f"{config.posterior.name} has none; use prior=standard_normal or posterior=gaussian"
            )


@register("prior", "standard_normal", builds="vae_cli.vae.priors:StandardNormal")
class StandardNormalConfig(PriorConfig):
    factorised: ClassVar[bool] = True
    needs_density: ClassVar[bool] = False


class SumConfig(PriorConfig):
    """A weighted sum of densities."""

    components: int = Field(ge=1)


@register("prior", "mixture", builds="vae_cli.vae.priors:Mixture")
class MixtureConfig(SumConfig):
    """No settings of its own."""


@register("prior", "vamp", builds="vae_cli.vae.priors:VampPrior")
class VampPriorConfig(SumConfig):
    start: Literal["examples", "random"]

    def problems(self, config: "Config") -> Iterator[str]:
        yield from super().problems(config)
        if config.posterior.has_density and not config.posterior.evaluates:
            yield (
                f"prior={self.name} needs the density of the posterior at every code and posterior="
                f"{config.posterior.name} knows it only of its own draws; use posterior=gaussian"
            )


@register("prior", "exemplar", builds="vae_cli.vae.priors:Exemplar")
class ExemplarConfig(SumConfig):
    components: int = Field(ge=2)  # in training an example's own is left out


@register("prior", "flow", builds="vae_cli.vae.priors:Flow")
class FlowConfig(PriorConfig):
    layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
