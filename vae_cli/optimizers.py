"""Adam and AdamW in one call: torch's fused kernel without the bookkeeping around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Adam(torch.optim.Adam):
    """torch's Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), the same numbers.

    torch's own step gathers its lists of tensors anew every time, which costs a small network as
    much as the update. Here they are made once, and one count of the steps serves all parameters.
    Every parameter must have a gradient. The learning rate may be a tensor on the device; nothing
    waits for it, so a CUDA graph can hold the step.
    """

    def __init__(self, params: Iterable[nn.Parameter], decoupled: bool, **settings: Any) -> None:
        """decoupled: AdamW's weight decay. settings: lr, betas, eps, weight_decay."""
        super().__init__(params, fused=True, **settings)
        self.found_inf: Tensor | None = None
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        (group,) = self.param_groups
        self.parameters: list[nn.Parameter] = group["params"]
        self.weights = [parameter.data for parameter in self.parameters]
        for parameter in self.parameters:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        self._gather()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; none where `found_inf`, a scalar on the device, has been set and is 1."""
        found_inf = self.found_inf
        (group,) = self.param_groups
        beta1, beta2 = group["betas"]
        self.count.add_(1)
        self.kernel(
            self.weights,
            [parameter.grad for parameter in self.parameters],  # type: ignore[misc]
            self.means,
            self.squares,
            [],
            self.counts,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=found_inf,
        )
        if found_inf is not None:
            self.count.sub_(found_inf)

    def state_dict(self) -> dict[str, Any]:
        """As torch's own, which wants a count of its own for each parameter."""
        saved = super().state_dict()
        states = {key: {**s, "step": s["step"].clone()} for key, s in saved["state"].items()}
        return {**saved, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state of this class or of torch's."""
        super().load_state_dict(state_dict)
        self._gather()

    def _gather(self) -> None:
        states = [self.state[parameter] for parameter in self.parameters]
        self.count: Tensor = states[0]["step"]
        for state in states:
            state["step"] = self.count
        self.counts = [self.count] * len(states)
        self.means = [state["exp_avg"] for state in states]
        self.squares = [state["exp_avg_sq"] for state in states]
