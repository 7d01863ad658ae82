"""The run folder: configuration, metrics, summary, checkpoints and TensorBoard. The only writer.

config.yaml        all settings, resolved           summary.json   status and final numbers
metrics.jsonl      a line an epoch                  train.log      messages and tracebacks
checkpoints/       last, previous, best (.ckpt)     figures/       pictures
model.safetensors  the best weights                 events.out.…   TensorBoard
projector/         codes for TensorBoard's projector, named in projector_config.pbtxt
"""

from __future__ import annotations

import json
import logging
import platform
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from vae_cli import checkpoint, console
from vae_cli.checking import as_container
from vae_cli.config import Config
from vae_cli.errors import RunFailed
from vae_cli.events import EventWriter
from vae_cli.files import remove_leftovers, write_json, write_text
from vae_cli.hparams import settings
from vae_cli.identity import INCIDENTAL
from vae_cli.version import __version__

log = logging.getLogger(__name__)

FINAL_METRICS = ("test/elbo", "test/reconstruction", "test/kl", "test/loss", "test/active_units")


class Run:
    """A run folder that is being written. Opening it for a resumed run drops what lies after
    `step` (and `epoch`), so that nothing is logged twice. swept: the settings of its sweep, for
    TensorBoard's HParams page."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        epoch: int = 0,
        step: int = 0,
        swept: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.config = config
        self.checkpoints = folder / "checkpoints"
        resumed = config.resume is not None
        self.failing: set[str] = set()  # files that could not be written when last tried
        plain = as_container(config)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if resumed:
                self._tidy_up()
            write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))
        except OSError as error:
            raise RunFailed(f"the run's folder cannot be written: {error.strerror}") from error
        self.history = [line for line in read_metrics(folder) if line["epoch"] <= epoch]
        self._say_missing(epoch)
        self._write_metrics()
        # a run that goes on is still one of its sweep
        self.swept = list(swept) or (_swept_before(folder) if config.resume else [])
        self.summary: dict[str, Any] = {
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
            "git_commit": git_commit(),
            "swept": self.swept,
        }
        # from the very start on, what an earlier session wrote at step 0 is dropped as well
        earlier = any(folder.glob("events.out.tfevents.*"))
        purge_step = (step + 1 if step else 0) if earlier else None
        self.tensorboard = EventWriter(
            folder, partial(self._report, "TensorBoard's event file"), purge_step
        )
        self._describe(plain)

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.checkpoints / checkpoint.LAST

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.checkpoints / checkpoint.BEST

    def log_steps(self, step: int, scalars: dict[str, float]) -> None:
        """Points in TensorBoard at a step."""
        for tag, number in scalars.items():
            self.tensorboard.add_scalar(tag, number, step)

    def log_epoch(self, record: dict[str, float]) -> None:
        """A line in metrics.jsonl."""
        self.history.append(record)
        self._write_metrics(record)
        self.flush()
        for observe in _observers:
            observe(record)

    def flush(self) -> None:
        """Write TensorBoard's points. Before each checkpoint: a run that goes on from it has no
        other way to what was logged on the way to it."""
        self.tensorboard.flush()

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        """A picture in TensorBoard. image [C, H, W] in [0, 1] or uint8."""
        self.tensorboard.add_image(tag, image, step)

    def log_figure(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """A drawn figure in TensorBoard. pixels [H, W, 3]."""
        self.tensorboard.add_image(tag, pixels, step, dataformats="HWC")

    def log_png(self, tag: str, png: bytes, step: int) -> None:
        """An encoded picture in TensorBoard, as it is."""
        width, height = struct.unpack(">II", png[16:24])  # the PNG header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        writer: Any = self.tensorboard._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def log_histogram(self, tag: str, values: Tensor, step: int) -> None:
        """A histogram in TensorBoard; values that its bins cannot hold are left out."""
        held = values[values.abs() < 1e19]  # neither are NaN and infinity
        if len(held):
            self.tensorboard.add_histogram(tag, held, step)

    def write_summary(self, **entries: Any) -> None:
        """Add to summary.json and write it."""
        self.summary.update(entries)
        try:
            write_json(self.folder / "summary.json", self.summary)
        except OSError as error:
            self._report("summary.json", error)
        else:
            self._report("summary.json", None)

    def close(self, status: str, **entries: Any) -> None:
        """Final status, one of completed, interrupted, failed; ends TensorBoard's row."""
        finished = datetime.now().astimezone().isoformat(timespec="seconds")
        self.write_summary(status=status, finished=finished, **entries)
        if status == "completed":
            self._write_summaries(self._hparams()[2])
        self.tensorboard.close()
        if self.failing:
            console.say(f"warning: not whole in {self.folder}: {', '.join(sorted(self.failing))}")

    def _write_metrics(self, record: dict[str, float] | None = None) -> None:
        """Append a line or, without one or after a failure, write all lines anew."""
        path = self.folder / "metrics.jsonl"
        try:
            if record is None or path.name in self.failing:
                write_text(path, "".join(json.dumps(line) + "\n" for line in self.history))
            else:
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
        except OSError as error:
            self._report(path.name, error)
        else:
            self._report(path.name, None)

    def _report(self, name: str, error: OSError | None) -> None:
        """Say once that a file cannot be written; training goes on without it."""
        if error is None:
            self.failing.discard(name)
        elif name not in self.failing:
            self.failing.add(name)
            log.warning("%s cannot be written: %s", name, error)
            console.say(f"warning: {name} cannot be written: {error.strerror}; training goes on")

    def _tidy_up(self) -> None:
        """After a kill: remove what was half written, and keep damaged checkpoints apart."""
        for name in ("", "checkpoints", "figures", "projector"):
            remove_leftovers(self.folder / name)
        for name in checkpoint.set_damaged_aside(self.checkpoints):
            console.say(f"warning: {name} is damaged and now called {name}.damaged")

    def _say_missing(self, epoch: int) -> None:
        there = {line["epoch"] for line in self.history}
        missing = [str(number) for number in range(1, epoch + 1) if number not in there]
        if missing:
            console.say(
                f"warning: metrics.jsonl has no line for epoch {', '.join(missing)}: they could"
                " not be written when they were due"
            )

    def _describe(self, plain: dict[str, Any]) -> None:
        """TensorBoard's text, custom chart and HParams row; the row stays in this folder's run."""
        yaml = OmegaConf.to_yaml(OmegaConf.create(plain))
        self.tensorboard.add_text("config", f"```yaml\n{yaml}```", 0)
        charts = {"reconstruction and KL": ["train/reconstruction", "train/kl"]}
        if self.config.dataset.val_size != 0:
            charts["reconstruction and KL, validation"] = ["val/reconstruction", "val/kl"]
        layout = {title: ["Multiline", tags] for title, tags in charts.items()}
        self.tensorboard.add_custom_scalars({"nats per example": layout})
        self._write_summaries(*self._hparams()[:2])

    def _write_summaries(self, *summaries: Any) -> None:
        writer: Any = self.tensorboard._get_file_writer()
        for summary in summaries:
            writer.add_summary(summary)

    def _hparams(self) -> tuple[Any, Any, Any]:
        flat = settings(self.config)
        flat = {key: flat[key] for key in self.swept if key in flat} | flat
        values = {
            key: item if isinstance(item, bool | int | float | str) else json.dumps(item)
            for key, item in flat.items()
            if key in self.swept
            or (key not in INCIDENTAL and not key.startswith("dataset.suggested"))
        }
        experiment, start, end = hparams(values, dict.fromkeys(FINAL_METRICS, 0.0))
        _mark_swept(experiment, self.swept)
        return experiment, start, end


