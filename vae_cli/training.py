"""Training, top to bottom: `train` sets up, `fit` is the loop, `train_step` is one update."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vae_cli import build, checkpoint, console, gallery
from vae_cli.config import Config, Figures
from vae_cli.data.interface import Data, Split
from vae_cli.errors import RunFailed
from vae_cli.evaluation import Evaluation, evaluate
from vae_cli.objectives import Weight
from vae_cli.progressive import Progressive
from vae_cli.randomness import derive, generator
from vae_cli.run import Run, device_name, read_summary
from vae_cli.schema.models import Posterior as PosteriorKind
from vae_cli.state import Mean, TrainState, is_finished, new_state, note_best, save, steps_per_epoch
from vae_cli.stopping import Interrupted, Stop, stop_signals

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------- the training


def train(config: Config, folder: Path, swept: Sequence[str] = ()) -> None:
    """A whole run in a run folder, from the start or from its last checkpoint.

    swept: the settings that vary in the sweep that it belongs to.
    """
    device = build.device(config.device)
    _set_determinism(config)
    data = build.data(config).to(device)
    state = new_state(config, data, device)
    resumed = config.resume is not None
    if resumed:
        state.load_state_dict(checkpoint.load(folder / "checkpoints" / "last.ckpt", device))
        if is_finished(state, config) and read_summary(folder).get("status") == "completed":
            console.say(f"{folder} is finished: {state.epoch} epochs; give more with epochs=N")
            return
    run = Run(folder, config, state.epoch, state.step, swept)
    run.write_summary(
        device=device_name(device),
        parameters=sum(p.numel() for p in state.vae.parameters()),
        shape=list(data.shape),
    )
    _greet(config, run, data, resumed, state)
    try:
        with stop_signals() as stop:
            if not resumed:
                save(run.last, state, config, data)
            fit(state, data, config, run, stop)
            finish(state, data, config, run)
    except KeyboardInterrupt as interrupt:
        run.close("interrupted", epochs=state.epoch, seconds=state.seconds)
        raise Interrupted(
            f"interrupted; {state.epoch} of {config.epochs} epochs are kept, go on with"
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
    with console.Progress(config.epochs * steps, state.step, config.epochs) as progress:
        if state.epoch == 0:
            pictures.draw(state.measured, state.step)
        while not is_finished(state, config):
            started = time.perf_counter()
            record = train_epoch(state, data, config, run, progress, stop)
            examples_per_second = len(data.train) / (time.perf_counter() - started)
            if data.val is not None:
                found = _evaluate(state, data, data.val, config)
                record |= {f"val/{name}": number for name, number in found.metrics.items()}
                record["latent/active_units"] = found.active_units
                run.log_histogram("latent/kl_by_dimension", found.kl, state.step)
            state.epoch += 1
            state.seconds += time.perf_counter() - started
            better = note_best(state, record, config)
            record |= {
                "perf/examples_per_second": examples_per_second,
                "perf/seconds": time.perf_counter() - started,
            }
            run.log_steps(state.step, _from_validation(record))
            run.log_epoch({"epoch": state.epoch, "step": state.step, **record})
            if better:
                save(run.best, state, config, data)
            save(run.last, state, config, data)
            if config.image_every and state.epoch % config.image_every == 0:
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
) -> dict[str, float]:
    """One pass over the training set. Returns the epoch's means, as metrics.jsonl keeps them."""
    device = data.train.x.device
    order = torch.randperm(
        len(data.train),
        generator=generator(device, config.seed, "order", state.epoch),
        device=device,
    )
    noise_generator = torch.Generator(device)
    epoch_mean, window = Mean(), Mean()
    state.vae.train()
    for raw in data.train.batches(order, config.batch_size):
        noise_generator.manual_seed(derive(config.seed, "noise", state.step))
        beta, capacity = state.beta.at(state.step), state.beta.capacity(state.step)
        lr = config.optimizer.lr * state.lr.factor(state.step)
        x = data.prepare(raw, noise_generator)  # [B, *shape]
        weight = Weight(torch.tensor(beta, device=device), torch.tensor(capacity, device=device))
        metrics = train_step(state, x, noise_generator, weight, lr, config.grad_clip)
        window.add(metrics, len(x))
        state.step += 1
        stop.check()
        if state.step % config.log_every == 0:
            numbers = window.read()  # waits for the device: the only place in the loop
            epoch_mean.merge(window)
            window = Mean()
            _stop_if_not_finite(numbers, state)
            run.log_steps(
                state.step,
                {f"train/{name}": number for name, number in numbers.items()}
                | {"schedule/beta": beta, "schedule/lr": lr},
            )
            progress.step(config.log_every)
            progress.numbers(state.epoch + 1, numbers)
    epoch_mean.merge(window)
    numbers = epoch_mean.read()
    _stop_if_not_finite(numbers, state)
    record = {f"train/{name}": number for name, number in numbers.items()}
    return record | {"schedule/beta": beta, "schedule/lr": lr}


