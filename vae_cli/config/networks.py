"""Schemas of the networks, of the posterior that they make, and of the prior."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from vae_cli.config.registry import Component, register

if TYPE_CHECKING:
    from vae_cli.config.settings import Config

Width = Annotated[int, Field(ge=1)]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "softplus"]


class ModelConfig(Component):
    accepts: ClassVar[frozenset[str]] = frozenset({"image", "curve"})
    latent_dim: int = Field(ge=1)
    activation: Activation
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
    has_density: ClassVar[bool] = True  # False: a deterministic code, a plain autoencoder
    evaluates: ClassVar[bool] = True  # log q(z|x) is known at every z, not only at its own draws
    factorised: ClassVar[bool] = False  # a product over dimensions, with a KL of each
    one_hot: ClassVar[bool] = False  # codes are one-hot vectors, not vectors of real numbers


@register("posterior", "gaussian", builds="vae_cli.vae.posteriors:GaussianHead")
class GaussianPosteriorConfig(PosteriorConfig):
    factorised: ClassVar[bool] = True


@register("posterior", "full_covariance", builds="vae_cli.vae.posteriors:FullGaussianHead")
class FullCovarianceConfig(PosteriorConfig):
    """No settings of its own."""


@register("posterior", "point", builds="vae_cli.vae.posteriors:PointHead")
class PointPosteriorConfig(PosteriorConfig):
    has_density: ClassVar[bool] = False
    evaluates: ClassVar[bool] = False


@register("posterior", "iaf", builds="vae_cli.vae.layered:IAFHead")
class IAFConfig(PosteriorConfig):
    evaluates: ClassVar[bool] = False
    flows: int = Field(ge=1)
    hidden_sizes: list[Width] = Field(min_length=1)
    context: int = Field(ge=1)


class TwoLayersConfig(Component):
    """A code in two parts, (z1, z2), and a network from one to the other."""

    group: ClassVar[str]
    top: int = Field(ge=1)
    hidden_sizes: list[Width]
    activation: Activation

    def problems(self, config: "Config") -> Iterator[str]:
        yield from super().problems(config)
        if self.top >= config.model.latent_dim:
            yield (
                f"{self.group}.top={self.top}: is a part of model.latent_dim="
                f"{config.model.latent_dim} and must be smaller"
            )


@register("posterior", "ladder", builds="vae_cli.vae.layered:LadderHead")
class LadderConfig(TwoLayersConfig, PosteriorConfig):
    group: ClassVar[str] = "posterior"


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


@register("prior", "mixture", builds="vae_cli.vae.priors:Mixture")
class MixtureConfig(PriorConfig):
    components: int = Field(ge=1)


@register("prior", "ladder", builds="vae_cli.vae.layered:LadderPrior")
class LadderPriorConfig(TwoLayersConfig, PriorConfig):
    group: ClassVar[str] = "prior"
