"""The schema: one dataclass a component, its types, ranges and one line of help a key. No values.

Every value lives once, in `configs/`. Fields carry no defaults, so a value that is missing from the
YAML is an error and never a second, silent default. This module imports neither torch nor Hydra:
help, completion and configuration errors answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from vae_cli.rules import value

# (group, name) -> schema; filled by @component, read by cli.py (Hydra's store) and by `typed`
SCHEMAS: dict[tuple[str, str], type[Any]] = {}


def component(group: str, *names: str) -> Callable[[type[Any]], type[Any]]:
    """Register a schema for the choices `names` of a config group, one YAML each."""

    def register(schema: type[Any]) -> type[Any]:
        for name in names:
            SCHEMAS[group, name] = schema
        return schema

    return register


@dataclass
class Component:
    """A choice of a config group. `name` says which; `builds` is 'module:Class' for `build.py`."""

    builds: ClassVar[str]
    name: str = value("which component this is")


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


class Binarize(Enum):
    none = "none"
    threshold = "threshold"
    dynamic = "dynamic"


@dataclass
class SuggestedConfig:
    """Network sizes that fit a dataset; the models' YAML refers to them."""

    hidden_sizes: list[int] = value("model.hidden_sizes unless given", at_least=1)
    latent_dim: int = value("model.latent_dim unless given", at_least=1)


@dataclass
class DatasetConfig(Component):
    kind: ClassVar[str | None]  # "image", "curve"; None: known only when loaded
    unit_interval: ClassVar[bool | None]  # are all values in [0, 1]? None: known only when loaded
    val_size: int | None = value(
        "examples carved from the training set for validation; null: a tenth, at most 10,000",
        at_least=0,
    )
    suggested: SuggestedConfig = value("network sizes that fit this dataset")


@dataclass
class ImagesConfig(DatasetConfig):
    kind: ClassVar[str | None] = "image"
    unit_interval: ClassVar[bool | None] = True
    binarize: Binarize = value("none | threshold (at 0.5) | dynamic (drawn anew at every look)")


@component("dataset", "mnist", "fashion_mnist")
@dataclass
class IdxImagesConfig(ImagesConfig):
    builds: ClassVar[str] = "vae_cli.data.mnist:load"


@component("dataset", "digits")
@dataclass
class DigitsConfig(ImagesConfig):
    builds: ClassVar[str] = "vae_cli.data.digits:load"
    size: int | None = value("height and width to resize to; null: the original 8", at_least=2)
    test_size: int = value("examples held out for the test", at_least=1)


@component("dataset", "image_folder")
@dataclass
class ImageFolderConfig(ImagesConfig):
    builds: ClassVar[str] = "vae_cli.data.image_folder:load"
    path: str = value("the folder; images in its subfolders count too")
    size: int = value("height and width: shorter side resized, centre cropped", at_least=2)
    channels: int = value("1: grey, 3: RGB", at_least=1, at_most=3)
    test_size: int | None = value(
        "images held out for the test; null: a tenth, at most 10,000", at_least=1
    )
    in_memory: bool | str = value(
        "true: decoded once and kept | false: decoded as needed | auto: kept where they fit",
        pattern="auto",
        expected="auto, true or false",
    )


class Layout(Enum):
    auto = "auto"
    chw = "chw"
    hwc = "hwc"
    vector = "vector"


class Scale(Enum):
    none = "none"
    minmax = "minmax"
    standard = "standard"


@component("dataset", "arrays")
@dataclass
class ArraysConfig(DatasetConfig):
    builds: ClassVar[str] = "vae_cli.data.arrays:load"
    kind: ClassVar[str | None] = None
    unit_interval: ClassVar[bool | None] = None
    train: str = value("a .npy, .npz, .safetensors or .csv file of the training examples")
    test: str | None = value("a file of the test examples; null: test_size of train's")
    test_size: int | None = value(
        "examples held out for the test where there is no file; null: a tenth, at most 10,000",
        at_least=1,
    )
    key: str | None = value("which array of a .npz or .safetensors; null: the only one, or x")
    labels: str | None = value(
        "which array (a .csv: column) has labels; null: y, labels or label, if there"
    )
    layout: Layout = value("axes of an example: auto | chw | hwc | vector (flattened)")
    scale: Scale = value(
        "none | minmax (to 0 to 1) | standard (mean 0, deviation 1), as the training part has it"
    )
    binarize: Binarize = value("none | threshold (at 0.5) | dynamic (drawn anew at every look)")


