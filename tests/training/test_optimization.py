import math
from copy import deepcopy

import pytest
import torch

from vae_cli.training.optimization import Adam, Averaged, LearningRate

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
STEPS = 10  # an epoch


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((40, 30), (40,), (3, 4, 3, 3))]


def give_gradients(*groups: list[torch.nn.Parameter]) -> None:
    for same in zip(*groups, strict=True):
        gradient = torch.randn_like(same[0])
        for parameter in same:
            parameter.grad = gradient.clone()


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_makes_the_steps_of_torch_also_after_loading(decoupled):
    mine, theirs = parameters(), parameters()
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer, reference = Adam(mine, decoupled, **SETTINGS), kind(theirs, **SETTINGS)
    for step in range(6):
        if step == 3:
            saved = deepcopy(optimizer.state_dict())
            optimizer = Adam(mine, decoupled, **SETTINGS)
            optimizer.load_state_dict(saved)
        give_gradients(mine, theirs)
        optimizer.param_groups[0]["lr"] = torch.tensor(1e-2 / (step + 1))
        reference.param_groups[0]["lr"] = 1e-2 / (step + 1)
        optimizer.step()
        reference.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_an_update_that_is_not_finite_changes_nothing():
    mine, theirs = parameters(), parameters()
    optimizer, reference = Adam(mine, False, **SETTINGS), Adam(theirs, False, **SETTINGS)
    for broken in (False, True, False):
        give_gradients(mine, theirs)
        optimizer.found_inf = torch.tensor(float(broken))
        if broken:
            mine[0].grad[0] = torch.nan
        else:
            reference.step()
        optimizer.step()
    assert all(one.equal(other) for one, other in zip(mine, theirs, strict=True))
    assert optimizer.count == reference.count == 2


def test_the_average_follows_the_weights_and_copies_statistics():
    module = torch.nn.BatchNorm1d(2)
    averaged = Averaged(module, 0.9)
    for step in range(3):
        with torch.no_grad():
            module.weight.fill_(step + 1.0)
            module.running_mean.fill_(step)
        averaged.update(first=step == 0)
    torch.testing.assert_close(averaged.module.weight[0].item(), 0.9 * 1.1 + 0.1 * 3)
    assert averaged.module.running_mean.tolist() == [2, 2]
    assert not averaged.module.weight.requires_grad


@pytest.fixture
def learning_rate(make_config):
    def build(*overrides: str) -> LearningRate:
        config = make_config(*overrides)
        return config.scheduler.build(STEPS, config.epochs)

    return build


@pytest.mark.parametrize(
    ("overrides", "shares"),
    [
        (["constant"], [1, 1, 1, 1]),
        (["exponential", "scheduler.gamma=0.5"], [1, 0.5, 0.25, 0.125]),
        (["step", "scheduler.every_epochs=3", "scheduler.gamma=0.5"], [1, 1, 1, 0.5]),
    ],
)
def test_steps_of_an_epoch_have_one_learning_rate(learning_rate, overrides, shares):
    name, *settings = overrides
    share = learning_rate(f"scheduler={name}", *settings).share
    assert [share(epoch * STEPS) for epoch in range(4)] == shares
    assert [share(epoch * STEPS + STEPS - 1) for epoch in range(4)] == shares


def test_cosine_rises_and_ends_at_its_final_factor(learning_rate):
    settings = ("scheduler.warmup_epochs=1", "scheduler.final_factor=0.1")
    share = learning_rate("epochs=4", "scheduler=cosine", *settings).share
    shares = [share(step) for step in range(40)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[10] == pytest.approx(1)
    assert shares[39] == pytest.approx(0.1)
    assert shares[20] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 10 / 29)))


def test_plateau_drops_after_its_patience_to_its_smallest_factor(learning_rate):
    settings = ("scheduler.patience=1", "scheduler.gamma=0.5", "scheduler.min_factor=0.3")
    lr, resumed = (learning_rate("scheduler=plateau", *settings) for _ in range(2))
    shares = []
    for better in (True, False, False, False, True, False):
        lr.observe(better)
        shares.append(lr.share(0))
    assert shares == [1, 1, 0.5, 0.5, 0.5, 0.5]
    resumed.state = lr.state
    resumed.observe(False)
    assert resumed.share(0) == 0.3
