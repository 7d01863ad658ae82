"""The networks: an encoder to a raw code and a decoder to a raw output."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.config.networks import ConvConfig, MLPConfig, ModelConfig
from vae_cli.console import UserError
from vae_cli.models.kernels import Linear, linear

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}


class Autoencoder(nn.Module):
    """An encoder and a decoder, and nothing else: no distribution, no loss, no randomness.

    A head in `vae/posteriors.py` gives the raw code its meaning, and so decides how wide it is: a
    VAE and a plain autoencoder can have equal networks. A subclass sets `encoder` and `decoder`.
    """

    encoder: nn.Module
    decoder: nn.Module
    positions = 1  # of the code, where it is an image

    def __init__(
        self, config: ModelConfig, shape: tuple[int, ...], code_width: int, classes: int = 0
    ) -> None:
        """shape: of one example, [C, H, W] or [P]. code_width: width of the encoder's output.

        classes: both networks get the label of an example too, one of so many; 0: they do not.
        """
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dim = config.latent_dim

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the raw code. x [B, *shape], labels [B] int64 -> [B, code_width]."""
        code: Tensor = self.encoder(self._with_labels(x, labels))
        return code

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the raw parameters of p(x|z), no sigmoid. z [N, Z] -> [N, *shape].

        Of a code that is longer than latent_dim only the first dimensions count.
        """
        code = z[:, : self.latent_dim]
        output: Tensor = self.decoder(self._with_labels(code, labels, self.positions))
        return output

    def _with_labels(self, values: Tensor, labels: Tensor | None, positions: int = 1) -> Tensor:
        """Put one-hot labels behind the values: numbers [B, P], or channels of [B, C, H, W].

        positions: each digit of a label stands so often, as a channel of a flat code of positions.
        """
        if labels is None or not self.classes:
            return values
        planes = F.one_hot(labels, self.classes).to(values.dtype)
        planes = planes.repeat_interleave(positions, 1)
        planes = planes.view(*planes.shape, *(1 for _ in values.shape[2:]))
        return torch.cat([values, planes.expand(-1, -1, *values.shape[2:])], 1)

    def draw_glorot(self) -> None:
        """Draw the weights of all layers uniformly, as Glorot & Bengio 2010 (eq. 16); biases 0."""
        for layer in self.modules():
            weight, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
            if isinstance(weight, Tensor) and weight.ndim > 1:  # a scale, of BatchNorm, has one
                nn.init.xavier_uniform_(weight)
                if bias is not None:
                    nn.init.zeros_(bias)

    def output_bias(self) -> Tensor:
        """Return the bias of the decoder's last layer: one for each value, or for each channel."""
        biases = [b for name, b in self.decoder.named_parameters() if name.endswith("bias")]
        return biases[-1]

    def smallest_batch(self) -> int:
        """Return how many examples a training batch must have."""
        return 1


class MLP(Autoencoder):
    """x -> hidden_sizes -> code, and the mirror image back (Kingma & Welling 2014, appendix C)."""

    def __init__(
        self, config: MLPConfig, shape: tuple[int, ...], code_width: int, classes: int = 0
    ) -> None:
        super().__init__(config, shape, code_width, classes)
        size, widths = math.prod(shape), config.hidden_sizes
        activation = ACTIVATIONS[config.activation]
        self.encoder = layers([size + classes, *widths], code_width, activation)
        back = layers([config.latent_dim + classes, *reversed(widths)], size, activation)
        self.decoder = back.append(nn.Unflatten(1, shape))

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().encode(x.flatten(1), labels)


