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
    condition_on_labels: bool

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
    spatial: bool


class PosteriorConfig(Component):
    has_density: ClassVar[bool] = True  # False: a deterministic code, a plain autoencoder
    stops: ClassVar[bool] = False  # log q is known with its parameters stopped, learning by z alone
    factorised: ClassVar[bool] = False  # a product over dimensions, with a KL of each
    one_hot: ClassVar[bool] = False  # codes are one-hot vectors, not vectors of real numbers
    quantised: ClassVar[bool] = False  # a code has finitely many values
    has_moments: ClassVar[bool] = True  # its mean is exact, not another point that stands for it


@register("posterior", "gaussian", builds="vae_cli.vae.posteriors:GaussianHead")
class GaussianPosteriorConfig(PosteriorConfig):
    stops: ClassVar[bool] = True
    factorised: ClassVar[bool] = True


@register("posterior", "full_covariance", builds="vae_cli.vae.posteriors:FullGaussianHead")
class FullCovarianceConfig(PosteriorConfig):
    stops: ClassVar[bool] = True


@register("posterior", "point", builds="vae_cli.vae.posteriors:PointHead")
class PointPosteriorConfig(PosteriorConfig):
    has_density: ClassVar[bool] = False


@register("posterior", "iaf", builds="vae_cli.vae.layered:IAFHead")
class IAFConfig(PosteriorConfig):
    has_moments: ClassVar[bool] = False
    flows: int = Field(ge=1)
    hidden_sizes: list[Width] = Field(min_length=1)
    context: int = Field(ge=1)


class GroupsConfig(PosteriorConfig):
    """A code in groups of equally many dimensions."""

    group: ClassVar[str]  # the setting that says of how many

    def problems(self, config: "Config") -> Iterator[str]:
        size, whole = getattr(self, self.group), config.model.latent_dim
        if whole % size:
            yield f"posterior.{self.group}={size}: must divide model.latent_dim={whole}"


@register("posterior", "vq", builds="vae_cli.vae.discrete:VQHead")
class VQConfig(GroupsConfig):
    quantised: ClassVar[bool] = True
    group: ClassVar[str] = "code_dim"
    has_density: ClassVar[bool] = False
    of_whole_batch: ClassVar[bool] = True  # several processes cannot share its batch
    codes: int = Field(ge=2)
    code_dim: int = Field(ge=1)
    quantizers: int = Field(ge=1)
    commitment: float = Field(gt=0)
    decay: float = Field(gt=0, lt=1)
    revive: float = Field(ge=0)


@register("posterior", "fsq", builds="vae_cli.vae.discrete:FSQHead")
class FSQConfig(PosteriorConfig):
    quantised: ClassVar[bool] = True
    has_density: ClassVar[bool] = False
    levels: int = Field(ge=2)


@register("posterior", "categorical", builds="vae_cli.vae.discrete:CategoricalHead")
class CategoricalConfig(GroupsConfig):
    group: ClassVar[str] = "categories"
    one_hot: ClassVar[bool] = True
    categories: int = Field(ge=2)
    temperature: float = Field(gt=0)
    rate: float = Field(ge=0)
    min_temperature: float = Field(gt=0)


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
    has_moments: ClassVar[bool] = False


class PriorConfig(Component):
    factorised: ClassVar[bool] = False  # the KL is a sum over latent dimensions
    needs_density: ClassVar[bool] = True  # of the posterior
    one_hot: ClassVar[bool] = False  # of one-hot vectors, not of vectors of real numbers

    def problems(self, config: "Config") -> Iterator[str]:
        if self.needs_density and not config.posterior.has_density:
            yield (
                f"prior={self.name} needs a posterior with a density and posterior="
                f"{config.posterior.name} has none; use prior=standard_normal or posterior=gaussian"
            )
        elif self.one_hot != config.posterior.one_hot:
            kinds = ("real numbers", "one-hot vectors")
            remedy = "prior=uniform" if config.posterior.one_hot else "prior=standard_normal"
            yield (
                f"prior={self.name} is one of {kinds[self.one_hot]} and posterior="
                f"{config.posterior.name} draws {kinds[config.posterior.one_hot]}; use {remedy}"
                f"{' or posterior=categorical' if self.one_hot else ''}"
            )


@register("prior", "standard_normal", builds="vae_cli.vae.priors:StandardNormal")
class StandardNormalConfig(PriorConfig):
    factorised: ClassVar[bool] = True
    needs_density: ClassVar[bool] = False


@register("prior", "ladder", builds="vae_cli.vae.layered:LadderPrior")
class LadderPriorConfig(TwoLayersConfig, PriorConfig):
    group: ClassVar[str] = "prior"


@register("prior", "uniform", builds="vae_cli.vae.discrete:Uniform")
class UniformConfig(PriorConfig):
    one_hot: ClassVar[bool] = True
    categories: int = Field(ge=2)

    def problems(self, config: "Config") -> Iterator[str]:
        yield from super().problems(config)
        if getattr(config.posterior, "categories", self.categories) != self.categories:
            yield f"prior.categories={self.categories}: must equal posterior.categories"


@register("prior", "mixture", builds="vae_cli.vae.priors:Mixture")
class MixtureConfig(PriorConfig):
    components: int = Field(ge=1)


@register("prior", "vamp", builds="vae_cli.vae.priors:VampPrior")
class VampPriorConfig(MixtureConfig):
    start: Literal["examples", "random"]


@register("prior", "exemplar", builds="vae_cli.vae.priors:Exemplar")
class ExemplarConfig(MixtureConfig):
    components: int = Field(ge=2)  # in training an example's own is left out


@register("prior", "flow", builds="vae_cli.vae.layered:Flow")
class FlowConfig(PriorConfig):
    layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
