"""Terms on the code that are added to the objective: sparse and contractive autoencoders."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vae_cli.models.interface import Autoencoder
from vae_cli.schema.losses import ContractiveConfig, NoPenaltyConfig, SparseConfig


class Penalty(ABC):
    """weight * term, the term a mean over examples."""

    weight: float

    @abstractmethod
    def __call__(self, model: Autoencoder, x: Tensor, code: Tensor) -> Tensor:
        """The term before its weight. x [B, *shape], code [B, Z] = encode(x).mean -> scalar."""


class NoPenalty(Penalty):
    """Nothing is added."""

    def __init__(self, config: NoPenaltyConfig) -> None:
        self.weight = 0.0

    def __call__(self, model: Autoencoder, x: Tensor, code: Tensor) -> Tensor:
        return code.new_zeros(())


class Sparse(Penalty):
    """The L1 norm of the code (of a VAE: of the posterior mean)."""

    def __init__(self, config: SparseConfig) -> None:
        self.weight = config.weight

    def __call__(self, model: Autoencoder, x: Tensor, code: Tensor) -> Tensor:
        return code.abs().sum(-1).mean()


class Contractive(Penalty):
    """||d code / d x||_F^2 (Rifai et al. 2011, equation 3), exact: one backward pass a dimension.

    With BatchNorm a batch's examples depend on each other; the term then holds their influence on
    one another too.
    """

    def __init__(self, config: ContractiveConfig) -> None:
        self.weight = config.weight

    def __call__(self, model: Autoencoder, x: Tensor, code: Tensor) -> Tensor:
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            code = model.encode(x).mean  # again, now with a path back to x
            total = code.new_zeros(len(x))
            for dimension in code.unbind(-1):
                (row,) = torch.autograd.grad(
                    dimension.sum(), x, retain_graph=True, create_graph=learning
                )
                total = total + row.flatten(1).square().sum(1)
        return total.mean() if learning else total.mean().detach()
