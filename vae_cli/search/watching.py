"""How a search watches a trial that trains, in whatever process: report each epoch, give up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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

    def __call__(self, record: dict[str, float]) -> None:
        """Report the metric to the study; raises Interrupted once the trial is not worth it."""
        if self.settings.pruner is Pruner.none or self.settings.metric[0] not in record:
            return
        from optuna import Trial

        study = load(self.settings, open_storage(self.settings, self.folder))
        trial = Trial(study, self.trial_id)
        epoch = int(record["epoch"])
        if epoch not in study._storage.get_trial(self.trial_id).intermediate_values:
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
