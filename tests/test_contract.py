"""What every component must do, whichever YAML files there are: build, step, save and load."""

from dataclasses import replace

import pytest
import torch

from vae_cli import build, checkpoint, load_run, planning, training
from vae_cli.config import GROUPS
from vae_cli.data.interface import Data, Split
from vae_cli.state import new_state, save
from vae_cli.step import Now, train_step

# 30 training images: the contract is about shapes and files, not about learning
SMALL = ("dataset=digits", "dataset.val_size=20", "dataset.test_size=1747", "batch_size=15")


def now(lr: float) -> Now:
    return Now(torch.tensor(0.1), torch.tensor(0.0), torch.tensor(lr))


CHOICES = sorted(
    (path.parent.name, path.stem)
    for group in GROUPS
    for path in (planning.config_dir() / group).glob("*.yaml")
    if group != "dataset"
)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_component_trains_saves_and_loads(make_config, tmp_path, group, choice):
    config = make_config(*SMALL, "epochs=5", "figures=none", f"{group}={choice}")
    training.train(config, tmp_path)
    run = load_run(tmp_path)
    x = run.data().test.x[:7]
    assert run.reconstruct(x).shape == x.shape
    assert run.reconstruct(x).isfinite().all()
    assert 1 <= run.epoch <= 5
    best = checkpoint.load(tmp_path / "checkpoints" / "best.ckpt")["vae"]
    assert all(best[name].equal(value) for name, value in run.vae.state_dict().items())


@pytest.mark.parametrize("likelihood", [name for group, name in CHOICES if group == "likelihood"])
@pytest.mark.parametrize("model", ["ae", "mlp_vae", "conv_vae", "conv_ae"])
def test_every_model_learns_under_every_likelihood(make_config, model, likelihood):
    config = make_config(*SMALL, f"model={model}", f"likelihood={likelihood}", "model.latent_dim=2")
    data = build.data(config)
    state = new_state(config, data, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    x = data.train.x
    losses = [float(train_step(state, x, generator, now(3e-3), config)["loss"]) for _ in range(40)]
    assert losses[-1] < 0.98 * losses[0]
    assert all(p.grad is not None for p in state.vae.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14)])
@pytest.mark.parametrize("model", ["mlp_vae", "conv_vae"])
def test_several_samples_and_bf16_on_images_of_any_size(make_config, tmp_path, model, shape):
    config = make_config(f"model={model}", "precision=bf16", "objective.num_samples=3")
    split = Split((torch.rand(8, *shape) * 255).byte())
    data = Data("random", split, None, split)
    state = new_state(replace(config, batch_size=8), data, torch.device("cpu"))
    x = data.prepare(split.x, torch.Generator())
    metrics = train_step(state, x, torch.Generator(), now(1e-3), config)
    assert all(term.isfinite() and term.dtype == torch.float32 for term in metrics.values())
    assert all(p.dtype == torch.float32 for p in state.vae.parameters())
    save(tmp_path / "a.ckpt", state, config, data)
    assert checkpoint.load(tmp_path / "a.ckpt")["shape"] == list(shape)
