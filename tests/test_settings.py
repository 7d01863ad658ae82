"""A setting changes the training beside every choice of the other groups, or it is refused."""

from collections.abc import Iterator
from functools import cache
from itertools import count, islice, zip_longest
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from vae_cli.config.check import typed
from vae_cli.config.compose import plain_settings
from vae_cli.config.registry import SCHEMAS
from vae_cli.config.settings import Config
from vae_cli.console import UserError
from vae_cli.data.dataset import Data
from vae_cli.training.build import load_data
from vae_cli.training.evaluation import evaluate
from vae_cli.training.state import TrainState
from vae_cli.training.step import Now, train_step

from .test_contract import CHOICES, DATA

SMALL = ("model.latent_dim=4", "epochs=12")  # 24 steps: every schedule's default comes to its end
WIDTHS = {"mlp": "model.hidden_sizes=[9]", "conv": "model.channels=[4,8]"}
TOP = {"beta": 1.0, "ema": None, "grad_clip": None}  # settings without a group that change numbers
# beta of an autoencoder is warned of: test_a_beta_without_effect_is_said
WARNED = {(*("", "beta"), *pair) for pair in [("model", "ae"), ("model", "conv_ae")]}
WARNED |= {("", "beta", "posterior", name) for name in ("point", "vq", "fsq")}

Settings = dict[str, Any]


@cache
def chosen(group: str, choice: str) -> Settings:
    """All plain settings where one choice is made."""
    words = [f"{group}={choice}"] if group else []
    kind = "conv" if choice.startswith("conv") else "mlp"
    return plain_settings("config", [*DATA, *SMALL, *words, WIDTHS[kind]])


def together(group: str, choice: str, other: str, second: str) -> Settings:
    """All plain settings where two choices are made, with what each brings along."""
    base = chosen("", "")
    changes = {k: v for k, v in chosen(other, second).items() if v != base[k]}
    own = {k: v for k, v in chosen(group, choice).items() if v != base[k]}
    return base | changes | own | ({other: changes[other]} if other in changes else {})


def others(setting: Any, annotation: Any) -> Iterator[Any]:
    """Other values that a setting may have."""
    if get_origin(annotation) is Literal:
        yield from (value for value in get_args(annotation) if value != setting)
    elif isinstance(setting, bool):
        yield not setting
    elif isinstance(setting, int | float):
        kind = type(setting)
        # 5 divides the number of codes of iwae
        yield from (kind(value) for value in (2 * setting, setting / 2, 0.8, 0.25, 2, 1, 5))
    elif isinstance(setting, list):
        yield [value + 1 for value in setting]
    else:
        yield from (2, 0.25)


def settings_of(group: str, choice: str) -> dict[str, tuple[Any, Any]]:
    """Name, value and type of each setting of a choice."""
    if not group:
        fields, node = {name: Config.model_fields[name] for name in TOP}, chosen("", "")
    else:
        fields, node = SCHEMAS[group, choice].model_fields, chosen(group, choice)[group]
    names = (name for name in fields if name != "name")
    return {name: (node[name], fields[name].annotation) for name in names}


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(typed(chosen("", "")))


def numbers(config: Config, data: Data) -> Iterator[float]:
    """What three updates, a validation and the learning rate of every step give.

    Raises UserError before the first of them for what is refused with the data at hand.
    """
    state, noise = TrainState(config, data, torch.device("cpu")), torch.Generator().manual_seed(0)
    yield from (state.schedules(step)[2] for step in range(24))
    labels = data.train.labels[:15]
    for step in (0, 9, 17):
        state.step = step
        now = Now(*torch.tensor(state.schedules(step)))
        x = data.prepare(data.train.x[:15], noise)
        metrics = train_step(state, state.vae, x, noise, now, config, labels)
        yield from map(float, metrics.values())
    beta, capacity, _ = state.schedules(state.step)
    # one batch, whose noise is equal in whatever batches a loss is measured
    batch = data.train.take(torch.arange(15))
    yield from evaluate(state.measured, data, batch, beta, 0, capacity).metrics.values()
    for _ in range(100 if config.scheduler.name == "plateau" else 0):
        state.lr.observe(False)
        yield state.schedules(0)[2]


def changed(settings: Settings, group: str, name: str, another: Any) -> Settings:
    """The nodes in which a setting has another value, as the YAML files refer to each other."""
    if not group:
        return {name: another}
    linked = {"posterior", "prior"} if name == "categories" else {group}
    nodes = {key: settings[key] for key in linked if name in settings[key]}
    return {key: node | {name: another} for key, node in nodes.items()}


class Remembered:
    """Numbers that are computed when they are first looked at."""

    def __init__(self, source: Iterator[float]) -> None:
        self.source, self.known = source, [next(source)]

    def __iter__(self) -> Iterator[float]:
        for place in count():
            if place == len(self.known):
                self.known += islice(self.source, 1)
            if place == len(self.known):
                return
            yield self.known[place]


def effect(before: Remembered, settings: Settings, data: Data) -> bool | None:
    """Whether settings give other numbers than `before`, found at the first; None: refused."""
    try:
        pairs = zip_longest(before, numbers(typed(settings), data))
        return any(a != b and not (a != a and b != b) for a, b in pairs)  # NaN equals NaN
    except UserError:
        return None


PAIRS = [
    (group, choice, other)
    for group, choices in [("", [""]), *CHOICES.items()]
    for choice in choices
    for other in CHOICES
    if other != group and settings_of(group, choice)
]


@pytest.mark.parametrize(("group", "choice", "other"), PAIRS)
def test_a_setting_changes_the_numbers_or_is_refused(data, group, choice, other):
    effective, tried = set(), False  # prior=uniform alone goes with no other group's choices
    for second in CHOICES[other]:
        settings = together(group, choice, other, second)
        try:
            before = Remembered(numbers(typed(settings), data))
        except UserError:
            continue
        tried = True
        for name, (value, annotation) in settings_of(group, choice).items():
            values = (another for another in others(value, annotation) if another != value)
            found = set()  # the values are tried until one has an effect
            for another in values:
                found.add(effect(before, settings | changed(settings, group, name, another), data))
                if True in found:
                    effective.add(name)
                    break
            if True not in found and (group, name, other, second) not in WARNED:
                line = f"{group}={choice}: {name} has no effect with {other}={second}"
                assert found == {None}, line
    assert not tried or effective == settings_of(group, choice).keys()
