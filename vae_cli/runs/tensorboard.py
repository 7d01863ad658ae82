"""A run in TensorBoard: `logger=tensorboard`."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

import yaml
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vae_cli.config.check import HOW_KEYS, as_container, flatten, is_among
from vae_cli.config.settings import LoggerConfig
from vae_cli.runs import files
from vae_cli.runs.loggers import Begun, Logger

METRICS = ("loss", "reconstruction", "kl", "elbo")
FINAL_METRICS = ("test/elbo", "test/reconstruction", "test/kl", "test/loss", "test/active_units")


class TensorBoard(Logger):
    """Event files in the run folder; a new one hides what came after the checkpoint."""

    def __init__(self, config: LoggerConfig, run: Begun) -> None:
        for path in run.folder.glob("events.out.tfevents.*"):
            _forget_hparams(path)
        first = run.step + 1 if run.step else 0
        self.writer: Any = SummaryWriter(run.folder, purge_step=first, flush_secs=10)
        self.shown_by = f"tensorboard --logdir {shlex.quote(str(run.folder))}"
        both: Any = {n: ["Multiline", [f"train/{n}", f"val/{n}"]] for n in METRICS}
        parts = {s: ["Multiline", [f"{s}/reconstruction", f"{s}/kl"]] for s in ("train", "val")}
        self.writer.add_text("config", f"```yaml\n{yaml.safe_dump(as_container(run.config))}```", 0)
        charts = {"train and val": both, "reconstruction and KL": parts}
        self.writer.add_custom_scalars({f"{k}, nats per example": charts[k] for k in charts})
        self._open_row(run)

    def log_steps(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag, number in scalars.items():
            self.writer.add_scalar(tag, number, step)

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        self.writer.add_image(tag, image, step)

    def log_histogram(self, tag: str, values: Tensor, step: int) -> None:
        self.writer.add_histogram(tag, values, step)

    def log_codes(self, codes: Tensor, names: list[str], images: Tensor | None) -> None:
        # torch warns of the folder that an earlier end of the run has made
        rmtree(Path(self.writer.log_dir) / "00000", ignore_errors=True)
        self.writer.add_embedding(codes, names, images, tag="test codes")

    def flush(self) -> None:
        self.writer.flush()

    def close(self, summary: Mapping[str, Any]) -> None:
        if summary["status"] == "completed":
            self.writer.file_writer.add_summary(self.end)
        self.writer.close()

    def _open_row(self, run: Begun) -> None:
        """Write the run's row of HParams."""
        row = {
            key: item if isinstance(item, bool | int | float | str) else json.dumps(item)
            for key, item in flatten(as_container(run.config)).items()
            if key in run.swept
            or (key in ("name", "tags") and item)
            or not (is_among(key, HOW_KEYS) or "suggested" in key)
        }
        # `add_hparams` would write them into a folder, and so a run, of their own
        final = (*FINAL_METRICS, "test/nll") if run.config.nll_samples else FINAL_METRICS
        experiment, start, self.end = hparams(row, dict.fromkeys(final, 0.0))
        plugin_data = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        first = run.swept or ("dataset.name", "model.name")
        for info in content.experiment.hparam_infos:
            info.differs = info.name in first  # TensorBoard shows these first
        plugin_data.content = content.SerializeToString()
        self.writer.file_writer.add_summary(experiment)
        self.writer.file_writer.add_summary(start)


def _forget_hparams(path: Path) -> None:
    """Remove the row of HParams of an earlier session: TensorBoard shows the first it finds."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = [r for r in RawEventFileLoader(str(path)).Load() if b"_hparams_/" not in r]
    with files.replacing(path) as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
