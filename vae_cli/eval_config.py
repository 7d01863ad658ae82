"""The schema of `vae-eval`: one dataclass a task, all its settings at the top level. No values.

Every value lives in `configs/eval.yaml` and `configs/task/`. A task's schema also says where its
code is and what a run must be for it. This module imports neither torch nor Hydra.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from vae_cli.rules import value

# name -> schema; filled by @task, one YAML each in configs/task/
TASKS: dict[str, type[EvalConfig]] = {}


def task(name: str) -> Callable[[type[Any]], type[Any]]:
    """Register a task's schema."""

    def register(schema: type[Any]) -> type[Any]:
        TASKS[name] = schema
        return schema

    return register


def key_of(schema_field: dataclasses.Field[Any]) -> str:
    """A setting as it is typed: `from_` is the setting `from`, a word that Python keeps."""
    return schema_field.name.rstrip("_")


@dataclass
class EvalConfig:
    """What every task takes. `does` is 'module:function'; `about` its line in the help."""

    does: ClassVar[str]
    about: ClassVar[str]
    # why a deterministic autoencoder cannot do it; None: it can
    needs_posterior: ClassVar[str | None] = None
    needs_curves: ClassVar[bool] = False

    task: str = value("which task this is")
    run: str = value("a run folder, or latest: the newest completed run under `outputs`")
    outputs: str = value("where run=latest looks, sweeps included")
    out: str | None = value("folder of the results; null: eval/ in the run folder")
    device: str = value(
        "auto | cpu | cuda | cuda:N | mps (auto: cuda when there is one, else cpu)",
        pattern=r"auto|cpu|cuda(:\d+)?|mps",
        expected="auto, cpu, cuda, cuda:N or mps",
    )
    seed: int | None = value("seed of what is drawn; null: the run's own", at_least=0)
    data_dir: str | None = value("where datasets are kept; null: as the run had it")


class SplitName(Enum):
    train = "train"
    val = "val"
    test = "test"


@task("metrics")
@dataclass
class MetricsTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.metrics:run"
    about: ClassVar[str] = (
        "test metrics again, active units, mutual information, aggregate posterior, bits per"
        " dimension, linear classifier"
    )
    num_codes: int = value(
        "test examples in the aggregate posterior, for the mutual information", at_least=2
    )


@task("nll")
@dataclass
class NLLTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.nll:run"
    about: ClassVar[str] = "importance-weighted log-likelihood log p(x)"
    needs_posterior: ClassVar[str | None] = "its code has no density, so there is no p(x)"
    num_samples: int = value("codes drawn for an example", at_least=1)
    split: SplitName = value("train | val | test")
    max_examples: int | None = value("measure so many, drawn at random; null: all", at_least=2)


@task("figures")
@dataclass
class FiguresTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.figures:run"
    about: ClassVar[str] = "all pictures of the run, drawn again"


@task("sample")
@dataclass
class SampleTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.walks:sample"
    about: ClassVar[str] = "draws from the prior, decoded (PNG, npz)"
    needs_posterior: ClassVar[str | None] = "it has no prior to draw codes from"
    n: int = value("number of draws", at_least=1)


class By(Enum):
    auto = "auto"
    label = "label"
    index = "index"


@task("interpolate")
@dataclass
class InterpolateTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.walks:interpolate"
    about: ClassVar[str] = "the straight line between the codes of two examples (PNG, GIF, npz)"
    from_: str = value("where it starts: a class (its first test example), or a test example")
    to: str = value("where it ends, likewise")
    by: By = value("auto (label when there are labels) | label | index (of the test example)")
    steps: int = value("pictures on the way, both ends included", at_least=2)


@task("traverse")
@dataclass
class TraverseTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.walks:traverse"
    about: ClassVar[str] = "one dimension of the code at a time, the most active first (PNG, npz)"
    steps: int = value("values of each dimension", at_least=2)
    limit: float = value(
        "from -limit to +limit, in standard deviations of the prior (an autoencoder: of its codes)",
        above=0,
    )
    num_dims: int | None = value("how many dimensions; null: all", at_least=1)
    example: int | None = value(
        "test example whose code the other dimensions keep; null: the mean of the prior", at_least=0
    )


@task("embed")
@dataclass
class EmbedTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.embed:run"
    about: ClassVar[str] = "codes, their KL, labels or curve parameters of every split (npz)"


@task("fit")
@dataclass
class FitTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.fit:run"
    about: ClassVar[str] = "the code whose decoded curve is nearest to a given curve (PNG, JSON)"
    needs_curves: ClassVar[bool] = True
    alpha: float | None = value("first parameter of the target's Beta density", above=0)
    beta: float | None = value("second parameter of the target's Beta density", above=0)
    target: str | None = value("a .npy or .csv file with the target's values, instead")
    num_starts: int = value("starts of the gradient descent", at_least=2)


class Format(Enum):
    onnx = "onnx"
    torchscript = "torchscript"
    torch_export = "torch_export"


@task("export")
@dataclass
class ExportTask(EvalConfig):
    does: ClassVar[str] = "vae_cli.tasks.export:run"
    about: ClassVar[str] = "encoder and decoder as files for other programs, checked"
    format: Format = value("onnx | torchscript | torch_export")
