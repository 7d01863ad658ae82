"""The run folder and its one writer.

config.yaml        all settings, resolved           summary.json   status and final numbers
metrics.jsonl      a line for each epoch            train.log      messages and tracebacks
checkpoints/       last, previous, best (.ckpt)     figures/       pictures
model.safetensors  the best weights                 and what the loggers write
"""

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
from types import MappingProxyType
from typing import Any

import yaml
from torch import Tensor

from vae_cli.config.check import as_container
from vae_cli.config.settings import Config
from vae_cli.console import one_line, say
from vae_cli.runs import checkpoint, files
from vae_cli.runs.loggers import Begun, Logger
from vae_cli.runs.saved import BEST, LAST, PREVIOUS, WEIGHTS, read_metrics, read_summary

log = logging.getLogger(__name__)
METRICS, SUMMARY = "metrics.jsonl", "summary.json"
PACKAGES = ("vae-cli", "torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "numpy")


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
        former = read_summary(folder)
        ids: dict[str, str] = former.get("loggers", {})  # of this run at services
        self.summary: dict[str, Any] = {
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {"python": python_version()} | {n: metadata.version(n) for n in PACKAGES},
            "git_commit": git_commit(),
            "monitor": config.monitored,
            "name": config.name,
            "tags": config.tags,
            "swept": list(swept) or former.get("swept", []),
            "loggers": ids,
        }
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder)
        checkpoint.set_damaged_aside(self.checkpoints)
        text = yaml.safe_dump(as_container(config), sort_keys=False, allow_unicode=True)
        files.write_text(folder / "config.yaml", text)
        self._write_history()  # without what was logged after the checkpoint
        self.excepthook, threading.excepthook = threading.excepthook, _log_thread
        self.loggers: dict[str, Logger] = {}
        about = (folder, config, step, self.summary["swept"], self.history)
        for name, chosen in config.logger.items():
            with self._forgiving(f"logger={name}"):
                self.loggers[name] = logger = chosen.build(Begun(*about, ids.get(name)))
                ids |= {name: logger.id} if logger.id else {}

    def log_steps(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log numbers at a step, by names such as train/loss."""
        self._tell("log_steps", step, scalars)

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        """Log a picture. image [C, H, W], float in [0, 1] or uint8."""
        self._tell("log_image", tag, image, step)

    def log_histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Log the distribution of values [N]; those that are not finite are left out."""
        if len(finite := values[values.isfinite()]):
            self._tell("log_histogram", tag, finite, step)

    def log_codes(self, codes: Tensor, names: list[str], images: Tensor | None) -> None:
        """Log codes [N, Z] with names and images [N, 3, H, W], once, for a look at their space."""
        self._tell("log_codes", codes, names, images)

    def log_epoch(self, record: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl or, once that has failed, write all lines again."""
        self._tell("log_epoch", MappingProxyType(record))  # one that changes it fails
        self.history.append(dict(record))
        with self._forgiving(METRICS):
            if METRICS in self.failing:
                self._write_history()
            else:
                with (self.folder / METRICS).open("a") as file:
                    file.write(files.as_json(record))

    def keep(self, state: dict[str, Any], best: bool = False) -> None:
        """Write the checkpoint to go on from, after all that was logged. Raises RunFailed."""
        self._tell("flush")
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
        self._tell("close", self.summary)
        threading.excepthook = self.excepthook
        if self.failing:
            say(f"warning: not whole in {self.folder}: {', '.join(sorted(self.failing))}")

    def _tell(self, event: str, *arguments: object) -> None:
        """Call the method `event` of each logger that has not failed, and close all of them."""
        for name, logger in self.loggers.items():
            if f"logger={name}" not in self.failing or event == "close":
                with self._forgiving(f"logger={name}"):
                    getattr(logger, event)(*arguments)

    def _write_history(self) -> None:
        files.write_text(self.folder / METRICS, "".join(map(files.as_json, self.history)))

    @contextmanager
    def _forgiving(self, name: str) -> Iterator[None]:
        """Say once that a file cannot be written or a logger fails; training goes on without."""
        try:
            yield
        except Exception as error:
            if name not in self.failing:
                what = "has failed" if name.startswith("logger=") else "cannot be written"
                log.warning("%s %s", name, what, exc_info=True)
                say(f"warning: {name} {what}: {one_line(error)[:300]}; training goes on without it")
            self.failing.add(name)
        else:
            if name in (METRICS, SUMMARY):  # written whole again
                self.failing.discard(name)


def _log_thread(args: threading.ExceptHookArgs) -> None:
    """Log what a logger's own thread raises, as on a full disk; `Run` says that it failed."""
    log.warning("a thread has ended", exc_info=args.exc_value)


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with '+' after a change; or None."""
    root = shlex.quote(str(Path(__file__).resolve().parents[2]))
    command = f"git -C {root} --git-dir=.git describe --always --abbrev=40 --dirty=+"
    status, commit = subprocess.getstatusoutput(command)
    return None if status else commit