def train_step(
    state: TrainState,
    x: Tensor,
    noise_generator: torch.Generator,
    weight: Weight,
    lr: float,
    grad_clip: float | None,
) -> dict[str, Tensor]:
    """One update from a batch x [B, *shape]. Returns its metrics, still on the device."""
    vae, optimizer = state.vae, state.optimizer
    noise = torch.randn(
        (vae.objective.num_samples, len(x), vae.model.latent_dim),
        generator=noise_generator,
        device=x.device,
    )
    seen = state.corruption(x, noise_generator)
    terms = state.loss(x, noise, weight, seen)
    optimizer.zero_grad(set_to_none=True)
    terms.loss.backward()
    if grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(vae.parameters(), grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    if state.averaged is not None:
        state.averaged.update_parameters(vae)
    return terms.metrics


def finish(state: TrainState, data: Data, config: Config, run: Run) -> None:
    """Measure the best weights on the test set, once; keep them; draw; say how it went."""
    device = data.train.x.device
    if data.val is None or not run.best.exists():  # without validation the last epoch is the best
        state.best_epoch = state.epoch
        save(run.best, state, config, data)
    vae = state.measured
    vae.load_state_dict(checkpoint.load(run.best, device)["vae"])
    found = _evaluate(state, data, data.test, config)
    final = {f"test/{name}": number for name, number in found.metrics.items()}
    final["latent/active_units"] = found.active_units
    run.log_steps(state.step, final)
    about = {"shape": list(data.shape), "epoch": state.best_epoch}
    checkpoint.save_weights(run.folder / "model.safetensors", vae.state_dict(), about)
    if config.figures is Figures.auto:
        gallery.draw(vae, data, config, run.folder, found, run)
    last = run.history[-1]
    run.close(
        "completed",
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        seconds=state.seconds,
        examples_per_second=last["perf/examples_per_second"],
        metrics={k: v for k, v in last.items() if k.startswith(("train/", "val/"))} | final,
        kl_by_dimension=found.kl.tolist(),
    )
    _say_result(state, config, run, found, final)


# ---------------------------------------------------------------------------------------- the parts


def _evaluate(state: TrainState, data: Data, split: Split, config: Config) -> Evaluation:
    """With the weight of the KL that the last update was made with."""
    step = state.step - 1
    beta, capacity = state.beta.at(step), state.beta.capacity(step)
    return evaluate(state.measured, data, split, beta, config.seed, capacity)


def _from_validation(record: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in record.items() if k.startswith(("val/", "latent/", "perf/example"))}


def _stop_if_not_finite(numbers: dict[str, float], state: TrainState) -> None:
    broken = [name for name, number in numbers.items() if not math.isfinite(number)]
    if broken:
        raise RunFailed(
            f"{broken[0]} is not finite at step {state.step} (epoch {state.epoch + 1});"
            " lower optimizer.lr, set grad_clip=1, or warm beta up with beta_schedule=warmup"
        )


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


def _say_result(
    state: TrainState, config: Config, run: Run, found: Evaluation, final: dict[str, float]
) -> None:
    rows = {
        "best epoch": f"{state.best_epoch} of {state.epoch}",
        "test elbo": f"{final['test/elbo']:.3f} nats (beta = 1)",
        "test reconstruction": f"{final['test/reconstruction']:.3f}",
        "test kl": f"{final['test/kl']:.3f}",
        "active units": f"{found.active_units} of {len(found.kl)}",
        "seconds": f"{state.seconds:.1f}",
    }
    print(console.table(rows))
    print(f"\n  {run.folder}\n  tensorboard --logdir {console.quoted(run.folder)}", flush=True)
    if config.model.posterior is PosteriorKind.gaussian and found.active_units == 0:
        console.say(
            "warning: the posterior has collapsed: no latent dimension carries information."
            f" Lower beta (now {config.beta:g}), warm it up with beta_schedule=warmup, lower"
            " optimizer.lr, or check that the data varies."
        )
