"""THE TRAINING LOOP: `fit`; `train` sets a run up before it, `finish` measures the result."""

import logging
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_cli import console
from vae_cli.config.check import as_container
from vae_cli.config.settings import Config
from vae_cli.data.dataset import Data, Split, epoch_order
from vae_cli.runs import checkpoint
from vae_cli.runs.folder import Run
from vae_cli.runs.interrupt import Interrupt, Interrupted, interruptible
from vae_cli.runs.saved import has_checkpoint, read_summary
from vae_cli.training import build, distributed, messages
from vae_cli.training.engines import engine_for
from vae_cli.training.evaluation import Evaluation, evaluate, log_likelihoods, trouble
from vae_cli.training.state import TrainState
from vae_cli.training.step import Engine, stop_if_not_finite

log = logging.getLogger(__name__)


def fit(training: "Training", engine: Engine, interrupt: Interrupt) -> None:
    """Train to the last epoch: updates, validation, logs, checkpoint, observers."""
    config, data, state = training.config, training.data, training.state
    steps, how = config.epochs * state.steps_per_epoch, (config.is_generative, config.quiet)
    with console.Progress(steps, state.step, config.epochs, *how) as bar:
        while not (training.stopped or state.is_finished(config)):
            order = epoch_order(data.train.x.device, config.seed, state.epoch, len(data.train))
            schedule = state.schedule()  # [steps, 3]: beta, capacity, learning rate
            state.vae.train()
            state.lap(counts=False)
            for examples in engine.steps(order, schedule, first=state.step_of_epoch):
                state.meter.counts.append(examples)
                state.step += 1
                last = state.step_of_epoch == state.steps_per_epoch
                if last or state.step % config.log_every == 0:
                    training.log_steps(bar)  # the only place that waits for the device
                stop = engine.is_to_stop(interrupt)
                if (stop or time.perf_counter() > training.keep_at) and not last:
                    state.lap()
                    training.keep()
                    if stop:
                        interrupt.check()
            record = training.epoch_record()  # measures the validation set
            state.epoch += 1
            better = state.note_best(record, config)
            training.run.log_epoch(record)
            training.keep(best=better)
            bar.epoch(record)
            training.tell("epoch", record)


class Observer:
    """Watches a run. Each method does nothing here; an Exception in one does not end the run."""

    def begin(self, training: "Training") -> None:
        """Called before the first update of this session."""

    def epoch(self, training: "Training", record: dict[str, float]) -> None:
        """Called after each epoch with its line of metrics.jsonl; its checkpoint is written."""

    def end(self, training: "Training", evaluation: Evaluation) -> None:
        """Called with the best weights in `training.state` and their numbers on the test set."""


@dataclass
class Training:
    """A run that is under way, as observers see it."""

    config: Config
    data: Data
    state: TrainState
    run: Run
    observers: Sequence[Observer] = ()
    stopped: str | None = None  # set by an observer: end after this epoch, "pruned", and why
    warned: bool = False  # of a validation that is not finite
    keep_at: float = math.inf  # when a checkpoint is due inside an epoch, by time.perf_counter

    def tell(self, event: str, *arguments: object) -> None:
        """Call the method `event` of each observer."""
        for observer in self.observers:
            try:
                getattr(observer, event)(self, *arguments)
            except Exception as error:
                log.exception("an observer failed")
                console.say(f"warning: {type(observer).__name__}: {console.one_line(error)}")

    def keep(self, best: bool = False) -> None:
        """Write the checkpoint to go on from, unless metrics are not finite. Raises RunFailed."""
        stop_if_not_finite(self.state, self.config)
        about = {"config": as_container(self.config), "data": self.data.identity}
        self.run.keep(self.state.state_dict() | about, best)
        self.state.kept_step = self.state.step
        self.keep_at = time.perf_counter() + 60 * (self.config.checkpoint_minutes or math.inf)
        self.state.lap(counts=False)

    def measure(self, split: Split) -> Evaluation:
        """Measure a split with the weight of the KL that the last update had."""
        beta, capacity, _ = self.state.schedules(self.state.step - 1)
        vae, config = self.state.measured, self.config
        evaluation = evaluate(vae, self.data, split, beta, config.seed, capacity)
        line = "" if self.warned else trouble(evaluation, vae, self.data, split, config.seed)
        if line and split is self.data.val and config.on_nonfinite == "stop":
            fix = "lower optimizer.lr, or take on_nonfinite=skip"
            raise console.RunFailed(f"validation {line} at step {self.state.step:,}; {fix}")
        if line:
            console.say(f"warning: {line} at step {self.state.step:,}, which is never the best")
            self.warned = True
        return evaluation

    def log_steps(self, bar: console.Progress) -> None:
        """Read the metrics of the steps since the last read and log their means."""
        state, config = self.state, self.config
        stop_if_not_finite(state, config)
        bar.step(len(state.meter.counts))
        means = state.meter.read()
        if state.step % config.log_every == 0:  # else the epoch ends here, between two points
            bar.numbers(state.epoch + 1, means)
            points = {f"train/{name}": mean for name, mean in means.items()}
            self.run.log_steps(state.step, points | state.point())

    def epoch_record(self) -> dict[str, float]:
        """Measure the validation set; return the epoch's line of metrics.jsonl."""
        state = self.state
        state.lap()
        train = {f"train/{name}": mean for name, mean in state.meter.epoch().items()}
        points = {"perf/examples_per_second": state.examples / state.epoch_seconds}
        if self.data.val is not None:
            evaluation = self.measure(self.data.val)
            points = evaluation.named("val") | points
            if evaluation.kl is not None:
                self.run.log_histogram("latent/kl_by_dimension", evaluation.kl, state.step)
        self.run.log_steps(state.step, points)
        state.lap()
        points["perf/seconds"], state.epoch_seconds = state.epoch_seconds, 0.0
        record = {"epoch": state.epoch + 1, "step": state.step} | train | state.point() | points
        return distributed.from_first(lambda: record)  # so that all processes decide alike

    def close(self, status: str, **entries: Any) -> None:
        """End the run's files with how it ended."""
        self.run.close(status, epochs=self.state.epoch, seconds=self.state.seconds, **entries)


