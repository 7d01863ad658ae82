"""The settings of a search: `configs/hydra/sweeper/optuna.yaml`. No values, no torch, no Optuna."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_cli.checking import explain_value_error, key_names, nearest, problems
from vae_cli.config import Config
from vae_cli.errors import UserError
from vae_cli.rules import value

PREFIX = "hydra.sweeper."

# what a trial can be judged by: of the best epoch (train, val), of the end, of the run
EPOCH_METRICS = tuple(
    f"{split}/{name}"
    for split in ("val", "train")
    for name in ("elbo", "loss", "reconstruction", "kl")
)
END_METRICS = (
    *(f"test/{name}" for name in ("elbo", "loss", "reconstruction", "kl")),
    "test/active_units",
    "parameters",
    "seconds",
)
METRICS = (*EPOCH_METRICS, *END_METRICS)


class Direction(Enum):
    maximize = "maximize"
    minimize = "minimize"


class Sampler(Enum):
    tpe = "tpe"
    random = "random"


class Pruner(Enum):
    none = "none"
    median = "median"
    halving = "halving"


@dataclass
class SearchConfig:
    """All settings of a search."""

    name: str = value("which sweeper this is")
    metric: list[str] = value(
        "what trials are judged by; several: a Pareto front",
        items_at_least=1,
        pattern="|".join(METRICS),
        expected="one of " + ", ".join(METRICS),
    )
    direction: list[Direction] = value("maximize | minimize, one for each metric", items_at_least=1)
    n_trials: int = value("trials in all, those of an earlier call included", at_least=1)
    n_jobs: int = value("trials that are proposed and trained at once", at_least=1)
    sampler: Sampler = value("tpe | random")
    startup_trials: int = value("trials drawn at random before tpe begins", at_least=0)
    pruner: Pruner = value("none | median | halving: which trials are given up early")
    pruner_startup_trials: int = value("trials that are never given up (median)", at_least=0)
    pruner_warmup_epochs: int = value("epochs before a trial is given up (median)", at_least=0)
    seed: int = value("seed of the sampler", at_least=0)
    storage: str | None = value(
        "where trials are kept: a database's URL, or journal; null: study.db in the sweep's folder"
    )
    study_name: str = value("the search's name in the storage")
    params: dict[str, Any] = value("ranges, as on the command line, which wins")


def typed_search(node: DictConfig) -> SearchConfig:
    """Checked settings of a search. Raises UserError with one line."""
    unknown = [str(key) for key in node if key not in key_names(SearchConfig)]
    if unknown:
        close = nearest(unknown[0], key_names(SearchConfig))
        raise UserError(f"{PREFIX}{unknown[0]}: no such setting{close}")
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SearchConfig), node))
    except OmegaConfBaseException as error:
        raise UserError(PREFIX + explain_value_error(error)) from error
    assert isinstance(found, SearchConfig)
    problem = next(problems(found), None) or next(_impossible(found), None)
    if problem:
        raise UserError(PREFIX + problem)
    return found


def _impossible(search: SearchConfig) -> Iterator[str]:
    metrics = ",".join(search.metric)
    if len(search.direction) != len(search.metric):
        yield (
            f"direction=[{','.join(d.value for d in search.direction)}]: give one for each of"
            f" {PREFIX}metric=[{metrics}]"
        )
    if search.pruner is not Pruner.none:
        if len(search.metric) > 1:
            yield (
                f"pruner={search.pruner.value}: several metrics ({metrics}) cannot be compared"
                f" while a trial trains; give {PREFIX}pruner=none"
            )
        if search.metric[0] not in EPOCH_METRICS:
            yield (
                f"pruner={search.pruner.value}: {metrics} is not known before the end; give"
                f" {PREFIX}pruner=none"
            )


def refuse_unmeasured(search: SearchConfig, config: Config) -> None:
    """Refuse a metric that no run of these settings has. Raises UserError."""
    for metric in search.metric:
        if metric.startswith("val/") and config.dataset.val_size == 0:
            raise UserError(f"{PREFIX}metric={metric} needs validation data and dataset.val_size=0")
