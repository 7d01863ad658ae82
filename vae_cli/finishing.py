"""The end of a run: its best weights measured on the test set, kept, drawn, and put into words."""

from __future__ import annotations

from vae_cli import checkpoint, console, gallery
from vae_cli.config import Config, Figures
from vae_cli.data.interface import Data, Split
from vae_cli.evaluation import Evaluation, evaluate
from vae_cli.run import Run
from vae_cli.schema.models import Posterior as PosteriorKind
from vae_cli.state import TrainState, save


def finish(state: TrainState, data: Data, config: Config, run: Run) -> None:
    """Measure the best weights on the test set, once; keep them; draw; say how it went.

    Of several processes only the first does.
    """
    if not state.ranks.first:
        run.close("completed")
        return
    device = data.train.x.device
    if data.val is None or not run.best.exists():  # without validation the last epoch is the best
        state.best_epoch = state.epoch
        save(run.best, state, config, data)
    vae = state.measured
    vae.load_state_dict(checkpoint.load(run.best, device)["vae"])
    found = measured(state, data, data.test, config)
    final = {f"test/{name}": number for name, number in found.metrics.items()}
    final["test/active_units"] = found.active_units
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


def measured(state: TrainState, data: Data, split: Split, config: Config) -> Evaluation:
    """A split measured with the weight of the KL that the last update was made with."""
    step = state.step - 1
    beta, capacity = state.beta.at(step), state.beta.capacity(step)
    return evaluate(state.measured, data, split, beta, config.seed, capacity)


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
