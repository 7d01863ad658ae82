"""The networks that the peers train: plain torch, with the layers of `vae-train`'s networks."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.workloads import Work

EVALUATION_BATCH = 250  # vae-train's, so that BatchNorm and noise see the same batches


class Network(nn.Module):
    """Encoder to mean and log-variance, decoder to logits."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        make = {"mlp": _mlp, "conv": _conv}[work.model]
        self.encoder, self.decoder = make(work)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x [B, C, H, W] to mean and log-variance, each [B, Z]."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Map z [B, Z] to logits [B, C, H, W]."""
        logits: Tensor = self.decoder(z)
        return logits


def kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(q || N(0, I)) in nats, summed over the batch. [B, Z] twice -> scalar."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum()


@torch.no_grad()
def test_elbo(network: Network, images: Tensor) -> float:
    """Return the mean ELBO in nats of images [N, C, H, W] uint8, as vae-train measures it."""
    network.eval()
    noise = torch.Generator().manual_seed(0)
    total = 0.0
    for raw in images.split(EVALUATION_BATCH):
        mean, log_var = network.encode(raw.float().div(255))
        z = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=noise)
        x = raw.float().div(255)
        loss = F.binary_cross_entropy_with_logits(network.decode(z), x, reduction="sum")
        total -= float(loss + kl(mean, log_var))
    return total / len(images)


def _mlp(work: Work) -> tuple[nn.Module, nn.Module]:
    pixels = math.prod(work.shape)
    down, up = [pixels, *work.widths], [work.latent_dim, *reversed(work.widths)]
    encoder = [nn.Flatten(), *_layers(down), nn.Linear(down[-1], 2 * work.latent_dim)]
    decoder = [*_layers(up), nn.Linear(up[-1], pixels), nn.Unflatten(1, work.shape)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _layers(widths: list[int]) -> list[nn.Module]:
    return [
        layer for wide, narrow in pairwise(widths) for layer in (nn.Linear(wide, narrow), nn.ReLU())
    ]


def conv_sizes(work: Work) -> list[tuple[int, int]]:
    """Return height and width before each stride-2 convolution, and after the last one."""
    sizes = [work.shape[1:]]
    for _ in work.widths:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def _conv(work: Work) -> tuple[nn.Module, nn.Module]:
    sizes, channels = conv_sizes(work), [work.shape[0], *work.widths]
    features = channels[-1] * math.prod(sizes[-1])
    encoder: list[nn.Module] = []
    for before, after in pairwise(channels):
        encoder += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)]
        encoder.append(nn.LeakyReLU())
    encoder += [nn.Flatten(), nn.Linear(features, 2 * work.latent_dim)]
    decoder: list[nn.Module] = [
        nn.Linear(work.latent_dim, features),
        nn.Unflatten(1, (channels[-1], *sizes[-1])),
    ]
    upwards = [*reversed(work.widths), work.widths[0]]
    for (before, after), (height, width) in zip(
        pairwise(upwards), reversed(sizes[:-1]), strict=True
    ):
        extra = (1 - height % 2, 1 - width % 2)
        decoder += [
            nn.ConvTranspose2d(before, after, 3, 2, 1, extra, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(),
        ]
    decoder.append(nn.Conv2d(work.widths[0], work.shape[0], 3, padding=1))
    return nn.Sequential(*encoder), nn.Sequential(*decoder)
