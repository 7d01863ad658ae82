"""Schemas of the networks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vae_cli.rules import value
from vae_cli.schema.registry import Component, component


class Posterior(Enum):
    gaussian = "gaussian"
    point = "point"


class Activation(Enum):
    relu = "relu"
    leaky_relu = "leaky_relu"
    elu = "elu"
    gelu = "gelu"
    silu = "silu"
    tanh = "tanh"
    softplus = "softplus"


@dataclass
class ModelConfig(Component):
    accepts: ClassVar[frozenset[str]] = frozenset({"image", "curve"})
    posterior: Posterior = value("gaussian: a VAE; point: a deterministic autoencoder, KL 0")
    latent_dim: int = value("number of latent dimensions", at_least=1)
    activation: Activation = value("non-linearity: " + ", ".join(a.name for a in Activation))


@component("model", "ae", "mlp_vae")
@dataclass
class MLPConfig(ModelConfig):
    builds: ClassVar[str] = "vae_cli.models.mlp:MLP"
    hidden_sizes: list[int] = value(
        "widths of the encoder's hidden layers; the decoder mirrors them", at_least=1
    )


@component("model", "conv_vae", "conv_ae")
@dataclass
class ConvConfig(ModelConfig):
    builds: ClassVar[str] = "vae_cli.models.conv:Conv"
    accepts: ClassVar[frozenset[str]] = frozenset({"image"})
    channels: list[int] = value(
        "channels of the stride-2 convolutions; the decoder mirrors them",
        at_least=1,
        items_at_least=1,
    )
