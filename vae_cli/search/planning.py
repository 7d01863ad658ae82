"""From a search's command line to its checked plan: settings, space, and what stays fixed.

A mistake is found here as far as it can be: every end of every range and every choice is composed
and checked before the first trial. Imports neither Optuna nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from vae_cli.config import Config
from vae_cli.errors import UserError
from vae_cli.identity import digest, identity
from vae_cli.planning import checked
from vae_cli.schema.search import SearchConfig, refuse_unmeasured, typed_search
from vae_cli.search.space import Dimension, dimension


@dataclass
class Search:
    """What a search is about."""

    settings: SearchConfig
    space: list[Dimension]
    fixed: list[str]  # overrides of every trial
    config_name: str
    path: list[str]  # the override of --config-dir
    identity: str  # equal for the same search, however many trials

    def config(self, drawn: Sequence[str]) -> Config:
        """A trial's settings. Raises UserError for a combination that cannot work."""
        return checked(self.config_name, [*self.path, *self.fixed, *drawn])


def plan_search(node: DictConfig, task: Sequence[Override], name: str, path: list[str]) -> Search:
    """Check a search. Raises UserError."""
    if find_spec("optuna") is None:
        raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'vae-cli[optuna]'")
    settings = typed_search(node)
    # the last one of a setting that is given twice, as everywhere
    last = {o.get_key_element(): str(o.input_line) for o in task if not o.is_sweep_override()}
    fixed = list(last.values())
    space = [dimension(o) for o in task if o.is_sweep_override()]
    if not space:
        raise UserError(
            "a search needs a range, for one optimizer.lr='tag(log,interval(1e-4,1e-2))'"
        )
    search = Search(settings, space, fixed, name, path, "")
    first = {item.key: f"{item.key}={item.corners[0]}" for item in space}
    base = search.config(list(first.values()))
    for item in space:
        for corner in item.corners[1:]:
            drawn = first | {item.key: f"{item.key}={corner}"}
            refuse_unmeasured(settings, search.config(list(drawn.values())))
    refuse_unmeasured(settings, base)
    if base.dry_run:
        raise UserError("dry_run=true: not for a search; leave out -m and the ranges")
    search.identity = digest(
        [
            sorted(map(repr, space)),
            identity(base),
            settings.metric,
            [direction.value for direction in settings.direction],
        ]
    )
    return search