def _mark_swept(experiment: Any, swept: Sequence[str]) -> None:
    """Say which settings differ among runs: TensorBoard shows those first, whatever the order."""
    plugin_data = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in swept
    plugin_data.content = content.SerializeToString()


def _swept_before(folder: Path) -> list[str]:
    try:
        swept = read_summary(folder).get("swept", [])
    except (OSError, ValueError):  # no summary was written whole: the order of columns is lost
        return []
    return [str(key) for key in swept] if isinstance(swept, list) else []


_observers: list[Callable[[dict[str, float]], None]] = []


@contextmanager
def observed(by: Callable[[dict[str, float]], None]) -> Iterator[None]:
    """Call `by` with each epoch's record, once it is written, in every run inside the block."""
    _observers.append(by)
    try:
        yield
    finally:
        _observers.remove(by)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that was cut off by a kill is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # neither JSON nor UTF-8
            break
        if not isinstance(line, dict) or "epoch" not in line:
            break
        lines.append(line)
    return lines


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json, or nothing where there is none yet or it is damaged."""
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # ValueError: neither JSON nor UTF-8
        return {}
    return summary if isinstance(summary, dict) else {}


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    packages = ("torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "numpy")
    found = {"vae-cli": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in packages}


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with '+' if it was changed."""
    package = Path(__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def device_name(device: torch.device) -> str:
    """A device in words, as summary.json keeps it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"
