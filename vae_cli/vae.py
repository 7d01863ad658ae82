"""Networks, likelihood and objective as one module: the computation of a whole training loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from vae_cli.likelihoods import Likelihood
from vae_cli.models.interface import Autoencoder
from vae_cli.objectives import Objective, Terms, Weight
from vae_cli.penalties import Penalty
from vae_cli.posteriors import Posterior


class VAE(nn.Module):
    """An autoencoder with the meaning of its output and the rule for its loss.

    The networks may run in bfloat16; densities, KL and loss are always computed in float32.
    """

    def __init__(
        self,
        model: Autoencoder,
        likelihood: Likelihood,
        objective: Objective,
        penalty: Penalty,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = model
        self.likelihood = likelihood
        self.objective = objective
        self.penalty = penalty
        self.precision = precision

    def forward(
        self, x: Tensor, noise: Tensor, weight: Weight, seen: Tensor | None = None
    ) -> Terms:
        """The loss and its terms.

        x [B, *shape], noise [K, B, Z] standard normal. seen: what the encoder gets instead of x
        (denoising), of the same shape.
        """
        seen = x if seen is None else seen
        return self.terms(self.encode(seen), x, noise, weight, seen)

    def terms(
        self, posterior: Posterior, x: Tensor, noise: Tensor, weight: Weight, seen: Tensor
    ) -> Terms:
        """The same, from a batch that has been encoded."""
        z = posterior.sample(noise)  # [K, B, Z]
        log_likelihood = self.likelihood.log_prob(x, self.decode(z))  # [K, B]
        loss, metrics = self.objective(posterior, z, log_likelihood, weight)
        if self.penalty.weight:
            term = self.penalty(self.model, seen, posterior.mean)
            loss = loss + self.penalty.weight * term
            metrics = metrics | {"loss": loss.detach(), "penalty": term.detach()}
        return Terms(loss, metrics)

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x). x [B, *shape]."""
        with self._autocast(x.device):
            return self.model.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Raw likelihood parameters in float32. z [K, B, Z] -> [K, B, *shape]."""
        with self._autocast(z.device):
            params = self.model.decode(z.flatten(0, 1))
        separate: Tensor = params.float().unflatten(0, z.shape[:2])
        return separate

    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x|z] at the posterior mean. [B, *shape] -> [B, *shape]."""
        return self.mean(self.encode(x).mean)

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z]. z [N, Z] -> [N, *shape]."""
        return self.likelihood.mean(self.decode(z[None]))[0]

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.precision is torch.float32:
            return nullcontext()
        return torch.autocast(device.type, self.precision)
