"""Training, top to bottom: `train` sets up, `fit` is the loop.

One update is in `step.py`, what comes after the last one in `finishing.py`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vae_cli import build, checkpoint, console, cpu, distributed, graphs, trouble
from vae_cli.config import Config, OnNonfinite
from vae_cli.data.interface import Data
from vae_cli.data.streaming import Streamed
from vae_cli.finishing import finish, measured
from vae_cli.progressive import Progressive
from vae_cli.randomness import derive, epoch_order
from vae_cli.run import Run, device_name, read_summary
from vae_cli.state import TrainState, is_finished, new_state, note_best, save, steps_per_epoch
from vae_cli.step import Now, train_step
from vae_cli.stopping import Interrupted, Stop, stop_signals

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------- the training


def train(config: Config, folder: Path, swept: Sequence[str] = ()) -> None:
    """A whole run in a run folder, from the start or from its last checkpoint.

    swept: the settings that vary in the sweep that it belongs to.
    """
    cpu.tune()
    ranks = distributed.current()
    _set_determinism(config)
    device, data = ranks.in_turn(lambda: _device_and_data(config))
    with trouble.out_of_memory(config):
        state = new_state(config, data, device, ranks)
    resumed = config.resume is not None
    if resumed:
        # of several processes only the first needs to reach the folder
        there = device if ranks.size == 1 else torch.device("cpu")
        kept, passed_over = ranks.from_first(
            lambda: checkpoint.load_newest(folder / "checkpoints", there)
        )
        if passed_over:
            console.say(passed_over)
        state.load_state_dict(kept)
        status = ranks.from_first(lambda: read_summary(folder).get("status"))
        if is_finished(state, config) and status == "completed":
            console.say(f"{folder} is finished: {state.epoch} epochs; give more with epochs=N")
            return
    run = Run(folder, config, state.epoch, state.step, swept)
    run.write_summary(
        device=device_name(device) + (f", {ranks.size} processes" if ranks.size > 1 else ""),
        parameters=sum(p.numel() for p in state.parameters),
        shape=list(data.shape),
    )
    _greet(config, run, data, resumed, state)
    try:
        with (
            ranks.together(),
            stop_signals(patient=ranks.size > 1) as stop,
            trouble.out_of_memory(config, data.shape),
        ):
            if not resumed:
                keep(state, config, data, run)
            fit(state, data, config, run, stop)
            finish(state, data, config, run)
    except KeyboardInterrupt as interrupt:
        run.close("interrupted", epochs=state.epoch, seconds=state.seconds)
        raise Interrupted(
            f"interrupted; {state.epoch} of {config.epochs} epochs"
            f" ({state.kept_step:,} steps) are kept, go on with"
            f" vae-train resume={console.quoted(folder)}",
            by_signal=getattr(interrupt, "by_signal", False),
        ) from None
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        run.close("failed", epochs=state.epoch, seconds=state.seconds, error=reason)
        raise


def fit(state: TrainState, data: Data, config: Config, run: Run, stop: Stop) -> None:
    """Train to the last epoch: update, validate, log, save."""
    steps = steps_per_epoch(config, data)
    pictures = Progressive(data, config, run)
    recorder = graphs.recorder(state, data, config)
    with console.Progress(config.epochs * steps, state.step, config.epochs) as progress:
        if state.step == 0 and state.ranks.first:
            pictures.draw(state.measured, state.step)
        while not is_finished(state, config):
            record = train_epoch(state, data, config, run, progress, stop, recorder)
            trained = state.epoch_seconds
            started = time.perf_counter()
            if data.val is not None:  # by every process: no one waits for another
                found = measured(state, data, data.val, config)
                record |= {f"val/{name}": number for name, number in found.metrics.items()}
                record["val/active_units"] = found.active_units
                run.log_histogram("latent/kl_by_dimension", found.kl, state.step)
            record = state.ranks.from_first(lambda record=record: record)  # type: ignore[misc]
            state.epoch += 1
            state.spent(time.perf_counter() - started)
            better = note_best(state, record, config)
            record |= {
                "perf/examples_per_second": len(data.train) / trained,
                "perf/seconds": state.epoch_seconds,
            }
            state.epoch_seconds = 0.0
            run.log_steps(state.step, _from_validation(record))
            run.log_epoch({"epoch": state.epoch, "step": state.step, **record})
            if better:
                save(run.best, state, config, data)
            keep(state, config, data, run, written=run.best if better else None)
            drawn = config.image_every and state.epoch % config.image_every == 0
            if drawn and state.ranks.first:
                pictures.draw(state.measured, state.step)
            progress.epoch({"epoch": state.epoch, **record})
            log.info("epoch %d: %s", state.epoch, record)


def train_epoch(
    state: TrainState,
    data: Data,
    config: Config,
    run: Run,
    progress: console.Progress,
    stop: Stop,
    recorder: graphs.Recorder | None,
) -> dict[str, float]:
    """One pass over the training set, or what is left of it in a run that stopped inside an epoch.

    Returns the epoch's means, as metrics.jsonl keeps them.
    """
    device = data.train.x.device
    order = epoch_order(device, config.seed, state.epoch, len(data.train))
    steps = steps_per_epoch(config, data)
    last_step = (state.epoch + 1) * steps
    schedule = _schedule(state, config, last_step - steps, steps).to(device)
    state.vae.train()
    started = saved = time.perf_counter()
    for examples in _updates(state, data, config, order, schedule, recorder):
        state.meter.count(examples)
        state.step += 1
        if state.step % config.log_every == 0 or state.step == last_step:
            _read_meter(state, data, config, run, progress)
        now = time.perf_counter()
        due = config.checkpoint_minutes and now - saved > 60 * config.checkpoint_minutes
        leaving = _is_asked_to_stop(state, config, stop, steps)
        if (due or leaving) and state.step < last_step:
            trouble.stop_if_not_finite(state, state.meter.peek(), config, len(data.train))
            state.spent(now - started)
            keep(state, config, data, run)
            started = saved = time.perf_counter()
            if leaving:
                stop.check()
    state.spent(time.perf_counter() - started)
    skipped = {"train/skipped": state.meter.skipped} if state.meter.skipped else {}
    record = {f"train/{name}": number for name, number in state.meter.epoch().items()}
    beta, _, lr = _weights_at(state, config, last_step - 1)
    return record | skipped | {"schedule/beta": beta, "schedule/lr": lr}


def _updates(
    state: TrainState,
    data: Data,
    config: Config,
    order: Tensor,
    schedule: Tensor,
    recorder: graphs.Recorder | None,
) -> Iterator[int]:
    """Make the epoch's updates from where the state is; yields each one's number of examples.

    order [N] int64: the examples one after the other. schedule [steps, 3], on the device.
    """
    first = state.step - state.epoch * len(schedule)
    noise_generator = torch.Generator(order.device)
    if recorder is not None:
        yield from recorder.updates(order, schedule, first)
        return
    left = order[first * config.batch_size :]
    if state.ranks.size > 1 and isinstance(data.train.x, Streamed):
        yield from _updates_of_own_rows(state, data, config, left, schedule[first:])
        return
    batches = data.train.batches(left, config.batch_size)
    for raw, now in zip(batches, schedule[first:].unbind(), strict=True):
        noise_generator.manual_seed(derive(config.seed, "noise", state.step))
        x = data.prepare(raw, noise_generator)  # [B, *shape]
        state.meter.write(train_step(state, x, noise_generator, Now(*now.unbind()), config))
        yield len(x)


def _updates_of_own_rows(
    state: TrainState, data: Data, config: Config, order: Tensor, schedule: Tensor
) -> Iterator[int]:
    """The same where reading is dear: each process decodes only its own rows of a batch.

    The noise is still that of one process; what else is random (dynamic binarisation, corruption)
    is drawn by each process for its own rows and differs from it.
    """
    noise_generator, own_generator = torch.Generator(order.device), torch.Generator(order.device)
    own, size = state.ranks.own(order, config.batch_size)
    wholes = [len(part) for part in order.split(config.batch_size)]
    batches = data.train.batches(own, size)
    for raw, whole, now in zip(batches, wholes, schedule.unbind(), strict=True):
        noise_generator.manual_seed(derive(config.seed, "noise", state.step))
        own_generator.manual_seed(derive(config.seed, "own", state.step, state.ranks.rank))
        x = data.prepare(raw, own_generator)
        metrics = train_step(state, x, noise_generator, Now(*now.unbind()), config, whole)
        state.meter.write(metrics)
        yield whole


def _is_asked_to_stop(state: TrainState, config: Config, stop: Stop, steps: int) -> bool:
    """Whether to stop after this step. Several processes agree about it at some steps, so that all
    stop after the same one. steps: in an epoch."""
    if state.ranks.size > 1:
        if state.step % config.log_every and (state.step - 1) % steps:
            return False
        stop.requested = state.ranks.any(stop.requested)
    return stop.requested is not None


def _schedule(state: TrainState, config: Config, first: int, steps: int) -> Tensor:
    """beta, capacity and learning rate at each of `steps` steps. -> [steps, 3]."""
    return torch.tensor([_weights_at(state, config, step) for step in range(first, first + steps)])


def _weights_at(state: TrainState, config: Config, step: int) -> tuple[float, float, float]:
    """beta, capacity and learning rate."""
    lr = config.optimizer.lr * state.lr.factor(step)
    return state.beta.at(step), state.beta.capacity(step), lr


def _read_meter(
    state: TrainState, data: Data, config: Config, run: Run, progress: console.Progress
) -> None:
    """Write down the steps since the last time: the only place in the loop that waits for the
    device."""
    window = state.meter.peek()
    trouble.stop_if_not_finite(state, window, config, len(data.train))
    progress.step(len(window.rows))
    window = state.meter.take(window, skipping=config.on_nonfinite is OnNonfinite.skip)
    if state.step % config.log_every:
        return  # the epoch's end: no point of its own
    numbers = window.means()
    progress.numbers(state.epoch + 1, numbers)
    beta, _, lr = _weights_at(state, config, state.step - 1)
    run.log_steps(
        state.step,
        {f"train/{name}": number for name, number in numbers.items()}
        | {"schedule/beta": beta, "schedule/lr": lr},
    )


def keep(
    state: TrainState, config: Config, data: Data, run: Run, written: Path | None = None
) -> None:
    """Write the checkpoint to go on from, after all that was logged on the way to it."""
    run.flush()
    save(run.last, state, config, data, written)


# ---------------------------------------------------------------------------------------- the parts


def _device_and_data(config: Config) -> tuple[torch.device, Data]:
    """The device of this process, and the data on it."""
    device = build.device(distributed.device(config.device, distributed.current()))
    with trouble.out_of_memory(config):
        return device, build.data(config).to(device)


def _from_validation(record: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in record.items() if k.startswith(("val/", "perf/example"))}


def _set_determinism(config: Config) -> None:
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic


def _greet(config: Config, run: Run, data: Data, resumed: bool, state: TrainState) -> None:
    val = "" if data.val is None else f" + {len(data.val):,} validation"
    how = f"going on after epoch {state.epoch}" if resumed else f"{config.epochs} epochs"
    console.say(
        f"{config.model.name} on {config.dataset.name}: {len(data.train):,} training{val} +"
        f" {len(data.test):,} test examples of shape {'x'.join(map(str, data.shape))},"
        f" {run.summary['parameters']:,} parameters, {run.summary['device']},"
        f" {config.precision.name}, {how}\n{run.folder}"
    )
