import pytest
import torch

from vae_cli.training.build import load_data
from vae_cli.training.state import TrainState
from vae_cli.training.step import Now, clip, train_step

CPU = torch.device("cpu")


@pytest.fixture
def setting(make_config):
    """A state and a way to make an update: setting("ema=0.9") -> (state, update, x)."""

    def build(*overrides: str, lr: float = 1e-2):
        config = make_config("dataset=digits", *overrides)
        data = load_data(config)
        state = TrainState(config, data, CPU)
        x = data.train.x[:64]
        generator = torch.Generator().manual_seed(0)
        now = Now(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(lr))

        def update(x: torch.Tensor = x) -> dict[str, torch.Tensor]:
            metrics = train_step(state, state.vae.forward, x, generator, now, config)
            state.step += 1
            return metrics

        return state, update, x

    return build


def test_gradient_clipping_bounds_the_update(setting):
    def movement(*overrides: str) -> float:
        plain = ("optimizer=sgd", "optimizer.momentum=0")
        state, update, _ = setting(*plain, *overrides, lr=1.0)
        before = torch.nn.utils.parameters_to_vector(state.parameters).detach()
        update()
        after = torch.nn.utils.parameters_to_vector(state.parameters).detach()
        return float((after - before).norm())

    assert movement() > 0.5
    assert movement("grad_clip=0.5") == pytest.approx(0.5, rel=1e-3)


def test_the_norm_is_that_of_torch_for_any_layout():
    gradients = [torch.randn(shape) for shape in ((3, 4), (2, 3, 4, 5), ())]
    gradients[1] = gradients[1].to(memory_format=torch.channels_last)
    expected = torch.nn.utils.get_total_norm(gradients)
    torch.testing.assert_close(clip(gradients, None), expected)
    compiled = torch.compile(clip, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(gradients, None), expected)


@pytest.mark.parametrize("choice", ["optimizer=adam", "optimizer=sgd", "objective=aae"])
def test_skipping_leaves_weights_and_statistics_alone(setting, choice):
    state, update, x = setting(
        choice, "on_nonfinite=skip", "model=conv_vae", "model.channels=[4,8]"
    )
    update()
    before = {name: value.clone() for name, value in state.vae.state_dict().items()}
    metrics = update(torch.full_like(x, torch.inf))
    assert not all(value.isfinite() for value in metrics.values())
    assert all(value.equal(before[name]) for name, value in state.vae.state_dict().items())
    update()
    assert not all(value.equal(before[name]) for name, value in state.vae.state_dict().items())


def test_an_adversary_has_an_optimiser_of_its_own(setting):
    state, update, _ = setting("objective=factor", "optimizer=sgd", "grad_clip=1e-9", lr=0.0)
    others = [p.clone() for p in state.parameters]
    rivals = [p.clone() for p in state.rivals]
    update()
    assert all(p.equal(before) for p, before in zip(state.parameters, others, strict=True))
    # a first step of Adam is its rate times the sign of the gradient: not clipped, not scheduled
    changes = [(p - before).abs() for p, before in zip(state.rivals, rivals, strict=True)]
    for change, p in zip(changes, state.rivals, strict=True):
        expected = torch.full_like(change, 1e-3).where(p.grad.abs() > 1e-5, change)
        torch.testing.assert_close(change, expected, rtol=2e-3, atol=0)
    assert set(state.vae.parameters()) == {*state.parameters, *state.rivals}
    assert not {*state.parameters} & {*state.rivals}
