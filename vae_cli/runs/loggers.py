"""What a run logs to beside its own files: a class for each choice of `logger`."""

import csv
import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch
from torch import Tensor

from vae_cli.config.check import as_container, flatten
from vae_cli.config.settings import Config, LoggerConfig, MLflowConfig, TrackioConfig, WandBConfig


class Begun(NamedTuple):
    """A run that begins or goes on, as loggers see it."""

    folder: Path
    config: Config
    step: int  # updates of the checkpoint that it goes on from; 0: a new run
    swept: Sequence[str]  # the settings that its sweep varies
    history: Sequence[Mapping[str, float]]  # lines of metrics.jsonl up to the checkpoint
    id: str | None  # what this logger's `id` was in an earlier session

    @property
    def group(self) -> str | None:
        """The name of the sweep that the run belongs to."""
        return self.folder.parent.name if self.swept else None


class Logger:
    """Takes what a run logs. Each method does nothing here.

    An Exception in one does not end the run: a line says so, and the logger gets no more calls but
    `close`.
    """

    id: str | None = None  # of the run at a service; summary.json keeps it for a resume
    shown_by = ""  # a command or an address that shows the run, printed at its end

    def __init__(self, config: LoggerConfig, run: Begun) -> None:
        """Begin, or go on with the run `run.id`."""

    def log_steps(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take numbers at a step, by names such as train/loss, val/elbo and, at last, test/kl."""

    def log_epoch(self, record: Mapping[str, float]) -> None:
        """Take an epoch's line of metrics.jsonl."""

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        """Take a picture. image [C, H, W], float in [0, 1] or uint8."""

    def log_histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Take the distribution of values [N], all finite."""

    def log_codes(self, codes: Tensor, names: list[str], images: Tensor | None) -> None:
        """Take codes [N, Z] of test examples, with names and images [N, 3, H, W]."""

    def flush(self) -> None:
        """Write what waits to be written: a checkpoint follows."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """End, with the content of summary.json; its `status` says how the run has ended."""


class CSV(Logger):
    """metrics.csv: the lines of metrics.jsonl as a table, and at last a row for the test set."""

    def __init__(self, config: LoggerConfig, run: Begun) -> None:
        self.path, self.columns = run.folder / "metrics.csv", dict[str, None]()
        self.rows: list[Mapping[str, float]] = []
        for record in run.history:
            self.log_epoch(record)

    def log_epoch(self, record: Mapping[str, float]) -> None:
        self.rows.append(record)
        whole = not record.keys() <= self.columns.keys()  # all rows get the new columns
        self.columns |= dict.fromkeys(record)
        with self.path.open("w" if whole else "a", newline="") as file:
            table = csv.DictWriter(file, self.columns)
            if whole:
                table.writeheader()
            table.writerows(self.rows if whole else [record])

    def close(self, summary: Mapping[str, Any]) -> None:
        if summary["status"] == "completed":
            test = {k: v for k, v in summary["metrics"].items() if k.startswith("test/")}
            self.log_epoch({"epoch": summary["best_epoch"]} | test)


class WandB(Logger):
    """Weights & Biases."""

    def __init__(self, config: WandBConfig, run: Begun) -> None:
        import wandb

        self.library: Any = wandb
        self.run: Any = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            id=run.id,
            resume="allow",
            name=run.folder.name,
            tags=run.config.tags,
            group=run.group,
            config=as_container(run.config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.id, files = self.run.id, shlex.quote(str(self.run.settings.sync_dir))
        self.shown_by = f"wandb sync {files}" if self.run.offline else self.run.url

    def log_steps(self, step: int, scalars: Mapping[str, float]) -> None:
        self.run.log({**scalars}, step=step)

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        self.run.log({tag: self.library.Image(_pixels(image))}, step=step)

    def log_histogram(self, tag: str, values: Tensor, step: int) -> None:
        self.run.log({tag: self.library.Histogram(values.cpu().numpy())}, step=step)

    def close(self, summary: Mapping[str, Any]) -> None:
        self.run.summary.update({"status": summary["status"], "seconds": summary["seconds"]})
        self.run.finish(exit_code=int(summary["status"] == "failed"))


class Trackio(WandB):
    """trackio, which has the interface of W&B."""

    def __init__(self, config: TrackioConfig, run: Begun) -> None:
        import trackio

        self.library, how = trackio, "must" if run.id else "never"
        # it goes on with a run by its name, which folders of two sweeps may share
        self.id = run.id or f"{run.folder.name}-{uuid4().hex[:6]}"
        about: dict[str, Any] = {"group": run.group, "resume": how}
        about |= {"space_id": config.space_id, "config": as_container(run.config)}
        with redirect_stdout(StringIO()):
            self.run = trackio.init(config.project, self.id, **about)
        self.shown_by = f"trackio show --project {shlex.quote(config.project)}"

    def close(self, summary: Mapping[str, Any]) -> None:
        with redirect_stdout(StringIO()):
            self.library.finish()


class MLflow(Logger):
    """MLflow: settings as parameters and config.yaml, numbers as metrics, pictures by step."""

    def __init__(self, config: MLflowConfig, run: Begun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.client: Any = MlflowClient(config.tracking_uri)
        self.metric, settings = Metric, as_container(run.config)
        if run.id:
            self.id = run.id
            self.client.update_run(self.id, "RUNNING")
        else:
            known = self.client.get_experiment_by_name(config.experiment)
            place = (
                known.experiment_id if known else self.client.create_experiment(config.experiment)
            )
            self.id = self.client.create_run(place, run_name=run.folder.name).info.run_id
            params = [Param(key, str(item)) for key, item in flatten(settings).items()]
            for first in range(0, len(params), 100):  # the most that it takes at once
                self.client.log_batch(self.id, params=params[first : first + 100])
        self.client.log_dict(self.id, settings, "config.yaml")  # of a resume, the newest
        uri = self.client.tracking_uri
        local = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        self.shown_by = uri if uri.startswith("http") else local

    def log_steps(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        points = [self.metric(tag, number, now, step) for tag, number in scalars.items()]
        self.client.log_batch(self.id, metrics=points)

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        self.client.log_image(self.id, _pixels(image), key=tag, step=step)

    def close(self, summary: Mapping[str, Any]) -> None:
        self.client.log_dict(self.id, summary, "summary.json")
        ends = {"completed": "FINISHED", "failed": "FAILED"}
        self.client.set_terminated(self.id, ends.get(summary["status"], "KILLED"))


def _pixels(image: Tensor) -> Any:
    """Turn a picture [C, H, W], float in [0, 1] or uint8, into an array [H, W, 3] of uint8."""
    if image.is_floating_point():
        image = (image * 255).round().to(torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
