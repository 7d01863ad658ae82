"""Additions to a plain autoencoder: penalties on the code, and corruption of the input."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.config import optimization as schemas
from vae_cli.vae.posteriors import Encode


class Coded(NamedTuple):
    """All that a penalty may look at."""

    x: Tensor  # [B, *shape], what the encoder sees
    code: Tensor  # [B, Z], its code: of a VAE the posterior mean
    encode: Encode
    decode: Callable[[Tensor], Tensor]  # z [B, Z] -> E[x|z] [B, *shape]
    decoder: nn.Module
    generator: torch.Generator | None = None  # for a penalty that draws


class Penalty(NamedTuple):
    """weight * term is added to the loss; the term is a mean over examples."""

    weight: float
    term: Callable[[Coded], Tensor]  # -> scalar


def no_penalty(config: schemas.NoPenaltyConfig) -> Penalty:
    """Add nothing."""
    return Penalty(0.0, lambda at: at.code.new_zeros(()))


def sparse(config: schemas.SparseConfig) -> Penalty:
    """Weigh the L1 norm of the code."""
    return Penalty(config.weight, absolute)


def contractive(config: schemas.ContractiveConfig) -> Penalty:
    """Weigh ||d code / d x||_F^2 (Rifai et al. 2011, equation 3)."""
    return Penalty(config.weight, encoder_slope)


def l2(config: schemas.L2Config) -> Penalty:
    """Weigh ||code||^2 / 2 and the decoder's parameters: RAE-L2 (Ghosh et al. 2020)."""
    return Penalty(1.0, lambda at: config.weight * norm(at) + config.decoder * decoder_norm(at))


def gradient(config: schemas.GradientConfig) -> Penalty:
    """Weigh ||d E[x|z] / d z||_F^2 at the code: the GP of RAE-GP (Ghosh et al. 2020)."""
    return Penalty(config.weight, decoder_slope)


def several(config: schemas.SeveralPenaltiesConfig) -> Penalty:
    """Add several terms, each with its weight."""
    weights = config.model_dump(include=set(TERMS)).items()
    used = [(weight, TERMS[name]) for name, weight in weights if weight]
    return Penalty(1.0, lambda at: torch.stack([w * term(at) for w, term in used]).sum())


def absolute(at: Coded) -> Tensor:
    """Compute the L1 norm of the code."""
    return at.code.abs().sum(-1).mean()


def norm(at: Coded) -> Tensor:
    """Compute half the square of the code's norm."""
    return 0.5 * at.code.square().sum(-1).mean()


def decoder_norm(at: Coded) -> Tensor:
    """Compute the sum of the squares of the decoder's parameters."""
    return torch.stack([p.square().sum() for p in at.decoder.parameters()]).sum()


def encoder_slope(at: Coded) -> Tensor:
    """Compute ||d code / d x||_F^2, exactly, by one backward pass a dimension of the code.

    It is the slope of a sum of codes over the batch, which must not depend on each other: BatchNorm
    takes its running statistics.
    """
    learning = torch.is_grad_enabled()
    with torch.enable_grad():
        x = at.x.detach().requires_grad_()
        code = at.encode(x).mean  # again, now with a path back to x
        total = code.new_zeros(len(x))
        for z_j in code.unbind(-1):
            (row,) = torch.autograd.grad(z_j.sum(), x, retain_graph=True, create_graph=learning)
            total = total + row.flatten(1).square().sum(1)
    return total.mean() if learning else total.mean().detach()


def decoder_slope(at: Coded) -> Tensor:
    """Estimate ||J||_F^2, J = d E[x|z] / d z at the code, without bias, by one backward pass.

    It is the mean of ||J^T v||^2 over v of N(0, I) (Hutchinson 1989). With BatchNorm a batch's
    examples depend on each other; the term then contains their influence on one another too.
    """
    learning = torch.is_grad_enabled()
    with torch.enable_grad():
        z = at.code if learning else at.code.detach().requires_grad_()
        decoded = at.decode(z)
        v = torch.randn(decoded.shape, generator=at.generator, device=z.device, dtype=z.dtype)
        (product,) = torch.autograd.grad(decoded, z, v, create_graph=learning)  # [B, Z]
    return product.square().sum(1).mean()


TERMS = {
    "sparse": absolute,
    "l2": norm,
    "decoder": decoder_norm,
    "contractive": encoder_slope,
    "gradient": decoder_slope,
}


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
