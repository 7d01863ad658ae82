"""All settings of a run: the root of the schema, and what does not go together.

Every value lives once, in `configs/`, with its meaning beside it. A value that is missing there is
an error and never a second, silent default.
"""

import difflib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from vae_cli.config.datasets import DatasetConfig
from vae_cli.config.losses import LikelihoodConfig, ObjectiveConfig
from vae_cli.config.networks import ModelConfig, PosteriorConfig, PriorConfig
from vae_cli.config.optimization import BetaScheduleConfig, OptimizerConfig
from vae_cli.config.registry import (
    HOW,
    HOW_FAR,
    PLACE,
    SCHEMAS,
    Component,
    Device,
    Plugins,
    Schema,
    Tags,
    node_of,
    register,
)


class LoggerConfig(Component):
    """What a run logs to, beside the files of its own."""

    extra: ClassVar[str] = ""  # of vae-cli, which installs a module of this name


@register("logger", "tensorboard", builds="vae_cli.runs.tensorboard:TensorBoard")
class TensorBoardConfig(LoggerConfig):
    """No settings of its own."""


@register("logger", "csv", builds="vae_cli.runs.loggers:CSV")
class CSVConfig(LoggerConfig):
    """No settings of its own."""


@register("logger", "wandb", builds="vae_cli.runs.loggers:WandB")
class WandBConfig(LoggerConfig):
    extra: ClassVar[str] = "wandb"
    project: str
    entity: str | None
    mode: Literal["online", "offline", "disabled"] | None


@register("logger", "trackio", builds="vae_cli.runs.loggers:Trackio")
class TrackioConfig(LoggerConfig):
    extra: ClassVar[str] = "trackio"
    project: str
    space_id: str | None


@register("logger", "mlflow", builds="vae_cli.runs.loggers:MLflow")
class MLflowConfig(LoggerConfig):
    extra: ClassVar[str] = "mlflow"
    experiment: str
    tracking_uri: Annotated[str | None, PLACE]


class Config(Schema):
    """A run's settings: the whole of `config.yaml` in a run folder."""

    beta: float = Field(ge=0)
    seed: int = Field(ge=0)
    epochs: Annotated[int, Field(ge=1), HOW_FAR]
    batch_size: int = Field(ge=1)
    device: Annotated[Device, HOW]
    precision: Literal["fp32", "bf16"]
    compile: Annotated[Literal["auto"] | bool, HOW]
    cuda_graph: Annotated[bool, HOW]
    deterministic: Annotated[bool, HOW]
    name: Annotated[str | None, HOW]
    tags: Annotated[Tags, HOW]
    data_dir: Annotated[str | None, HOW]
    plugins: Annotated[Plugins, HOW]
    resume: Annotated[str | None, HOW]
    extend: Annotated[bool, HOW]
    extended: list[str]
    figures: Annotated[Literal["auto", "all", "none"], HOW]
    manifold_size: Annotated[int, Field(ge=2), HOW]
    manifold_range: Annotated[list[float] | None, Field(min_length=2, max_length=2), HOW]
    interpolate: Annotated[list[int | str] | None, Field(min_length=2), HOW]
    dry_run: Annotated[bool, HOW]
    ema: float | None = Field(gt=0, lt=1)
    grad_clip: float | None = Field(gt=0)
    on_nonfinite: Annotated[Literal["stop", "skip"], HOW_FAR]
    checkpoint_minutes: Annotated[float | None, Field(gt=0), HOW]
    patience: Annotated[int | None, Field(ge=1), HOW_FAR]
    monitor: str | None
    nll_samples: Annotated[int, Field(ge=0), HOW_FAR]
    quiet: Annotated[bool, HOW]
    log_every: Annotated[int, Field(ge=1), HOW]
    image_every: Annotated[int, Field(ge=0), HOW]
    model: SerializeAsAny[ModelConfig]
    posterior: SerializeAsAny[PosteriorConfig]
    prior: SerializeAsAny[PriorConfig]
    likelihood: SerializeAsAny[LikelihoodConfig]
    objective: SerializeAsAny[ObjectiveConfig]
    beta_schedule: SerializeAsAny[BetaScheduleConfig]
    corruption: SerializeAsAny[Component]
    penalty: SerializeAsAny[Component]
    optimizer: SerializeAsAny[OptimizerConfig]
    scheduler: SerializeAsAny[Component]
    dataset: SerializeAsAny[DatasetConfig]
    logger: Annotated[dict[str, SerializeAsAny[LoggerConfig]], HOW]  # by name: several, or none

    @property
    def is_generative(self) -> bool:
        """Whether this is a VAE; the code of a plain autoencoder has no density."""
        return self.posterior.has_density

    @property
    def samples_prior(self) -> bool:
        """Whether draws from the prior are like the codes, so that decoding them gives samples."""
        fits = self.objective.fits_prior and not self.posterior.quantised
        return self.is_generative or fits

    @property
    def no_kl(self) -> str:
        """Say why there is no KL of each dimension."""
        names = f"prior={self.prior.name} and posterior={self.posterior.name}"
        return f"with {names} the KL is no sum over latent dimensions, or is only estimated"

    @property
    def monitored(self) -> str:
        """The metric that decides the best epoch: `monitor`, else the one of the objective."""
        return self.monitor or self.objective.monitor

    def components(self) -> Iterator[tuple[str, Component]]:
        """Yield each group's name with a component that was chosen."""
        for group in GROUPS:
            yield group, getattr(self, group)
        yield from (("logger", each) for each in self.logger.values())

    def problems(self) -> Iterator[str]:
        """Yield a line for each combination of settings that cannot work."""
        for _, component in self.components():
            yield from component.problems(self)
        if self.extend and self.resume in (None, "auto"):
            yield "extend=true goes on with one run; give resume=FOLDER"
        metrics = ("val/elbo", "val/loss", "val/reconstruction", "val/kl", self.objective.monitor)
        if self.monitored not in metrics:
            yield f"monitor={self.monitor}: must be one of {', '.join(dict.fromkeys(metrics))}"
        if self.nll_samples and not self.is_generative:
            yield (
                f"nll_samples={self.nll_samples}: model={self.model.name} is a deterministic"
                f" autoencoder (posterior={self.posterior.name}), whose code has no density, so"
                " there is no p(x); take nll_samples=0"
            )
        if self.manifold_range is not None and self.manifold_range[0] >= self.manifold_range[1]:
            yield f"manifold_range={self.manifold_range}: the lower number must come first"
        if self.dataset.val_size == 0 and self.patience is not None:
            yield (
                f"patience={self.patience} needs validation data and dataset.val_size=0;"
                " give dataset.val_size or patience=null"
            )


