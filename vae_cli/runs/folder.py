"""The run folder and its one writer.

config.yaml        all settings, resolved           summary.json   status and final numbers
metrics.jsonl      a line for each epoch            train.log      messages and tracebacks
checkpoints/       last, previous, best (.ckpt)     figures/       pictures
model.safetensors  the best weights                 events.out.…   TensorBoard
"""

import json
import logging
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import yaml
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vae_cli.config.check import HOW_KEYS, as_container, flatten
from vae_cli.config.settings import Config
from vae_cli.console import one_line, say
from vae_cli.runs import checkpoint, files
from vae_cli.runs.saved import BEST, LAST, PREVIOUS, WEIGHTS, read_metrics, read_summary

log = logging.getLogger(__name__)
BOARD, METRICS, SUMMARY = "TensorBoard", "metrics.jsonl", "summary.json"
PACKAGES = ("vae-cli", "torch", "hydra-core", "omegaconf", "tensorboard", "numpy")
FINAL_METRICS = ("test/elbo", "test/reconstruction", "test/kl", "test/loss", "test/active_units")


class Run:
    """A run folder that is being written: only a checkpoint that fails ends the training."""

    def __init__(
        self, folder: Path, config: Config, epoch: int = 0, step: int = 0, swept: Sequence[str] = ()
    ) -> None:
        """Begin, or go on after `epoch` epochs and `step` updates. swept: the sweep's settings."""
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.last, self.best = self.checkpoints / LAST, self.checkpoints / BEST
        self.weights = folder / WEIGHTS
        self.failing: set[str] = set()  # what could not be written
        self.history = [line for line in read_metrics(folder) if line["epoch"] <= epoch]
        self.summary: dict[str, Any] = {
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {"python": python_version()} | {n: metadata.version(n) for n in PACKAGES},
            "git_commit": git_commit(),
            "monitor": config.monitored,
            "swept": list(swept) or read_summary(folder).get("swept", []),
        }
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder)
        checkpoint.set_damaged_aside(self.checkpoints)
        text = yaml.safe_dump(as_container(config), sort_keys=False, allow_unicode=True)
        files.write_text(folder / "config.yaml", text)
        self._write_history()  # without what was logged after the checkpoint
        self.excepthook, threading.excepthook = threading.excepthook, _log_thread
        self.writer: Any = None
        with self._forgiving(BOARD):
            self._open_board(config, step)

    def log_steps(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write points at a step to TensorBoard, by names such as train/loss."""
        with self._forgiving(BOARD):
            for tag, number in scalars.items():
                self.writer.add_scalar(tag, number, step)

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        """Write a picture to TensorBoard. image [C, H, W], float in [0, 1] or uint8."""
        with self._forgiving(BOARD):
            self.writer.add_image(tag, image, step)

    def log_histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Write the distribution of values to TensorBoard."""
        with self._forgiving(BOARD):
            self.writer.add_histogram(tag, values[values.isfinite()], step)

    def log_epoch(self, record: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl or, once that has failed, write all lines again."""
        self.history.append(dict(record))
        with self._forgiving(METRICS):
            if METRICS in self.failing:
                self._write_history()
            else:
                with (self.folder / METRICS).open("a") as file:
                    file.write(files.as_json(record))

    def keep(self, state: dict[str, Any], best: bool = False) -> None:
        """Write the checkpoint to go on from, after all that was logged. Raises RunFailed."""
        with self._forgiving(BOARD):
            self.writer.flush()
        checkpoint.save(self.last, state, self.checkpoints / PREVIOUS, self.best if best else None)

    def write_summary(self, **entries: Any) -> None:
        """Add to summary.json and write it."""
        self.summary.update(entries)
        with self._forgiving(SUMMARY):
            files.write_json(self.folder / SUMMARY, self.summary)

    def close(self, status: str, **entries: Any) -> None:
        """End the run's files. status: completed, interrupted, failed or pruned."""
        finished = datetime.now().astimezone().isoformat(timespec="seconds")
        self.write_summary(status=status, finished=finished, **entries)
        with self._forgiving(BOARD):
            if status == "completed":
                self.writer.file_writer.add_summary(self.end)
            self.writer.close()
        threading.excepthook = self.excepthook
        if self.failing:
            say(f"warning: not whole in {self.folder}: {', '.join(sorted(self.failing))}")

    def _open_board(self, config: Config, step: int) -> None:
        """Begin an event file, which hides what an earlier one holds after the checkpoint."""
        for path in self.folder.glob("events.out.tfevents.*"):
            _forget_hparams(path)
        self.writer = SummaryWriter(self.folder, purge_step=step + 1 if step else 0, flush_secs=10)
        charts = {s: ["Multiline", [f"{s}/reconstruction", f"{s}/kl"]] for s in ("train", "val")}
        self.writer.add_text("config", f"```yaml\n{yaml.safe_dump(as_container(config))}```", 0)
        self.writer.add_custom_scalars({"reconstruction and KL, nats per example": charts})
        swept = self.summary["swept"]
        row = {
            key: item if isinstance(item, bool | int | float | str) else json.dumps(item)
            for key, item in flatten(as_container(config)).items()
            if key in swept or (key not in HOW_KEYS and "suggested" not in key)
        }
        # `add_hparams` would write them into a folder, and so a run, of their own
        final = (*FINAL_METRICS, "test/nll") if config.nll_samples else FINAL_METRICS
        experiment, start, self.end = hparams(row, dict.fromkeys(final, 0.0))
        plugin_data = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in swept  # TensorBoard shows these first
        plugin_data.content = content.SerializeToString()
        self.writer.file_writer.add_summary(experiment)
        self.writer.file_writer.add_summary(start)

    def _write_history(self) -> None:
        files.write_text(self.folder / METRICS, "".join(map(files.as_json, self.history)))

    @contextmanager
    def _forgiving(self, name: str) -> Iterator[None]:
        """Say once that a file, or TensorBoard, cannot be written; training goes on."""
        try:
            yield
        except Exception as error:
            if name not in self.failing:
                log.warning("%s cannot be written", name, exc_info=True)
                say(f"warning: {name} cannot be written: {one_line(error)}; training goes on")
            self.failing.add(name)
        else:
            if name != BOARD:  # files are written whole again
                self.failing.discard(name)


def _forget_hparams(path: Path) -> None:
    """Remove the row of HParams of an earlier session: TensorBoard shows the first it finds."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = [r for r in RawEventFileLoader(str(path)).Load() if b"_hparams_/" not in r]
    with files.replacing(path) as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)


def _log_thread(args: threading.ExceptHookArgs) -> None:
    """Log what TensorBoard's own thread raises on a full disk; `Run` says that it failed."""
    log.warning("a thread has ended", exc_info=args.exc_value)


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with '+' after a change; or None."""
    root = shlex.quote(str(Path(__file__).resolve().parents[2]))
    command = f"git -C {root} --git-dir=.git describe --always --abbrev=40 --dirty=+"
    status, commit = subprocess.getstatusoutput(command)
    return None if status else commit
