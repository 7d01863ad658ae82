"""What a run says: what it is about to train, and what came of it."""

import platform
from typing import TYPE_CHECKING

import torch

from vae_cli.console import count, say, table
from vae_cli.training import distributed
from vae_cli.training.evaluation import Evaluation

if TYPE_CHECKING:
    from vae_cli.training.loop import Training

JUDGED_AFTER = 1000  # updates; before, a code that carries nothing yet is no collapsed one


def greet(training: "Training") -> None:
    """Say what is trained, on what, where; note the device and the sizes in summary.json."""
    config, data, state = training.config, training.data, training.state
    place, how = data.train.x.device, f", going on after epoch {state.epoch}" * (state.step > 0)
    threads = f"{platform.machine()}, {count(torch.get_num_threads(), 'thread')}"
    device = f"{place} ({torch.cuda.get_device_name(place) if place.type == 'cuda' else threads})"
    device += f", {distributed.size()} processes" if distributed.size() > 1 else ""
    parameters = sum(parameter.numel() for parameter in state.parameters)
    training.run.write_summary(device=device, parameters=parameters, data=data.identity)
    if not config.is_generative and config.beta != 1:
        line = "has no effect: an autoencoder has no KL to weigh"
        say(f"warning: beta={config.beta:g} {line}")
    val = "" if data.val is None else f" + {len(data.val):,} validation"
    greeting = (
        f"{len(data.train):,} training{val} + {len(data.test):,} test examples of shape"
        f" {'x'.join(map(str, data.shape))}, {parameters:,} parameters, {device},"
        f" {config.precision}{how}"
    )
    if state.compiled:
        greeting += "\ncompiling the training step takes 10 to 40 s, and a few in later runs"
    if not config.quiet:
        say(greeting)


def show_result(training: "Training", evaluation: Evaluation) -> None:
    """Print the numbers on the test set."""
    state = training.state
    rows = {"best epoch": f"{state.best_epoch} of {state.epoch}"}
    rows |= evaluation.rows("test", training.config.is_generative)
    print(table(rows | {"seconds": f"{state.seconds:.1f}"}), flush=True)


def say_farewell(training: "Training", evaluation: Evaluation) -> None:
    """Print where the run is, and warn of a posterior that has collapsed."""
    run, beta = training.run, training.config.beta
    shown_by = [logger.shown_by for logger in run.loggers.values() if logger.shown_by]
    print("\n  ".join(["", str(run.folder), *shown_by]), flush=True)
    judged = training.config.is_generative and training.state.step >= JUDGED_AFTER
    if judged and evaluation.active_units == 0:
        say(
            "warning: the posterior has collapsed: no latent dimension carries information. Lower"
            f" beta (now {beta:g}), warm it up with beta_schedule=warmup, lower optimizer.lr, or"
            " check that the data varies."
        )
