"""One update of the weights, from a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_cli.config import Config, OnNonfinite
from vae_cli.objectives import Weight
from vae_cli.randomness import derive
from vae_cli.state import TrainState


class Now(NamedTuple):
    """What the schedules say at a step. Scalars on the device."""

    beta: Tensor
    capacity: Tensor  # nats
    lr: Tensor


def train_step(
    state: TrainState,
    x: Tensor,
    noise_generator: torch.Generator,
    now: Now,
    config: Config,
    examples: int | None = None,
) -> dict[str, Tensor]:
    """One update from a batch x [B, *shape]. Returns its metrics, still on the device.

    examples: of a batch of so many, x holds only the rows of this process.

    Nothing here waits for the device or depends on a value there, so that it can be recorded as a
    CUDA graph.
    """
    vae, optimizer = state.vae, state.optimizer
    whole = len(x) if examples is None else examples
    noise = torch.randn(
        (vae.objective.num_samples, whole, vae.model.latent_dim),
        generator=noise_generator,
        device=x.device,
    )
    several, part = state.ranks.size > 1, 1.0
    if several:
        rows, part = state.ranks.share(whole)
        noise = noise[:, rows]
        if examples is not None:  # other rows than another process's: other corruption
            noise_generator.manual_seed(derive(config.seed, "rank", state.step, state.ranks.rank))
    seen = state.corruption(x, noise_generator)
    if several and examples is None:
        x, seen = x[rows], seen[rows]
    skipping = config.on_nonfinite is OnNonfinite.skip
    before = [buffer.clone() for buffer in vae.buffers()] if skipping else []
    terms = state.loss(x, noise, Weight(now.beta, now.capacity), seen)
    state.forget_gradients()
    # the gradients are averaged over the processes: each loss counts by its part of the batch
    loss = terms.loss * (part * state.ranks.size) if several else terms.loss
    loss.backward()
    norm = _clip(state.parameters, config.grad_clip)
    metrics = state.ranks.mean(terms.metrics, part) if several else terms.metrics
    metrics = metrics | {"grad_norm": norm}
    if skipping:
        broken = ~torch.stack(list(metrics.values())).isfinite().all()
        optimizer.found_inf = broken.float()  # type: ignore[attr-defined]
        for buffer, value in zip(vae.buffers(), before, strict=True):
            buffer.copy_(torch.where(broken, value, buffer))
    for group in optimizer.param_groups:
        group["lr"] = now.lr
    optimizer.step()
    if state.averaged is not None:
        state.averaged.update(first=state.step == 0)
    return metrics


def _clip(parameters: list[nn.Parameter], most: float | None) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `most` where it exceeds it."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = _norm(gradients)
    if most is not None:
        torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _norm(tensors: list[Tensor]) -> Tensor:
    """Of all of them as one vector."""
    if tensors[0].device.type == "cpu":  # here dot is twice as fast as any of torch's norms
        flat = [_in_memory_order(tensor) for tensor in tensors]
        return torch.stack([torch.dot(tensor, tensor) for tensor in flat]).sum().sqrt()
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm


def _in_memory_order(tensor: Tensor) -> Tensor:
    """All its entries as a vector; no copy where they lie dense, in channels_last too."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).flatten()
