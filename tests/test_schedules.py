import math

import pytest
import torch

from vae_cli import build
from vae_cli.errors import UserError
from vae_cli.schedules import PlateauLR

STEPS = 10  # an epoch


def test_constant_beta(make_config):
    schedule = build.beta_schedule(make_config("beta=4"), STEPS)
    assert [schedule.at(step) for step in (0, 5, 1000)] == [4, 4, 4]


def test_warmup_rises_linearly_and_stays(make_config):
    config = make_config("beta=4", "beta_schedule=warmup", "beta_schedule.epochs=2")
    schedule = build.beta_schedule(config, STEPS)
    assert [schedule.at(step) for step in (0, 5, 10, 20, 21)] == [0, 1, 2, 4, 4]
    assert schedule.final_step == 20


def test_warmup_in_steps_from_a_start(make_config):
    config = make_config(
        "beta=3", "beta_schedule=warmup", "beta_schedule.steps=4", "beta_schedule.start=1"
    )
    assert [build.beta_schedule(config, STEPS).at(s) for s in range(6)] == [1, 1.5, 2, 2.5, 3, 3]


def test_cyclical_rises_again_and_again(make_config):
    config = make_config(
        "beta=2", "epochs=4", "beta_schedule=cyclical", "beta_schedule.cycles=2"
    )  # 40 steps, cycles of 20, each with a rise of 10
    schedule = build.beta_schedule(config, STEPS)
    steps = (0, 5, 10, 19, 20, 25, 30, 39, 45)
    assert [schedule.at(step) for step in steps] == [0, 1, 2, 2, 0, 1, 2, 2, 2]
    assert schedule.final_step == 30


def test_capacity_rises_and_beta_stays(make_config):
    config = make_config(
        "beta=100", "beta_schedule=capacity", "beta_schedule.capacity=8", "beta_schedule.epochs=2"
    )
    schedule = build.beta_schedule(config, STEPS)
    assert [schedule.at(step) for step in (0, 10, 30)] == [100, 100, 100]
    assert [schedule.capacity(step) for step in (0, 10, 20, 30)] == [0, 4, 8, 8]
    assert schedule.final_step == 20
    assert build.beta_schedule(make_config(), STEPS).capacity(7) == 0


def test_a_warmup_in_steps_beyond_the_training_is_refused(make_config):
    config = make_config("epochs=2", "beta_schedule=warmup", "beta_schedule.steps=21")
    with pytest.raises(UserError, match=r"beta_schedule.steps=21: the warm-up is longer"):
        build.beta_schedule(config, STEPS)


@pytest.mark.parametrize(
    ("overrides", "reference"),
    [
        (("scheduler=constant",), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
        (
            ("scheduler=exponential", "scheduler.gamma=0.9"),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ),
        (
            ("scheduler=step", "scheduler.every_epochs=3", "scheduler.gamma=0.5"),
            lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5),
        ),
    ],
)
def test_epoch_schedules_are_those_of_torch(make_config, overrides, reference):
    schedule = build.lr_schedule(make_config(*overrides), STEPS)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    expected = reference(optimizer)
    for epoch in range(8):
        assert schedule.factor(epoch * STEPS) == pytest.approx(expected.get_last_lr()[0])
        assert schedule.factor(epoch * STEPS + STEPS - 1) == schedule.factor(epoch * STEPS)
        optimizer.step()
        expected.step()


def test_cosine_rises_and_ends_at_its_final_factor(make_config):
    config = make_config(
        "epochs=4", "scheduler=cosine", "scheduler.warmup_epochs=1", "scheduler.final_factor=0.1"
    )
    schedule = build.lr_schedule(config, STEPS)
    factors = [schedule.factor(step) for step in range(40)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1)
    assert factors[39] == pytest.approx(0.1)
    middle = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 10 / 29))
    assert factors[20] == pytest.approx(middle)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_plateau_drops_after_its_patience_and_survives_a_resume(make_config):
    config = make_config("scheduler=plateau", "scheduler.patience=1", "scheduler.gamma=0.5")
    schedule = build.lr_schedule(config, STEPS)
    assert isinstance(schedule, PlateauLR)
    factors = []
    for better in (True, False, False, False, True, False):
        schedule.observe(better)
        factors.append(schedule.factor(0))
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.5]
    resumed = build.lr_schedule(config, STEPS)
    resumed.load(schedule.state())
    resumed.observe(False)
    assert resumed.factor(0) == 0.25


def test_plateau_stops_at_its_smallest_factor(make_config):
    config = make_config("scheduler=plateau", "scheduler.patience=0", "scheduler.min_factor=0.2")
    schedule = build.lr_schedule(config, STEPS)
    for _ in range(9):
        schedule.observe(False)
    assert schedule.factor(0) == 0.2
