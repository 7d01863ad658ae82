"""A trained run at hand: load its folder; encode, decode, sample, measure, walk through codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_cli import analysis, build, checkpoint, console
from vae_cli.checking import typed
from vae_cli.config import Config
from vae_cli.data.interface import Data
from vae_cli.errors import UserError
from vae_cli.evaluation import Codes, encode
from vae_cli.fitting import Fit, fit
from vae_cli.models.interface import Autoencoder
from vae_cli.posteriors import Posterior
from vae_cli.resuming import refuse_links_out, saved_config
from vae_cli.vae import VAE


class TrainedRun:
    """A run folder's model with its best weights, in evaluation mode, without gradients.

    folder: Path          config: the run's typed configuration
    shape:  of one example, [C, H, W] or [P]            epoch: that the weights come from
    vae:    networks, likelihood and objective          device: where it computes
    """

    def __init__(
        self, folder: Path, config: Config, vae: VAE, shape: tuple[int, ...], epoch: int
    ) -> None:
        self.folder = folder
        self.config = config
        self.vae = vae.eval().requires_grad_(False)
        self.shape = shape
        self.epoch = epoch

    @property
    def model(self) -> Autoencoder:
        """The networks alone."""
        return self.vae.model

    @property
    def device(self) -> torch.device:
        """Where the weights are and results come from."""
        return next(self.vae.parameters()).device

    @torch.no_grad()
    def encode(self, x: Any) -> Posterior:
        """q(z|x); its `.mean` is the code. x [B, *shape] -> posterior over [B, Z]."""
        return self.vae.encode(self._examples(x))

    @torch.no_grad()
    def decode(self, z: Any) -> Tensor:
        """E[x|z]. z [N, Z] -> [N, *shape]."""
        codes = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if codes.ndim != 2 or codes.shape[1] != self.model.latent_dim:
            raise ValueError(
                f"codes have shape {list(codes.shape)} and must be [N, {self.model.latent_dim}]"
            )
        return self.vae.mean(codes)

    @torch.no_grad()
    def reconstruct(self, x: Any) -> Tensor:
        """E[x|z] at the posterior mean. [B, *shape] -> [B, *shape]."""
        return self.vae.reconstruct(self._examples(x))

    @torch.no_grad()
    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """n draws from the prior, decoded. -> [n, *shape]. A seed makes them repeatable."""
        return self.vae.mean(self.draw_codes(n, seed))

    def draw_codes(self, n: int, seed: int | None = None) -> Tensor:
        """n draws from the prior N(0, I). -> [n, Z]. A seed makes them repeatable."""
        shape = (n, self.model.latent_dim)
        return torch.randn(shape, generator=_generator(self.device, seed), device=self.device)

    def interpolate(self, start: Any, end: Any, steps: int) -> Tensor:
        """The straight line between the codes of two examples, decoded. -> [steps, *shape].

        start, end [*shape]; the codes are posterior means.
        """
        first, last = self._examples(torch.stack([torch.as_tensor(start), torch.as_tensor(end)]))
        return analysis.interpolate(self.vae, first, last, steps)[1]

    def traverse(self, dims: Any, values: Any, origin: Any = None) -> Tensor:
        """One dimension of the code at a time, decoded. -> [D, S, *shape].

        dims: D of the latent dimensions; values [S] that each takes in turn; origin [Z]: the rest
        of the code (None: zeros, the mean of the prior).
        """
        chosen = torch.as_tensor(dims, dtype=torch.int64).reshape(-1)
        count = self.model.latent_dim
        if len(chosen) == 0 or not bool(((chosen >= 0) & (chosen < count)).all()):
            raise ValueError(f"dims={chosen.tolist()}: must be some of 0 to {count - 1}")
        by = torch.as_tensor(values, dtype=torch.float32, device=self.device)
        code = torch.zeros(count) if origin is None else torch.as_tensor(origin)
        if tuple(code.shape) != (count,):
            raise ValueError(f"origin has shape {list(code.shape)} and must be [{count}]")
        by = by.expand(len(chosen), -1)
        return analysis.traverse(self.vae, code.float().to(self.device), chosen, by)

    def embed(self, split: str = "test", seed: int | None = None) -> Codes:
        """The posteriors of a whole split (train, val or test), in order, on the CPU.

        seed: of a dynamic binarisation; None: the run's own.
        """
        data = self.data()
        splits = {"train": data.train, "val": data.val, "test": data.test}
        examples = splits.get(split)
        if examples is None:
            there = ", ".join(name for name, item in splits.items() if item is not None)
            raise ValueError(f"split={split!r}: the run has {there}")
        return encode(self.vae, data, examples, self.config.seed if seed is None else seed)

    def log_likelihood(self, x: Any, num_samples: int, seed: int | None = None) -> Tensor:
        """log p(x) by importance sampling (Burda et al. 2016). x [B, *shape] -> [B] float64, nats.

        num_samples: codes drawn for an example; the more, the tighter the lower bound.
        """
        source = _generator(self.device, seed)
        return analysis.log_likelihood(self.vae, self._examples(x), num_samples, source).values

    def fit(self, target: Any, num_starts: int, seed: int | None = None) -> Fit:
        """The code whose decoded example is nearest to target [*shape]; see `fitting.fit`."""
        wanted = self._examples(torch.as_tensor(target)[None])[0]
        if not bool(wanted.isfinite().all()):
            raise ValueError("the target holds NaN or infinite values")
        return fit(self.vae, wanted, num_starts, _generator(torch.device("cpu"), seed))

    def data(self) -> Data:
        """The dataset that the run was trained on, with the same splits."""
        return build.data(self.config).to(self.device)

    def __repr__(self) -> str:
        return (
            f"TrainedRun({str(self.folder)!r}: {self.config.model.name} on"
            f" {self.config.dataset.name}, epoch {self.epoch})"
        )

    def _examples(self, x: Any) -> Tensor:
        examples = torch.as_tensor(x, dtype=torch.float32, device=self.device)
        if tuple(examples.shape[1:]) != self.shape:
            raise ValueError(
                f"examples have shape {list(examples.shape)} and must be"
                f" [B, {', '.join(map(str, self.shape))}]"
            )
        return examples


def _generator(device: torch.device, seed: int | None) -> torch.Generator:
    """Seeded or, without a seed, from the system's entropy."""
    source = torch.Generator(device)
    if seed is None:
        source.seed()
    else:
        source.manual_seed(seed)
    return source


