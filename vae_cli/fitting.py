"""The code whose decoded example is nearest to a target: least squares through the decoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import least_squares, minimize
from torch import Tensor

from vae_cli.evaluation import evaluating
from vae_cli.vae import VAE

ADAM_STEPS = 500
ADAM_LR = 0.05  # falls to 0 along a half cosine
POLISHED = 8  # of the best starts, by Levenberg-Marquardt
TIGHT = 1e-12  # relative tolerances of the polish
FLOAT64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """A code and how far what it decodes to is from the target."""

    code: Tensor  # [Z]
    decoded: Tensor  # [*shape] E[x|z]
    residual_norm: float  # ||target - decoded||_2 in the data's own units


@dataclass(frozen=True)
class Fit:
    """The nearest code found, and what each of two searches found. All on the CPU, float64."""

    gradient: Match  # many starts, Adam, then Levenberg-Marquardt
    nelder_mead: Match  # from the origin, without gradients

    @property
    def best(self) -> Match:
        """The nearer of the two."""
        return min(self.gradient, self.nelder_mead, key=lambda match: match.residual_norm)


def fit(vae: VAE, target: Tensor, num_starts: int, source: torch.Generator) -> Fit:
    """Find the z that minimises ||target - E[x|z]||_2. target [*shape], source on the CPU.

    Two searches in float64 on the CPU: Nelder-Mead from the origin (scipy's own settings), and Adam
    on `num_starts` codes at once (the target's own posterior mean, the origin, and draws from the
    prior), whose best are polished by Levenberg-Marquardt and the very best by Nelder-Mead again,
    for a network of ReLUs has kinks where the gradient does not tell.
    """
    double = copy.deepcopy(vae).cpu()
    with evaluating(double), torch.no_grad():
        encoded = double.encode(target.cpu().float()[None]).mean.double()  # [1, Z]
    double.double().requires_grad_(False)
    wanted = target.detach().cpu().double()

    def decode(z: Tensor) -> Tensor:
        """[N, Z] -> [N, *shape], in float64 (VAE.decode returns float32)."""
        return double.likelihood.mean(double.model.decode(z)[None])[0]

    def match(z: FLOAT64) -> Match:
        code = torch.from_numpy(np.array(z))
        decoded = decode(code[None])[0]
        return Match(code, decoded, float((wanted - decoded).norm()))

    with evaluating(double), _one_thread():
        origin = torch.zeros_like(encoded)
        draws = torch.randn(
            (max(0, num_starts - 2), encoded.shape[1]), generator=source, dtype=torch.float64
        )
        starts = torch.cat([encoded, origin, draws])
        descended = _adam(lambda z: (decode(z) - wanted).flatten(1), starts)
        residual = _numpy(lambda z: (decode(z[None])[0] - wanted).flatten())
        jacobian = _numpy(torch.func.jacrev(lambda z: (decode(z[None])[0] - wanted).flatten()))
        # MINPACK's Levenberg-Marquardt wants no fewer data than unknowns
        method = "lm" if wanted.numel() >= encoded.numel() else "trf"
        polished = [
            least_squares(
                residual, z, jacobian, method=method, xtol=TIGHT, ftol=TIGHT, gtol=TIGHT
            ).x
            for z in descended[:POLISHED].numpy()
        ]
        found = min(map(match, polished), key=lambda m: m.residual_norm)

        def distance(z: FLOAT64) -> float:
            return float(np.linalg.norm(residual(z)))

        tight: Any = {"xatol": 1e-9, "fatol": TIGHT}
        again = minimize(distance, found.code.numpy(), method="Nelder-Mead", options=tight)
        gradient = min(found, match(again.x), key=lambda m: m.residual_norm)
        plain = minimize(distance, origin[0].numpy(), method="Nelder-Mead")
        return Fit(gradient, match(plain.x))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The products are so small that threads only wait for each other (forty times slower on a
    machine that has other work)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _adam(residuals: Callable[[Tensor], Tensor], starts: Tensor) -> Tensor:
    """Descend from all starts at once. [S, Z] -> the best code on each way, nearest first.

    residuals: [S, Z] -> [S, P]. The starts do not mix: the loss is a sum over them.
    """
    z = starts.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=ADAM_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ADAM_STEPS)
    best, best_norm = starts.clone(), torch.full((len(starts),), torch.inf, dtype=starts.dtype)
    for _ in range(ADAM_STEPS):
        norms = residuals(z).norm(dim=1)  # [S]
        with torch.no_grad():
            better = norms < best_norm
            best[better], best_norm[better] = z[better], norms[better]
        optimizer.zero_grad()
        norms.sum().backward()
        optimizer.step()
        schedule.step()
    return best[best_norm.argsort()]


def _numpy(function: Callable[[Tensor], Tensor]) -> Callable[[FLOAT64], FLOAT64]:
    """The same function between arrays."""

    def call(z: FLOAT64) -> FLOAT64:
        result: FLOAT64 = function(torch.from_numpy(z)).detach().numpy()
        return result

    return call
