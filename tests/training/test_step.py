import pytest
import torch

from vae_cli.training import loop, step
from vae_cli.training.build import load_data
from vae_cli.training.loop import train
from vae_cli.training.state import TrainState
from vae_cli.training.step import WARM_UP, Engine, Now, Recorder, clip, engine_for, train_step

from .conftest import DIGITS, assert_equal_runs, curve

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
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (2, 3, 4, 5), ())]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    parameters[1].grad = parameters[1].grad.to(memory_format=torch.channels_last)
    expected = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    torch.testing.assert_close(clip(parameters, None), expected)


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


# --------------------------------------------------------------------------------------- engines

SETTINGS = (*DIGITS, "epochs=3", "log_every=4")
# what makes a step depend on randomness, on the schedules and on state beside the weights
KINDS = [
    ("dataset.binarize=dynamic", "beta_schedule=warmup", "beta_schedule.epochs=2"),
    ("model=conv_vae", "model.channels=[4,8]", "grad_clip=10", "scheduler=cosine"),
    ("optimizer=sgd", "ema=0.9", "corruption=gaussian", "on_nonfinite=skip", "scheduler=plateau"),
    ("objective=mmd", "prior=mixture"),
    ("objective=factor", "ema=0.9", "on_nonfinite=skip"),  # draws, and a second optimiser
    ("posterior=vq", "posterior.revive=0.5", "ema=0.9", "on_nonfinite=skip"),
    ("posterior=categorical", "objective=iwae"),
    ("posterior=iaf",),
]


@pytest.mark.parametrize("overrides", KINDS)
def test_the_recorded_step_finds_its_batch_and_schedule(
    make_config, tmp_path, monkeypatch, overrides
):
    # without CUDA nothing is recorded, but all that a recording would do is done at every step
    config = make_config(*SETTINGS, *overrides)
    train(config, tmp_path / "plain")
    recorders = []

    def recorder(state, data, config):
        recorders.append(Recorder(state, data, config, state.vae.forward))
        return recorders[0]

    monkeypatch.setattr(loop, "engine_for", recorder)
    train(config, tmp_path / "recorded")
    assert recorders[0].made == WARM_UP + 3  # and the smaller batch at the end of each epoch
    assert_equal_runs(tmp_path / "plain", tmp_path / "recorded")


def test_a_run_that_goes_on_begins_the_epoch_at_a_later_batch(make_config):
    config = make_config(*SETTINGS)
    data = load_data(config)
    engine = engine_for(TrainState(config, data, CPU), data, config)
    assert type(engine) is Engine  # only a CUDA device records
    batches = []
    engine.update = lambda raw, labels, now: batches.append((raw, now))
    order, schedule = torch.arange(len(data.train)), torch.arange(18.0).view(6, 3)
    assert list(engine.steps(order, schedule, first=4)) == [256, 20]
    assert batches[1][0].equal(data.train.x[1280:])
    assert [now.tolist() for _, now in batches] == [[12, 13, 14], [15, 16, 17]]


def test_a_compiled_loss_gives_the_same_numbers(make_config, tmp_path, monkeypatch):
    compiled = torch.compile
    # without the C++ that a real run builds, which takes a minute
    monkeypatch.setattr(
        step.torch, "compile", lambda f: compiled(f, backend="aot_eager", fullgraph=True)
    )
    settings = (*SETTINGS, "batch_size=650", "dataset.val_size=0")
    for name in ("true", "false"):
        train(make_config(*settings, f"compile={name}"), tmp_path / name)
    for one, other in zip(curve(tmp_path / "true"), curve(tmp_path / "false"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("overrides", KINDS)
def test_a_replayed_step_is_the_same_mathematics(make_config, tmp_path, overrides):
    for graph in ("true", "false"):
        settings = ("device=cuda", "deterministic=true", f"cuda_graph={graph}")
        train(make_config(*SETTINGS, *overrides, *settings), tmp_path / graph)
    for one, other in zip(curve(tmp_path / "true"), curve(tmp_path / "false"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