def load_run(folder: str | Path, device: str = "cpu") -> TrainedRun:
    """Load a run folder: its best weights or, of a run that has not ended, the newest there are.

    Raises UserError where the folder is not a run, holds no weights yet, or is damaged.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml")
    refuse_links_out(folder)
    config = typed(saved_config(folder))
    chosen = build.device(device)
    weights, about = _newest_weights(folder)
    try:
        shape, epoch = tuple(map(int, about["shape"])), int(about["epoch"])
        with torch.device("meta"):  # sizes are compared before anything of that size is allocated
            expected = build.vae(config, shape).state_dict()
        if {k: w.shape for k, w in weights.items()} != {k: w.shape for k, w in expected.items()}:
            raise ValueError("other names or shapes")
        vae = build.vae(config, shape)
        vae.load_state_dict(weights)
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder}: the weights do not fit the model that config.yaml describes"
        ) from error
    return TrainedRun(folder, config, vae.to(chosen), shape, epoch)


def _newest_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The best weights or, where their file is damaged, said in a line, the next best there are."""
    path, reason = folder / "model.safetensors", ""
    if path.exists():
        try:
            return checkpoint.load_weights(path)
        except checkpoint.Damaged as error:
            reason = str(error)
    checkpoints = folder / "checkpoints"
    if not any(checkpoints.glob("*.ckpt")):
        missing = f"{folder} holds no weights: neither model.safetensors nor a checkpoint"
        raise UserError(reason or missing)
    state, passed_over = checkpoint.load_best(checkpoints)
    for line in filter(None, (reason, passed_over)):
        console.say(f"warning: {line}")
    return state["vae"], state
