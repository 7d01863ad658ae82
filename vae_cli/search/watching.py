"""How a search watches a trial that trains, in whatever process: report each epoch, give up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import optuna

from vae_cli.continuing import read_json
from vae_cli.files import write_json
from vae_cli.jobs import INTERRUPTED
from vae_cli.schema.search import Pruner, SearchConfig
from vae_cli.search.storage import load, open_storage
from vae_cli.stopping import Interrupted

PRUNED = "pruned"  # the status in summary.json


@dataclass
class Watcher:
    """Called with each epoch's record of one trial. Picklable: it travels with the job."""

    settings: SearchConfig
    folder: Path  # the sweep's
    trial_id: int
    given_up: bool = field(default=False, init=False)
    _trial: optuna.Trial | None = field(default=None, init=False)  # once it trains
    _reported: set[int] = field(default_factory=set, init=False)  # epochs

    def __call__(self, record: dict[str, float]) -> None:
        """Report the metric to the study; raises Interrupted once the trial is not worth it."""
        if self.settings.pruner is Pruner.none or self.settings.metric[0] not in record:
            return
        if self._trial is None:
            study = load(self.settings, open_storage(self.settings, self.folder))
            self._trial = optuna.Trial(study, self.trial_id)
            # an earlier, interrupted attempt may have come further than its checkpoint
            stored = study._storage.get_trial(self.trial_id)
            self._reported = set(stored.intermediate_values)
        epoch, trial = int(record["epoch"]), self._trial
        if epoch not in self._reported:
            trial.report(record[self.settings.metric[0]], epoch)
        if trial.should_prune():
            self.given_up = True
            raise Interrupted("", by_signal=False)

    def settled(self, run: Path, code: int) -> int:
        """The trial's exit code, noted in its run folder if it was given up: that is no failure."""
        if not (self.given_up and code == INTERRUPTED):
            return code
        path = run / "summary.json"
        write_json(path, read_json(path) | {"status": PRUNED})
        return 0
