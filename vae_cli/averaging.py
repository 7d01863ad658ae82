"""A running average of the weights (`ema`)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class Averaged:
    """average <- decay average + (1 - decay) weights after every update (Polyak & Juditsky 1992).

    Buffers (BatchNorm's statistics) are running averages already and are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = deepcopy(module).requires_grad_(False)
        self._average = [parameter.data for parameter in self.module.parameters()]
        self._weights = [parameter.detach() for parameter in module.parameters()]
        self._statistics = list(zip(self.module.buffers(), module.buffers(), strict=True))

    @torch.no_grad()
    def update(self, first: bool) -> None:
        """After an update of the weights; the first makes the average equal to them."""
        torch._foreach_lerp_(self._average, self._weights, 1.0 if first else 1 - self.decay)
        for average, newest in self._statistics:
            average.copy_(newest)
