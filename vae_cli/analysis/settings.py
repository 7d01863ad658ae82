"""Schemas of the tasks of vae-eval. Imports no torch.

Values and their meanings stand in configs/eval.yaml and configs/task/.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from vae_cli.config.check import nearest
from vae_cli.config.registry import PLACE, Component, Device, Plugins, register
from vae_cli.config.settings import Config


class EvalConfig(Component):
    """The settings that every task has. `build(run, out)` does the task and returns a Report."""

    needs_posterior: ClassVar[str] = ""  # why a plain autoencoder cannot do this task
    needs_numbers: ClassVar[bool] = False  # codes that may have any values, not one-hot vectors

    name: str = Field(alias="task")
    run: str
    outputs: str
    out: str | None
    device: Device
    seed: int | None = Field(ge=0)
    data_dir: str | None
    plugins: Plugins
    dataset: dict[str, str | None]
    other_data: bool

    def problems(self, config: Config) -> Iterator[str]:
        """Yield a line for each reason why this task cannot be done with a run's settings."""
        if self.needs_posterior and not config.is_generative:
            model = f"model={config.model.name}, a deterministic autoencoder"
            model += f" (posterior={config.posterior.name})"
            yield f"task={self.name} cannot be done with {model}: {self.needs_posterior}"
        if self.needs_numbers and config.posterior.one_hot:
            codes = f"the codes of posterior={config.posterior.name} are one-hot vectors"
            yield f"task={self.name} cannot be done: {codes}, which do not vary continuously"
        fields = type(config.dataset).model_fields.items()
        places = [name for name, field in fields if PLACE in field.metadata]
        if unknown := [name for name in self.dataset if name not in places]:
            line = f"dataset.{unknown[0]}: not where the data of dataset={config.dataset.name} lie"
            yield f"{line}{nearest(unknown[0], places)}"


@register("task", "metrics", builds="vae_cli.analysis.tasks:metrics")
class MetricsTask(EvalConfig):
    num_codes: int = Field(ge=2)


@register("task", "nll", builds="vae_cli.analysis.tasks:nll")
class NLLTask(EvalConfig):
    needs_posterior = "its code has no density, so there is no p(x)"
    num_samples: int = Field(ge=1)
    split: Literal["train", "val", "test"]
    max_examples: int | None = Field(ge=2)


@register("task", "disentanglement", builds="vae_cli.analysis.scores:run")
class DisentanglementTask(EvalConfig):
    num_codes: int = Field(ge=2)
    bins: int = Field(ge=2)


class DrawingTask(EvalConfig):
    """A task that draws codes."""

    sampler: Literal["prior", "gmm", "flow", "two_stage"]
    components: int = Field(ge=1)
    steps: int = Field(ge=1)

    def problems(self, config: Config) -> Iterator[str]:
        yield from super().problems(config)
        if self.sampler != "prior" and config.posterior.one_hot:
            kind = f"sampler={self.sampler}: the one-hot codes of posterior={config.posterior.name}"
            yield f"task={self.name}: {kind} have no density; use sampler=prior"


@register("task", "quality", builds="vae_cli.analysis.quality:run")
class QualityTask(DrawingTask):
    num_samples: int = Field(ge=4)
    features: str
    classifier_steps: int = Field(ge=1)

    def problems(self, config: Config) -> Iterator[str]:
        yield from super().problems(config)
        if config.dataset.kind == "curve":
            yield f"task=quality needs images, and dataset={config.dataset.name} holds curves"


@register("task", "embed", builds="vae_cli.analysis.tasks:embed")
class EmbedTask(EvalConfig):
    pass


@register("task", "figures", builds="vae_cli.analysis.tasks:draw")
class FiguresTask(EvalConfig):
    pass


@register("task", "sample", builds="vae_cli.analysis.samplers:sample")
class SampleTask(DrawingTask):
    n: int = Field(ge=1)
    label: str | None

    def problems(self, config: Config) -> Iterator[str]:
        yield from super().problems(config)
        if self.sampler == "prior" and not config.samples_prior:
            yield (
                f"task=sample: sampler=prior: model={config.model.name}, a deterministic"
                f" autoencoder (posterior={config.posterior.name}), has no prior to draw from; use"
                " sampler=gmm, flow or two_stage, or train it with objective=mmd or aae"
            )


@register("task", "interpolate", builds="vae_cli.analysis.tasks:interpolate")
class InterpolateTask(EvalConfig):
    start: str | None = Field(alias="from")  # `from` is a word of Python
    to: str | None
    by: Literal["auto", "label", "index"]
    steps: int = Field(ge=2)

    def problems(self, config: Config) -> Iterator[str]:
        yield from super().problems(config)
        if (self.start is None) != (self.to is None):
            yield f"from={self.start} to={self.to}: give both ends of the line, or none"


@register("task", "traverse", builds="vae_cli.analysis.tasks:traverse")
class TraverseTask(EvalConfig):
    needs_numbers = True
    steps: int = Field(ge=2)
    limit: float = Field(gt=0)
    num_dims: int | None = Field(ge=1)
    example: int | None = Field(ge=0)
    label: str | None


@register("task", "fit", builds="vae_cli.analysis.tasks:fit")
class FitTask(EvalConfig):
    needs_numbers = True
    label: str | None
    alpha: float | None = Field(gt=0)
    beta: float | None = Field(gt=0)
    target: str | None
    num_starts: int = Field(ge=2)

    def problems(self, config: Config) -> Iterator[str]:
        yield from super().problems(config)
        given = (self.alpha is not None) + (self.beta is not None)
        if given != 2 * (self.target is None):
            yield "task=fit needs one curve: give alpha=… and beta=…, or target=FILE.npy"
        if config.dataset.kind == "image":
            yield f"task=fit needs a run on curves, and dataset={config.dataset.name} holds images"


@register("task", "export", builds="vae_cli.analysis.export:run")
class ExportTask(EvalConfig):
    format: Literal["onnx", "torch_export"]
