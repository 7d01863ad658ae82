"""All settings of a run: the root of the schema. The components' schemas are in `schema/`.

Every value lives once, in `configs/`. Fields carry no defaults, so a value that is missing from the
YAML is an error and never a second, silent default. Neither this module nor `schema/` imports torch
or Hydra: help, completion and configuration errors answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vae_cli.rules import value
from vae_cli.schema.datasets import DatasetConfig
from vae_cli.schema.losses import (
    BetaScheduleConfig,
    CorruptionConfig,
    LikelihoodConfig,
    ObjectiveConfig,
    PenaltyConfig,
)
from vae_cli.schema.models import ModelConfig
from vae_cli.schema.optimization import OptimizerConfig, SchedulerConfig


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class OnNonfinite(Enum):
    stop = "stop"
    skip = "skip"


class Figures(Enum):
    auto = "auto"
    none = "none"


MONITORS = ("val/elbo", "val/loss", "val/reconstruction", "val/kl")


@dataclass
class Config:
    """All of a run's settings: the whole of `config.yaml` in a run folder."""

    beta: float = value("weight of the KL; 1 is the ELBO for every dataset and size", at_least=0)
    seed: int = value("seed of the weights, the batch order and the noise", at_least=0)
    epochs: int = value("passes over the training set", at_least=1, extendable=True)
    batch_size: int = value("examples in an update", at_least=1)
    device: str = value(
        "auto | cpu | cuda | cuda:N | mps (auto: cuda when there is one, else cpu)",
        pattern=r"auto|cpu|cuda(:\d+)?|mps",
        expected="auto, cpu, cuda, cuda:N or mps",
        incidental=True,
    )
    precision: Precision = value("fp32 | bf16 (networks in bfloat16, losses and weights in fp32)")
    compile: bool = value("compile the networks with torch.compile", incidental=True)
    cuda_graph: bool = value(
        "record a training step once and replay it (CUDA only)", incidental=True
    )
    data_dir: str | None = value(
        "where datasets are kept; null: $VAE_DATA_DIR or the user's cache", incidental=True
    )
    resume: str | None = value(
        "a run folder to go on with; auto: the newest unfinished run with these settings",
        incidental=True,
    )
    figures: Figures = value(
        "auto: what fits the model and the data; none: no pictures of runs", incidental=True
    )
    manifold_size: int = value(
        "codes along each side of the decoded manifold", at_least=2, incidental=True
    )
    manifold_range: list[float] | None = value(
        "[low,high] of the manifold's codes; null: where the codes are",
        items_at_least=2,
        incidental=True,
    )
    interpolate: list[int] | None = value(
        "labels to walk through, e.g. [1,0,6]; null: the first two classes",
        at_least=0,
        items_at_least=2,
        incidental=True,
    )
    ema: float | None = value(
        "decay of a running average of the weights that is measured and kept; null: none",
        above=0,
        below=1,
    )
    grad_clip: float | None = value("largest norm of the gradient; null: no limit", above=0)
    on_nonfinite: OnNonfinite = value(
        "stop | skip: what to do about a loss or gradient that is NaN or infinite (skip: leave out"
        " that update and count it)",
        extendable=True,
    )
    checkpoint_minutes: float | None = value(
        "also write last.ckpt inside an epoch, this often; null: only at an epoch's end",
        above=0,
        incidental=True,
    )
    patience: int | None = value(
        "stop after this many epochs without a better `monitor`; null: never",
        at_least=1,
        extendable=True,
    )
    monitor: str = value(
        "what decides the best epoch: " + " | ".join(MONITORS) + " (elbo: at beta = 1)",
        pattern="|".join(MONITORS),
        expected="one of " + ", ".join(MONITORS),
    )
    deterministic: bool = value("only deterministic kernels (GPU: slower)", incidental=True)
    log_every: int = value("steps between two points in TensorBoard", at_least=1, incidental=True)
    image_every: int = value(
        "epochs between two pictures in TensorBoard; 0: none", at_least=0, incidental=True
    )
    dry_run: bool = value(
        "check everything up to one step, print sizes and times, leave nothing", incidental=True
    )
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