class Quantity(Enum):
    log_density = "log_density"
    density = "density"


@component("dataset", "beta_pdf")
@dataclass
class BetaPDFConfig(DatasetConfig):
    builds: ClassVar[str] = "vae_cli.data.beta_pdf:load"
    kind: ClassVar[str | None] = "curve"
    unit_interval: ClassVar[bool | None] = False
    num_curves: int = value("curves in the training set, before val_size", at_least=1)
    test_size: int = value("curves in the test set, drawn from test_seed", at_least=1)
    num_points: int = value("points on a curve", at_least=2)
    x_min: float = value("first point of the grid", above=0, below=1)
    x_max: float = value("last point of the grid", above=0, below=1)
    max_parameter: float = value("a and b are drawn uniformly from (0, max_parameter)", above=0)
    quantity: Quantity = value("log_density | density")
    seed: int = value("seed of the training curves", at_least=0)
    test_seed: int = value("seed of the test curves", at_least=0)


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


# --------------------------------------------------------------------------------------- the whole


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class Figures(Enum):
    auto = "auto"
    none = "none"


MONITORS = ("val/elbo", "val/loss", "val/reconstruction", "val/kl")


@dataclass
class Config:
    """All of a run's settings: the whole of `config.yaml` in a run folder."""

    beta: float = value("weight of the KL; 1 is the ELBO for every dataset and size", at_least=0)
    seed: int = value("seed of the weights, the batch order and the noise", at_least=0)
    epochs: int = value("passes over the training set", at_least=1)
    batch_size: int = value("examples in an update", at_least=1)
    device: str = value(
        "auto | cpu | cuda | cuda:N | mps (auto: cuda when there is one, else cpu)",
        pattern=r"auto|cpu|cuda(:\d+)?|mps",
        expected="auto, cpu, cuda, cuda:N or mps",
    )
    precision: Precision = value("fp32 | bf16 (networks in bfloat16, losses and weights in fp32)")
    compile: bool = value("compile the networks with torch.compile")
    data_dir: str | None = value("where datasets are kept; null: $VAE_DATA_DIR or the user's cache")
    resume: str | None = value("a run folder to go on with")
    figures: Figures = value("auto: draw what fits the model and the data; none: draw nothing")
    manifold_size: int = value("codes along each side of the decoded manifold", at_least=2)
    manifold_range: list[float] | None = value(
        "[low,high] of the manifold's codes; null: where the codes are", items_at_least=2
    )
    interpolate: list[int] | None = value(
        "labels to walk through, e.g. [1,0,6]; null: the first two classes",
        at_least=0,
        items_at_least=2,
    )
    ema: float | None = value(
        "decay of a running average of the weights that is measured and kept; null: none",
        above=0,
        below=1,
    )
    grad_clip: float | None = value("largest norm of the gradient; null: no limit", above=0)
    patience: int | None = value(
        "stop after this many epochs without a better `monitor`; null: never", at_least=1
    )
    monitor: str = value(
        "what decides the best epoch: " + " | ".join(MONITORS) + " (elbo: at beta = 1)",
        pattern="|".join(MONITORS),
        expected="one of " + ", ".join(MONITORS),
    )
    deterministic: bool = value("only deterministic kernels (GPU: slower)")
    log_every: int = value("steps between two points in TensorBoard", at_least=1)
    image_every: int = value("epochs between two pictures in TensorBoard; 0: none", at_least=0)
    dry_run: bool = value("check everything up to one step, print sizes and times, leave nothing")
    model: ModelConfig = value("the networks")
    dataset: DatasetConfig = value("the data")
    likelihood: LikelihoodConfig = value("what the decoder's output means: p(x|z)")
    objective: ObjectiveConfig = value("how the loss is made")
    beta_schedule: BetaScheduleConfig = value("beta over the training")
    corruption: CorruptionConfig = value("noise on the input while training (denoising)")
    penalty: PenaltyConfig = value("a term on the code beside the objective")
    optimizer: OptimizerConfig = value("the optimiser")
    scheduler: SchedulerConfig = value("the learning rate over the training")


# groups with a node in the config; `experiment` only overrides them
GROUPS = (
    "model",
    "dataset",
    "likelihood",
    "objective",
    "beta_schedule",
    "corruption",
    "penalty",
    "optimizer",
    "scheduler",
)