# the groups of one choice: `logger` has several, `experiment` and `sweep` are presets
GROUPS = tuple(
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Component)
)

# ---------------------------------------------------------------- which setting a word means


def unknown_key(path: str, schema: type[Schema], chosen: Mapping[str, Any]) -> str:
    """The line for a key that a schema does not have: where this setting is, or the nearest one.

    chosen: the choice of each group, {"model": "ae"}, and {"": ""} for the settings of every run.
    """
    parent, _, word = path.rpartition(".")
    inner = schema.model_fields.get(parent.rpartition(".")[2])
    if inner is not None and isinstance(inner.annotation, type):
        schema = inner.annotation
    own = [f"{parent}.{name}".lstrip(".") for name in schema.model_fields]
    here: list[str] = []
    others: dict[tuple[str, str], list[str]] = {}  # (group, key) -> choices that have the key
    for key, group, choice in _places():
        if chosen.get(group) == choice:
            here.append(key)
        elif group in chosen and parent in ("", group) and _last(key) == word:
            others.setdefault((group, key), []).append(choice)
    meant = [] if parent else _near(word, here, 1.0)
    if others and not meant:
        of = (f"{k} is a setting of {g}={', '.join(c)}" for (g, k), c in others.items())
        return f"{path}: no such setting; {'; '.join(of)}"
    if meant := meant or _near(word, own) or _near(word, here):
        return f"{path}: no such setting (did you mean {' or '.join(meant)}?)"
    where = f"{parent} has {', '.join(map(_last, own))}" if parent else "--help lists all"
    return f"{path}: no such setting; {where}"


def rewritten(word: str, value: str, cutoff: float = 1.0) -> str:
    """'write beta=4', for a word that names a setting or a choice in another way, or ''.

    cutoff: how near the word must be to the name of a setting; 1: equal.
    """
    name = word.strip("-").replace("-", "_")
    keys = [*dict.fromkeys(key for key, _, _ in _places())]
    keys = [name] if name in keys else _near(name, keys, cutoff)
    texts = [shlex.quote(f"{key}={value}") if value else f"{key}=…" for key in keys]
    texts = texts or [f"{group}={name}" for group, choice in SCHEMAS if choice == name]
    return f"write {' or '.join(texts)}" if texts else ""


def _places() -> Iterator[tuple[str, str, str]]:
    """Yield every setting with the choice that has it: ("optimizer.lr", "optimizer", "adam").

    A setting of every run has neither group nor choice; a task of vae-eval stands for itself.
    """
    yield from ((name, "", "") for name in Config.model_fields)
    for (group, choice), schema in SCHEMAS.items():
        prefix = node_of(group, choice)
        names = (field.alias or name for name, field in schema.model_fields.items())
        yield from ((prefix + name, group, choice) for name in names if name != "name")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.split("_")) if "_" in name else name


def _near(word: str, keys: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The keys whose last part is nearest to a word, or its initials: learning_rate is lr."""
    keys = list(keys)
    close = difflib.get_close_matches(word, map(_last, keys), n=1, cutoff=cutoff)
    if not close and cutoff < 1:
        close = [last for last in map(_last, keys) if _initials(last) == _initials(word)]
    return [key for key in keys if _last(key) in close]
