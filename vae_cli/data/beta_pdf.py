"""Curves of the Beta(a, b) density: a two-parameter family that a two-number code should find."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vae_cli.data.interface import Curves, Data, Split, carve_validation
from vae_cli.schema.datasets import BetaPDFConfig, Quantity


def load(config: BetaPDFConfig, data_dir: Path) -> Data:
    """Make the curves; the test set comes from a seed of its own."""
    grid = torch.linspace(config.x_min, config.x_max, config.num_points)
    everything = _draw(config, grid, config.num_curves, config.seed)
    train, val = carve_validation(everything, config.val_size, config.name)
    return Data(
        name=config.name,
        train=train,
        val=val,
        test=_draw(config, grid, config.test_size, config.test_seed),
        curves=Curves(
            grid,
            x_label="x",
            y_label="Beta(x; a, b)",
            logarithms=config.quantity is Quantity.log_density,
        ),
    )


def curves(a: Tensor, b: Tensor, grid: Tensor, quantity: Quantity) -> Tensor:
    """(Log-)densities of Beta(a, b). a, b [N], grid [P] -> [N, P]."""
    log_density: Tensor = torch.distributions.Beta(a[:, None], b[:, None]).log_prob(grid)
    return log_density if quantity is Quantity.log_density else log_density.exp()


def _draw(config: BetaPDFConfig, grid: Tensor, count: int, seed: int) -> Split:
    # rand on (0, 1) scaled up: the same numbers, in the same order, as drawing a and b in turn from
    # Uniform(0, max_parameter) after torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    ab = torch.rand((count, 2), generator=generator) * config.max_parameter
    a, b = ab.clamp_min(1e-6).unbind(1)  # rand can return 0, where the density is undefined
    return Split(curves(a, b, grid, config.quantity), parameters={"a": a, "b": b})
