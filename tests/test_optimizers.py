from copy import deepcopy

import pytest
import torch

from vae_cli.optimizers import Adam

SHAPES = [(40, 30), (40,), (3, 4, 3, 3)]
SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def give_gradients(*groups: list[torch.nn.Parameter]) -> None:
    for same in zip(*groups, strict=True):
        gradient = torch.randn_like(same[0])
        for parameter in same:
            parameter.grad = gradient.clone()


@pytest.mark.parametrize("decoupled", [False, True])
def test_steps_are_those_of_torch_also_after_loading(decoupled):
    mine, theirs = parameters(), parameters()
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer, reference = Adam(mine, decoupled, **SETTINGS), kind(theirs, **SETTINGS)
    for step in range(6):
        if step == 3:  # its state is torch's, in both directions
            saved = optimizer.state_dict()
            optimizer = Adam(mine, decoupled, **SETTINGS)
            optimizer.load_state_dict(saved)
            reference.load_state_dict(deepcopy(saved))
        give_gradients(mine, theirs)
        for either in (optimizer, reference):
            either.param_groups[0]["lr"] = torch.tensor(1e-2 / (step + 1)) if step else 1e-2
        optimizer.step()
        reference.param_groups[0]["lr"] = float(reference.param_groups[0]["lr"])
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
