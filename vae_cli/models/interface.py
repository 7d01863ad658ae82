"""What every model is: an encoder to a posterior and a decoder to raw likelihood parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vae_cli.posteriors import DiagonalGaussian, Point, Posterior
from vae_cli.schema.models import Activation, ModelConfig
from vae_cli.schema.models import Posterior as PosteriorKind

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.relu: nn.ReLU,
    Activation.leaky_relu: nn.LeakyReLU,
    Activation.elu: nn.ELU,
    Activation.gelu: nn.GELU,
    Activation.silu: nn.SiLU,
    Activation.tanh: nn.Tanh,
    Activation.softplus: nn.Softplus,
}


class Autoencoder(nn.Module, ABC):
    """Networks only: no loss, no sampling, no I/O.

    A variational and a plain autoencoder are the same network; they differ in the width of the
    encoder's last layer and in what it means (`posterior`).
    """

    def __init__(self, config: ModelConfig, shape: tuple[int, ...]) -> None:
        """shape: of one example, [C, H, W] or [P]."""
        super().__init__()
        self.shape = shape
        self.latent_dim = config.latent_dim
        self.posterior_kind = config.posterior

    @property
    def code_width(self) -> int:
        """Width of the encoder's output: mean and log-variance, or the code alone."""
        gaussian = self.posterior_kind is PosteriorKind.gaussian
        return 2 * self.latent_dim if gaussian else self.latent_dim

    def posterior(self, code: Tensor) -> Posterior:
        """The encoder's raw output as a distribution. [B, code_width] -> Posterior."""
        code = code.float()  # densities in float32 whatever the networks' precision
        if self.posterior_kind is PosteriorKind.point:
            return Point(code)
        mean, log_var = code.chunk(2, dim=-1)
        return DiagonalGaussian(mean, log_var)

    @abstractmethod
    def encode(self, x: Tensor) -> Posterior:
        """q(z|x). x [B, *shape]."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Raw parameters of p(x|z), no sigmoid. z [N, Z] -> [N, *shape]."""
