"""Every posterior, prior, objective and likelihood with every other: it trains, or is refused."""

import io
import math
from contextlib import suppress
from itertools import product

import pytest
import torch

from vae_cli.config.check import typed
from vae_cli.config.settings import Config
from vae_cli.console import UserError
from vae_cli.data.dataset import Data
from vae_cli.training.build import load_data
from vae_cli.training.state import TrainState
from vae_cli.training.step import Now, train_step

from .test_contract import CHOICES
from .test_settings import chosen

LIKELIHOODS = CHOICES["likelihood"]
GROUPS = ("posterior", "prior", "objective", "likelihood")


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(typed(chosen("", "")))


def test_every_choice_is_part_of_a_combination_that_trains():
    trained = set()
    for choices in product(*([(group, c) for c in CHOICES[group]] for group in GROUPS[:3])):
        nodes = {group: chosen(group, choice)[group] for group, choice in choices}
        with suppress(UserError):
            typed(chosen("", "") | nodes)
            trained |= {*choices}
    assert trained == {(group, c) for group in GROUPS[:3] for c in CHOICES[group]}


@pytest.mark.parametrize(
    ("posterior", "prior"), list(product(CHOICES["posterior"], CHOICES["prior"]))
)
def test_a_combination_trains_and_goes_on_exactly_or_is_refused(data, posterior, prior):
    for objective, likelihood in product(CHOICES["objective"], CHOICES["likelihood"]):
        choices = dict(zip(GROUPS, (posterior, prior, objective, likelihood), strict=True))
        nodes = {group: chosen(group, choice)[group] for group, choice in choices.items()}
        try:
            config = typed(chosen("", "") | nodes)
        except UserError as error:
            line = str(error)
            assert "\n" not in line
            assert any(f"{g}={c}" in line or f"{g}." in line for g, c in choices.items()), line
            continue
        state = TrainState(config, data, torch.device("cpu"))
        now = Now(*torch.tensor(state.schedules(20)))

        def step(state: TrainState, config: Config = config, now: Now = now) -> list[float]:
            noise = torch.Generator().manual_seed(state.step)
            x = data.prepare(data.train.x[:15], noise)
            metrics = train_step(state, state.vae, x, noise, now, config)
            state.step += 1
            return [float(number) for number in metrics.values()]

        assert all(map(math.isfinite, step(state))), choices
        if likelihood != LIKELIHOODS[len(objective) % len(LIKELIHOODS)]:
            continue  # test_contract takes each likelihood up again from its state
        other = TrainState(config, data, torch.device("cpu"))
        file = io.BytesIO()
        torch.save(state.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert step(other) == step(state), choices
