import pytest

from vae_cli.config import optimization as schemas
from vae_cli.config.registry import Component
from vae_cli.console import UserError


def follow(config: Component, betas: dict, final: int, capacities: dict) -> None:
    schedule = config.build(4.0, 10, 20)  # beta, steps of an epoch, epochs
    assert {step: schedule.beta_at(step) for step in betas} == betas
    assert {step: schedule.capacity_at(step) for step in capacities} == capacities
    assert schedule.final_step == final


def test_the_weight_of_the_kl_by_step():
    follow(schemas.ConstantBetaConfig(name="constant"), {0: 4, 5: 4, 1000: 4}, 0, {7: 0})
    warmup = schemas.WarmupBetaConfig(name="warmup", start=0.0, epochs=2.0, steps=None)
    follow(warmup, {0: 0, 5: 1, 10: 2, 20: 4, 21: 4}, 20, {7: 0})
    warmup = schemas.WarmupBetaConfig(name="warmup", start=2.0, epochs=2.0, steps=4)
    follow(warmup, {0: 2, 1: 2.5, 2: 3, 3: 3.5, 4: 4, 5: 4}, 4, {7: 0})
    with pytest.raises(UserError, match=r"beta_schedule\.steps=4"):
        warmup.build(3.0, 3, 1)  # longer than the training
    # 200 steps, cycles of 100, each with a rise of 50
    cyclical = schemas.CyclicalBetaConfig(name="cyclical", cycles=2, rise=0.5)
    betas = {0: 0, 25: 2, 50: 4, 99: 4, 100: 0, 125: 2, 150: 4, 199: 4, 225: 4}
    follow(cyclical, betas, 150, {7: 0})
    capacity = schemas.CapacityBetaConfig(name="capacity", capacity=8.0, epochs=2.0)
    follow(capacity, {0: 4, 10: 4, 30: 4}, 20, {0: 0, 10: 4, 20: 8, 30: 8})
