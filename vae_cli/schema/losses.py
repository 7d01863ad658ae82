"""Schemas of what makes the loss: likelihood, objective, weight of the KL, corruption, penalty."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vae_cli.rules import value
from vae_cli.schema.registry import Component, component


@dataclass
class LikelihoodConfig(Component):
    needs_unit_interval: ClassVar[bool] = False


@component("likelihood", "bernoulli")
@dataclass
class BernoulliConfig(LikelihoodConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:Bernoulli"
    needs_unit_interval: ClassVar[bool] = True


@component("likelihood", "continuous_bernoulli")
@dataclass
class ContinuousBernoulliConfig(LikelihoodConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:ContinuousBernoulli"
    needs_unit_interval: ClassVar[bool] = True


class Output(Enum):
    identity = "identity"
    sigmoid = "sigmoid"


@dataclass
class LocationConfig(LikelihoodConfig):
    """A density around a mean."""

    output: Output = value("the mean is the network's output (identity) or its sigmoid")


@component("likelihood", "gaussian")
@dataclass
class GaussianConfig(LocationConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:Gaussian"
    sigma: float = value("standard deviation of every data dimension", above=0)


@component("likelihood", "gaussian_learned")
@dataclass
class GaussianLearnedConfig(LocationConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:GaussianLearned"
    sigma: float = value("standard deviation that the learning starts from", above=0)


@component("likelihood", "gaussian_optimal")
@dataclass
class GaussianOptimalConfig(LocationConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:GaussianOptimal"
    min_sigma: float = value("the standard deviation never falls below this", above=0)
    momentum: float = value("weight of a batch in the running variance", above=0, at_most=1)


@component("likelihood", "laplace")
@dataclass
class LaplaceConfig(LocationConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:Laplace"
    scale: float = value("scale of every data dimension; 1 is the L1 error plus log 2", above=0)


@component("likelihood", "squared_error")
@dataclass
class SquaredErrorConfig(LocationConfig):
    builds: ClassVar[str] = "vae_cli.likelihoods:SquaredError"


@dataclass
class ObjectiveConfig(Component):
    needs_density: ClassVar[bool] = False  # of the posterior: a deterministic code has none
    num_samples: int = value("Monte-Carlo samples of the code for an example", at_least=1)


@component("objective", "elbo")
@dataclass
class ElboConfig(ObjectiveConfig):
    builds: ClassVar[str] = "vae_cli.objectives:ELBO"
    free_bits: float = value("nats that each latent dimension may use at no cost", at_least=0)


@component("objective", "iwae")
@dataclass
class IWAEConfig(ObjectiveConfig):
    builds: ClassVar[str] = "vae_cli.objectives:IWAE"
    needs_density: ClassVar[bool] = True


@component("objective", "beta_tcvae")
@dataclass
class BetaTCVAEConfig(ObjectiveConfig):
    builds: ClassVar[str] = "vae_cli.objectives:BetaTCVAE"
    needs_density: ClassVar[bool] = True


@dataclass
class BetaScheduleConfig(Component):
    pass


@component("beta_schedule", "constant")
@dataclass
class ConstantBetaConfig(BetaScheduleConfig):
    builds: ClassVar[str] = "vae_cli.schedules:ConstantBeta"


@component("beta_schedule", "warmup")
@dataclass
class WarmupBetaConfig(BetaScheduleConfig):
    builds: ClassVar[str] = "vae_cli.schedules:WarmupBeta"
    start: float = value("weight of the KL at the first step", at_least=0)
    epochs: float = value("length of the linear rise to beta, in epochs", above=0)
    steps: int | None = value("the same length in steps, instead of epochs", at_least=1)


@component("beta_schedule", "cyclical")
@dataclass
class CyclicalBetaConfig(BetaScheduleConfig):
    builds: ClassVar[str] = "vae_cli.schedules:CyclicalBeta"
    cycles: int = value("cycles in the training", at_least=1)
    rise: float = value("share of a cycle in which the weight rises from 0", above=0, at_most=1)


@component("beta_schedule", "capacity")
@dataclass
class CapacityBetaConfig(BetaScheduleConfig):
    builds: ClassVar[str] = "vae_cli.schedules:CapacityBeta"
    capacity: float = value("KL that is asked for in the end, nats", at_least=0)
    epochs: float = value("length of its linear rise from 0, in epochs", above=0)


@dataclass
class CorruptionConfig(Component):
    pass


@component("corruption", "none")
@dataclass
class NoCorruptionConfig(CorruptionConfig):
    builds: ClassVar[str] = "vae_cli.corruption:Clean"


@component("corruption", "gaussian")
@dataclass
class GaussianNoiseConfig(CorruptionConfig):
    builds: ClassVar[str] = "vae_cli.corruption:GaussianNoise"
    sigma: float = value("standard deviation of the noise added to the input", above=0)


@component("corruption", "masking")
@dataclass
class MaskingConfig(CorruptionConfig):
    builds: ClassVar[str] = "vae_cli.corruption:Masking"
    probability: float = value("of setting a value of the input to 0", above=0, below=1)


@dataclass
class PenaltyConfig(Component):
    pass


@component("penalty", "none")
@dataclass
class NoPenaltyConfig(PenaltyConfig):
    builds: ClassVar[str] = "vae_cli.penalties:NoPenalty"


@component("penalty", "sparse")
@dataclass
class SparseConfig(PenaltyConfig):
    builds: ClassVar[str] = "vae_cli.penalties:Sparse"
    weight: float = value("weight of the code's L1 norm", above=0)


@component("penalty", "contractive")
@dataclass
class ContractiveConfig(PenaltyConfig):
    builds: ClassVar[str] = "vae_cli.penalties:Contractive"
    weight: float = value("weight of the squared norm of the encoder's Jacobian", above=0)
