"""What every component must do, whichever YAML files there are in configs/."""

import copy

import pytest
import torch

from vae_cli import load_run
from vae_cli.config.compose import config_dir
from vae_cli.config.settings import GROUPS
from vae_cli.runs import checkpoint
from vae_cli.training.build import load_data
from vae_cli.training.state import TrainState
from vae_cli.training.step import Now, train_step

# 30 training images of 8x8 pixels: the contract is about shapes and files
DATA = ("dataset=digits", "dataset.val_size=20", "dataset.test_size=1747", "batch_size=15")
# what a choice cannot be made without
WITH = {("prior", "uniform"): ("posterior=categorical",)}
CHOICES = {
    group: sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
    for group in GROUPS
    if group != "dataset"  # most of them need files: tests/data
}


@pytest.mark.parametrize(("group", "choice"), [(g, c) for g in CHOICES for c in CHOICES[g]])
def test_every_component_learns_and_comes_back_from_its_state(make_config, group, choice):
    # from the mean example on, plain SGD gains little in 20 steps
    needed = WITH.get((group, choice), ())
    config = make_config(*DATA, f"{group}={choice}", *needed, "model.output_bias=init")
    data = load_data(config)
    state, other = (TrainState(config, data, torch.device("cpu")) for _ in range(2))
    x = data.prepare(data.train.x, torch.Generator())
    now = Now(*torch.tensor([0.1, 0.0, 3e-3]))  # beta, capacity, lr

    def losses(state: TrainState, steps: int) -> list[float]:
        noise = torch.Generator().manual_seed(0)
        steps = (train_step(state, state.vae, x, noise, now, config) for _ in range(steps))
        return [float(terms["loss"]) for terms in steps]

    history = losses(state, 20)
    assert history[-1] < 0.98 * history[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in state.vae.parameters())
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert losses(other, 2) == losses(state, 2)


@pytest.mark.parametrize(("group", "choice"), [(g, choices[0]) for g, choices in CHOICES.items()])
def test_one_component_of_each_group_trains_saves_and_loads(trained, group, choice):
    folder = trained(*DATA, f"{group}={choice}", "epochs=5")
    run = load_run(folder)
    x = run.data().test.x[:7]
    assert run.reconstruct(x).shape == x.shape
    assert run.reconstruct(x).isfinite().all()
    assert 1 <= run.epoch <= 5
    best = checkpoint.load(folder / "checkpoints" / "best.ckpt")["vae"]
    assert all(best[name].equal(value) for name, value in run.vae.state_dict().items())
