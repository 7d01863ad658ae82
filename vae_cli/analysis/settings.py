"""Schemas of the tasks of vae-eval. Imports no torch.

Values and their meanings stand in configs/eval.yaml and configs/task/.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from vae_cli.config.check import nearest
from vae_cli.config.registry import PLACE, Component, register
from vae_cli.config.settings import Config, Device


class EvalConfig(Component):
    """The settings that every task has. `build(run, out)` does the task and returns a Report."""

    needs_posterior: ClassVar[str] = ""  # why a plain autoencoder cannot do this task

    name: str = Field(alias="task")
    run: str
    outputs: str
    out: str | None
    device: Device
    seed: int | None = Field(ge=0)
    data_dir: str | None
    dataset: dict[str, str | None]
    other_data: bool

    def problems(self, config: Config) -> Iterator[str]:
        """Yield a line for each reason why this task cannot be done with a run's settings."""
        if self.needs_posterior and not config.is_generative:
            model = f"model={config.model.name}, a deterministic autoencoder"
            yield f"task={self.name} cannot be done with {model}: {self.needs_posterior}"
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


@register("task", "embed", builds="vae_cli.analysis.tasks:embed")
class EmbedTask(EvalConfig):
    pass


@register("task", "figures", builds="vae_cli.analysis.tasks:draw")
class FiguresTask(EvalConfig):
    pass


@register("task", "sample", builds="vae_cli.analysis.samplers:sample")
class SampleTask(EvalConfig):
    n: int = Field(ge=1)
    sampler: Literal["prior", "gmm", "flow", "two_stage"]
    components: int = Field(ge=1)
    steps: int = Field(ge=1)

    def problems(self, config: Config) -> Iterator[str]:
        if self.sampler == "prior" and not config.is_generative:
            yield (
                f"task=sample: sampler=prior: model={config.model.name}, a deterministic"
                " autoencoder, has no prior to draw codes from; use sampler=gmm, flow or two_stage"
            )
        yield from super().problems(config)


@register("task", "interpolate", builds="vae_cli.analysis.tasks:interpolate")
class InterpolateTask(EvalConfig):
    start: str = Field(alias="from")  # `from` is a word of Python
    to: str
    by: Literal["auto", "label", "index"]
    steps: int = Field(ge=2)


@register("task", "traverse", builds="vae_cli.analysis.tasks:traverse")
class TraverseTask(EvalConfig):
    steps: int = Field(ge=2)
    limit: float = Field(gt=0)
    num_dims: int | None = Field(ge=1)
    example: int | None = Field(ge=0)


@register("task", "fit", builds="vae_cli.analysis.tasks:fit")
class FitTask(EvalConfig):
    alpha: float | None = Field(gt=0)
    beta: float | None = Field(gt=0)
    target: str | None
    num_starts: int = Field(ge=2)

    def problems(self, config: Config) -> Iterator[str]:
        given = (self.alpha is not None) + (self.beta is not None)
        if given != 2 * (self.target is None):
            yield "task=fit needs one curve: give alpha=… and beta=…, or target=FILE.npy"
        if config.dataset.kind == "image":
            yield f"task=fit needs a run on curves, and dataset={config.dataset.name} holds images"


@register("task", "export", builds="vae_cli.analysis.export:run")
class ExportTask(EvalConfig):
    format: Literal["onnx", "torch_export"]
