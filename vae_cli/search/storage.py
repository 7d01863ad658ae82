"""Where a search's trials are kept, and what proposes and prunes them. Imports Optuna."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna

from vae_cli.errors import UserError, one_line
from vae_cli.schema.search import PREFIX, Pruner, Sampler, SearchConfig

JOURNAL = "journal"
optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(settings: SearchConfig, folder: Path) -> optuna.storages.BaseStorage:
    """The storage of `hydra.sweeper.storage`. Raises UserError if it cannot be opened."""
    if settings.storage == JOURNAL:
        from optuna.storages.journal import JournalFileBackend

        return optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
    url = settings.storage or f"sqlite:///{folder / 'study.db'}"
    try:
        # several processes write: wait for one another
        options: dict[str, Any] = {"connect_args": {"timeout": 60}}
        return optuna.storages.RDBStorage(
            url, engine_kwargs=options if url.startswith("sqlite") else None
        )
    except Exception as error:  # of whatever database driver
        reason = one_line(error)[:200]
        raise UserError(f"{PREFIX}storage={url}: cannot be opened: {reason}") from error


def create(settings: SearchConfig, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The study, new or as it is in the storage."""
    return optuna.create_study(
        storage=storage,
        study_name=settings.study_name,
        directions=[direction.value for direction in settings.direction],
        pruner=pruner(settings),
        load_if_exists=True,
    )


def load(settings: SearchConfig, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The study, as a trial's process sees it."""
    return optuna.load_study(
        study_name=settings.study_name, storage=storage, pruner=pruner(settings)
    )


def pruner(settings: SearchConfig) -> optuna.pruners.BasePruner:
    """What decides which trials are given up early."""
    match settings.pruner:
        case Pruner.none:
            return optuna.pruners.NopPruner()
        case Pruner.median:
            return optuna.pruners.MedianPruner(
                n_startup_trials=settings.pruner_startup_trials,
                n_warmup_steps=settings.pruner_warmup_epochs,
            )
        case Pruner.halving:
            return optuna.pruners.SuccessiveHalvingPruner()


def sampler(settings: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    """What proposes a trial."""
    match settings.sampler:
        case Sampler.random:
            return optuna.samplers.RandomSampler(seed)
        case Sampler.tpe:
            with warnings.catch_warnings():
                # constant_liar, which keeps trials that are asked for at once apart
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.TPESampler(
                    n_startup_trials=settings.startup_trials, constant_liar=True, seed=seed
                )
