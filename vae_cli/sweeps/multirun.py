"""The settings of a sweep's jobs, with few compositions by Hydra, of 0.3 s each. No torch."""

import copy
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_cli.config.compose import (
    checked,
    composed,
    hydra_words,
    own_hydra,
    parse_overrides,
    settings_of,
)
from vae_cli.config.settings import GROUPS, Config
from vae_cli.console import one_line

if TYPE_CHECKING:
    from vae_cli.sweeps.plan import Sweep


class Composer:
    """Composes once for each set of choices from groups, and puts other settings into copies."""

    def __init__(self, name: str, extra_dir: str | None) -> None:
        """name, extra_dir: as in `composed`."""
        self.name, self.extra_dir = name, extra_dir
        self.known: dict[tuple[str, ...], DictConfig] = {}  # by the choices

    def __call__(self, overrides: Sequence[str]) -> Config:
        """Return the checked settings of a job. Raises UserError."""
        choices, values = [], dict[str, Any]()
        for text, override in zip(overrides, parse_overrides(hydra_words(overrides)), strict=True):
            key, item = override.key_or_group, override.value()
            group, dot, _ = key.partition(".")
            if override.is_sweep_override() or override.is_delete() or isinstance(item, dict):
                return settings_of(self.name, overrides, self.extra_dir)
            known = group in {*Config.model_fields} - {"logger"} and key.count(".") < 2
            if known and (group in GROUPS) == bool(dot):
                values[key] = item
            else:
                choices.append(text)
        if (chosen := tuple(choices)) not in self.known:
            self.known[chosen] = composed(self.name, choices, self.extra_dir)
        cfg = copy.deepcopy(self.known[chosen])
        for key, item in values.items():
            OmegaConf.update(cfg, key, item, force_add=True)
        return checked(cfg, overrides)


class Planned:
    """Takes the place of Hydra's config loader, which composes each job twice."""

    def __init__(self, sweep: "Sweep") -> None:
        self.jobs = {
            tuple(job.overrides): (job.folder.relative_to(sweep.folder), job.settings)
            for job in sweep.jobs
        }

    def load_sweep_config(self, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return the settings of a job, with Hydra's own for it. A launcher calls this."""
        folder, settings = self.jobs[tuple(overrides)]
        own = copy.deepcopy(master.hydra)
        with open_dict(own):
            own.overrides.task, own.sweep.subdir = list(overrides), str(folder)
            texts = (text.lstrip("+").split("=", 1) for text in overrides)
            own.runtime.choices.update({k: x[0] for k, *x in texts if k in own.runtime.choices})
        return OmegaConf.create({**settings, "hydra": own})


def run_jobs(sweep: "Sweep", task: Callable[[DictConfig], object]) -> bool:
    """Let the launcher that was chosen call the task for each job. Returns whether it could."""
    jobs = [job.overrides for job in sweep.jobs]
    context = HydraContext(cast(Any, Planned(sweep)), cast(Any, Callback()))  # which does nothing
    try:
        with own_hydra():
            plugins = Plugins.instance()
            launcher = plugins.instantiate_launcher(context, task, sweep.hydra)
            for ended in launcher.launch(jobs, initial_job_idx=0):
                _ = ended.return_value  # raises what has ended a job
    except Exception as error:  # of the launcher: no such queue, a worker that was killed
        line = f"{type(error).__name__}: {one_line(error)[:300]}"
        print(f"vae-train: hydra/launcher: {line}", file=sys.stderr)
        return False
    return True