def train(
    config: Config, folder: Path, observers: Sequence[Observer] = (), swept: Sequence[str] = ()
) -> None:
    """Make a run in a folder, from its newest checkpoint if there is one. swept: for Run.

    Raises UserError for what cannot be trained, RunFailed for a known failure, or Interrupted.
    """
    with build.prepared_process(config), distributed.joined(config):
        device = build.device_of(config.device)
        found = has_checkpoint(folder) and checkpoint.load_newest(folder / "checkpoints")[0]
        saved, summary = distributed.from_first(lambda: (found or {}, read_summary(folder)))
        data = build.load_data(config, saved.get("data")).to(device)
        state = TrainState(config, data, device)
        several = distributed.size() > 1
        if saved:
            state.load_state_dict(saved)
        engine = engine_for(state, data, config)
        measured = config.nll_samples in (0, summary.get("nll_samples"))
        if summary.get("status") == "completed" and state.is_finished(config) and measured:
            made = console.count(state.epoch, "epoch")
            early = f"patience={config.patience} has ended it; give a larger one, or null"
            more = "give more with epochs=N" if state.epoch >= config.epochs else early
            console.say(f"{folder} is finished: {made}; {more}")
            return
        run = Run(folder, config, state.epoch, state.step, swept)
        training = Training(config, data, state, run, observers)
        messages.greet(training)
        with interruptible(patient=several) as interrupt:
            try:
                with build.out_of_memory(config):
                    if not saved:
                        training.keep()
                    training.tell("begin")
                    fit(training, engine, interrupt)
                    if training.stopped:
                        training.close("pruned", reason=training.stopped)
                    else:
                        finish(training)
            except KeyboardInterrupt as error:
                training.close("interrupted")
                made = f"{state.epoch} of {console.count(config.epochs, 'epoch')}"
                made += f" ({console.count(state.kept_step, 'step')})"
                line = f"interrupted; {made} are kept, go on with vae-train resume="
                line += shlex.quote(str(folder))
                raise Interrupted(line, getattr(error, "by_signal", False)) from None
            except BaseException as error:
                training.close("failed", error=f"{type(error).__name__}: {error}")
                raise


def finish(training: Training) -> None:
    """Measure the best weights on the test set, once; keep them and say how good they are."""
    data, state, run, config = training.data, training.state, training.run, training.config
    if data.val is None or not run.best.exists():  # without validation the last epoch is the best
        state.best_epoch = state.epoch
        training.keep(best=True)
    state.measured.load_state_dict(checkpoint.load(run.best)["vae"])
    evaluation = training.measure(data.test)
    if count := config.nll_samples:
        log_p, _ = log_likelihoods(state.measured, data, data.test, count, config.seed)
        evaluation.metrics["nll"] = -float(log_p.mean())
    final = evaluation.named("test")
    run.log_steps(state.step, final)
    about = {"data": data.identity, "epoch": state.best_epoch}
    checkpoint.save_weights(run.weights, state.measured.state_dict(), about)
    messages.show_result(training, evaluation)  # before pictures are drawn, which takes a while
    training.tell("end", evaluation)
    last = run.history[-1]
    training.close(
        "completed",
        best_epoch=state.best_epoch,
        nll_samples=count,
        examples_per_second=last["perf/examples_per_second"],
        metrics={k: v for k, v in last.items() if k.startswith(("train/", "val/"))} | final,
        kl_by_dimension=None if evaluation.kl is None else evaluation.kl.tolist(),
    )
    messages.say_farewell(training, evaluation)