def layers(widths: list[int], last: int, activation: type[nn.Module]) -> nn.Sequential:
    """Stack linear layers with activations through `widths`, then one linear layer to `last`."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [Linear(before, after), activation()]
    return nn.Sequential(*layers, Linear(widths[-1], last))


class Conv(Autoencoder):
    """Stride-2 convolutions down to a linear layer; mirrored transposed convolutions back up.

    Each convolution halves height and width, rounding up; the decoder goes back through the
    encoder's sizes, so every input size (odd ones too) comes out exactly.
    """

    def __init__(
        self, config: ConvConfig, shape: tuple[int, ...], code_width: int, classes: int = 0
    ) -> None:
        super().__init__(config, shape, code_width, classes)
        activation, widths = ACTIVATIONS[config.activation], config.channels
        channels, height, width = shape
        sizes = [(height, width)]  # before each convolution, and after the last
        for _ in widths:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            sizes.append((height, width))
        self.bottleneck = (widths[-1], *sizes[-1])  # the smallest image, [C, H, W]
        features = math.prod(self.bottleneck)

        place, positions = sizes[-1], math.prod(sizes[-1]) if config.spatial else 0
        if positions and (code_width % positions or self.latent_dim % positions):
            raise UserError(
                f"model.spatial=true: the code has {place[0]}x{place[1]} positions, among which"
                f" {self.latent_dim} latent dimensions from {code_width} numbers of the encoder do"
                f" not divide; take a model.latent_dim such as {8 * positions}"
            )

        down: list[nn.Module] = []
        for (before, after), size in zip(
            pairwise([channels + classes, *widths]), sizes, strict=False
        ):
            down += [Down(before, after, size), nn.BatchNorm2d(after), activation()]
        if positions:  # in the code, the numbers of a channel follow each other
            down += [nn.Conv2d(widths[-1], code_width // positions, 1), nn.Flatten()]
        else:
            down += [nn.Flatten(), Linear(features, code_width)]
        self.encoder = nn.Sequential(*down)

        up: list[nn.Module]
        if positions:
            self.positions = positions
            image = (self.latent_dim // positions + classes, *place)
            up = [nn.Unflatten(1, image), nn.Conv2d(image[0], widths[-1], 1)]
        else:
            first = Linear(self.latent_dim + classes, features)
            up = [first, nn.Unflatten(1, self.bottleneck)]
        mirrored = [*reversed(widths), widths[0]]
        for (before, after), size in zip(pairwise(mirrored), reversed(sizes[:-1]), strict=True):
            up += [Up(before, after, size), nn.BatchNorm2d(after), activation()]
        self.decoder = nn.Sequential(*up, Last(widths[0], channels))
        # images lie in memory pixel by pixel, which every kernel here is fastest with
        self.to(memory_format=torch.channels_last)

    def smallest_batch(self) -> int:
        """Return 2 where BatchNorm meets a single pixel, of which one example has no variance."""
        return 2 if math.prod(self.bottleneck[1:]) == 1 else 1


# The three convolutions below have the parameters and the results of torch's own, and compute them
# as matrix products where these are faster on a CPU. BatchNorm follows Down and Up, so a bias
# there would have no effect.


class Down(nn.Conv2d):
    """Halves an image of `size`, rounding up. A 3x3 convolution with stride 2.

    An image that becomes a single pixel meets only the taps that lie on it: one matrix product.
    """

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        super().__init__(before, after, 3, stride=2, padding=1, bias=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if max(self.size) > 2:
            return super().forward(x)
        height, width = self.size
        taps = _by_pixel(self.weight[:, :, 1 : 1 + height, 1 : 1 + width])
        return linear(_by_pixel(x).flatten(1), taps.flatten(1))[:, :, None, None]


class Up(nn.ConvTranspose2d):
    """Undoes `Down` to exactly `size`: without output padding n pixels become 2n - 1."""

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        extra = (1 - size[0] % 2, 1 - size[1] % 2)
        super().__init__(before, after, 3, stride=2, padding=1, output_padding=extra, bias=False)
        self.size = size

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if max(self.size) > 2:
            return super().forward(x, output_size)
        height, width = self.size
        taps = _by_pixel(self.weight[:, :, 1 : 1 + height, 1 : 1 + width])
        pixels = linear(x.flatten(1), taps.flatten(1).t()).unflatten(1, taps.shape[1:])
        image: Tensor = pixels.permute(0, 3, 1, 2)
        return image


class Last(nn.Conv2d):
    """Makes the image, of few channels. A 3x3 convolution.

    One matrix product gives each pixel's nine contributions; `fold` adds them where they belong.
    """

    def __init__(self, before: int, channels: int) -> None:
        super().__init__(before, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        # a pixel contributes where its tap points from: to the kernel, turned around
        taps = _by_pixel(self.weight.flip(2, 3)).flatten(0, 2)  # [channels * 9, before]
        pixels = _by_pixel(x).flatten(1, 2)  # [B, H * W, before]
        parts = linear(pixels.flatten(0, 1), taps).unflatten(0, pixels.shape[:2])
        image: Tensor = F.fold(parts.transpose(1, 2), x.shape[2:], 3, padding=1)
        return image + self.bias[:, None, None]


def _by_pixel(x: Tensor) -> Tensor:
    """View [N, C, H, W] as [N, H, W, C]; channels_last images need no copy then."""
    return x.permute(0, 2, 3, 1)
