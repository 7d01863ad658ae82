"""Additions to a plain autoencoder: penalties on the code, and corruption of the input."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae_cli.config import losses as schemas
from vae_cli.vae.posteriors import Encode


class Penalty(NamedTuple):
    """weight * term is added to the loss; the term is a mean over examples."""

    weight: float
    term: Callable[[Encode, Tensor, Tensor], Tensor]  # encode, x [B, *shape], code [B, Z] -> scalar


def no_penalty(config: schemas.NoPenaltyConfig) -> Penalty:
    """Add nothing."""
    return Penalty(0.0, lambda encode, x, code: code.new_zeros(()))


def sparse(config: schemas.SparseConfig) -> Penalty:
    """Weigh the L1 norm of the code (of a VAE: of the posterior mean)."""
    return Penalty(config.weight, lambda encode, x, code: code.abs().sum(-1).mean())


def contractive(config: schemas.ContractiveConfig) -> Penalty:
    """Weigh ||d code / d x||_F^2 (Rifai et al. 2011, equation 3), exact.

    It costs one backward pass a dimension. With BatchNorm a batch's examples depend on each other;
    the term then contains their influence on one another too.
    """

    def term(encode: Encode, x: Tensor, code: Tensor) -> Tensor:
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            code = encode(x).mean  # again, now with a path back to x
            total = code.new_zeros(len(x))
            for z_j in code.unbind(-1):
                (row,) = torch.autograd.grad(z_j.sum(), x, retain_graph=True, create_graph=learning)
                total = total + row.flatten(1).square().sum(1)
        return total.mean() if learning else total.mean().detach()

    return Penalty(config.weight, term)


# x [B, *shape] -> what the encoder sees in its place, anew at every training step (Vincent et al.
# 2010). The target stays clean, and so does the input in evaluation, so that numbers compare.
Corruption = Callable[[Tensor, torch.Generator], Tensor]


def clean(config: schemas.NoCorruptionConfig) -> Corruption:
    """Change nothing."""
    return lambda x, generator: x


def gaussian_noise(config: schemas.GaussianNoiseConfig) -> Corruption:
    """Add normal noise of standard deviation sigma."""

    def corrupt(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + config.sigma * torch.randn(x.shape, generator=generator, device=x.device)

    return corrupt


def masking(config: schemas.MaskingConfig) -> Corruption:
    """Set each value to 0 with a probability."""

    def corrupt(x: Tensor, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(x.shape, generator=generator, device=x.device)
        return x * (uniform >= config.probability)

    return corrupt
