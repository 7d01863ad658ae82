"""Codes of finitely many values: the nearest of a codebook, rounded numbers, one-hot vectors.

Shapes: B examples, K codes for an example, Z latent dimensions. Densities and KL are in nats. A
group of dimensions (a vector, a variable) has every G-th of them, G groups in all, so that with
model.spatial it lies at one position of the image.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.special import log_ndtr

from vae_cli.config.networks import CategoricalConfig, FSQConfig, UniformConfig, VQConfig
from vae_cli.vae.posteriors import KL, Code, Encode, Head, Point, Posterior
from vae_cli.vae.priors import Prior

SMOOTHING = 1e-5  # vectors that every code has besides those that chose it: no mean is 0 / 0


def one_hot(number: Tensor, count: int, dim: int) -> Tensor:
    """Make vectors of `count` values along a new dimension: 1 at `number`, else 0; float32."""
    shape = [1] * (number.ndim + 1)
    shape[dim] = count
    return (number.unsqueeze(dim) == torch.arange(count, device=number.device).view(shape)).float()


class VQHead(Head):
    """The nearest of C vectors for each group (van den Oord et al. 2017); perhaps in Q stages.

    A stage replaces a group's vector v of D numbers by its nearest code e, the next one quantises
    what is left, v - e. Gradients pass as if the code was not replaced (straight-through), and the
    loss gains commitment * ||v - e||^2, summed over groups and stages. The codes are no parameters:
    each is a moving mean of the vectors that chose it (appendix A.1). A code whose moving count is
    below `revive` is dead and starts again as one of the batch's vectors.
    """

    codes: Tensor  # [Q, C, D]
    counts: Tensor  # [Q, C] moving mean of how many vectors of a batch choose the code
    sums: Tensor  # [Q, C, D] moving mean of their sum

    def __init__(self, config: VQConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.config, shape = config, (config.quantizers, config.codes, config.code_dim)
        self.register_buffer("codes", (2 * torch.rand(shape) - 1) / config.codes)
        self.register_buffer("sums", self.codes.clone())
        self.register_buffer("counts", torch.ones(shape[:2]))

    def nearest(self, z: Tensor) -> Tensor:
        nearest: Tensor = self(z).mean
        return nearest

    def forward(self, code: Tensor) -> Point:
        code, vectors, choices = code.float(), [], []
        groups = code.unflatten(1, (self.config.code_dim, -1)).transpose(1, 2)  # [B, G, D]
        left, cost = groups.flatten(0, 1), code.new_zeros(())  # [N, D], N = B G
        with torch.autocast(code.device.type, enabled=False):
            for codes in self.codes:  # |v - e|^2 without |v|^2, which is equal for all e
                nearest = (codes.square().sum(1) - 2 * left @ codes.t()).argmin(1)
                vectors.append(left.detach())
                choices.append(one_hot(nearest, len(codes), 1))
                left = left - codes[nearest]
                cost = cost + self.config.commitment * left.square().sum() / code.shape[0]
        change = left.detach().unflatten(0, groups.shape[:2]).transpose(1, 2).flatten(1)
        chosen = torch.stack(choices)  # [Q, N, C]
        posterior = Point(code - change)
        posterior.learn = partial(self.learn, torch.stack(vectors), chosen)
        posterior.cost, share = cost, chosen.mean(1)  # [Q, C]
        posterior.metrics = {
            "commitment": cost.detach(),
            "perplexity": torch.special.entr(share).sum(1).exp().mean(),  # C: all in even use
            "dead_codes": (self.counts < self.config.revive).float().sum(),
        }
        return posterior

    @torch.no_grad()
    def learn(self, vectors: Tensor, chosen: Tensor, noise: Tensor) -> None:
        """Let the codes follow vectors [Q, N, D] and their choices [Q, N, C], in place.

        The order of noise [K, B, Z] decides which vectors replace dead codes.
        """
        dead, count = (self.counts < self.config.revive)[..., None], self.config.codes
        self.counts.lerp_(chosen.sum(1), 1 - self.config.decay)
        self.sums.lerp_(chosen.transpose(1, 2) @ vectors, 1 - self.config.decay)
        total = self.counts.sum(1, keepdim=True)
        smoothed = (self.counts + SMOOTHING) / (total + count * SMOOTHING) * total
        order = noise.flatten()[: vectors.shape[1]].argsort()
        fresh = vectors[:, order[torch.arange(count, device=order.device) % len(order)]]
        self.codes.copy_(torch.where(dead, fresh, self.sums / smoothed[..., None]))
        self.sums.copy_(torch.where(dead, fresh, self.sums))
        self.counts.copy_(torch.where(dead[..., 0], 1.0, self.counts))


class FSQHead(Head):
    """tanh of each number, rounded to one of L levels from -1 to 1 (Mentzer et al. 2024).

    Gradients pass the rounding as if it was not there (straight-through). The levels have equal
    distances, for an even L too; the paper shifts them so that one is 0.
    """

    def __init__(self, config: FSQConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.steps = (config.levels - 1) / 2

    def nearest(self, z: Tensor) -> Tensor:
        return ((z.clamp(-1, 1) + 1) * self.steps).round() / self.steps - 1

    def forward(self, code: Tensor) -> Point:
        bounded = code.float().tanh()
        return Point(bounded + (self.nearest(bounded) - bounded).detach())


class Categorical(Posterior):
    """Independent one-hot variables, V of them with C categories each: Z = C V.

    With a temperature T, in training, codes are softmax((log p + g) / T) with Gumbel noise g, so
    that gradients pass (Jang et al. 2017, Maddison et al. 2017). Without one they are exact draws,
    one-hot at the largest log p + g. `mean` holds the probabilities.
    """

    def __init__(self, logits: Tensor, temperature: Tensor | None) -> None:
        """logits: [B, C, V]."""
        self.log_p, self.temperature = logits.log_softmax(1), temperature
        self.mean = self.log_p.exp().flatten(1)
        self.metrics = {} if temperature is None else {"temperature": temperature}

    @property
    def stddev(self) -> Tensor:
        return (self.mean * (1 - self.mean)).sqrt()

    def sample(self, noise: Tensor) -> Code:
        # a normal number's place in its distribution is uniform: g = -log(-log(Phi(noise)))
        gumbel = -(-log_ndtr(noise.clamp(-8, 8))).log()
        scores = self.log_p + gumbel.unflatten(-1, self.log_p.shape[1:])  # [K, B, C, V]
        if self.temperature is not None:
            z = (scores / self.temperature).softmax(2).flatten(2)
        else:
            z = one_hot(scores.argmax(2), scores.shape[2], 2).flatten(2).to(noise.dtype)
        return Code(z, lambda: self.log_prob(z))

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-probability of one-hot codes; of others, its linear interpolation."""
        return (z * self.log_p.flatten(1)).sum(-1)

    def kl_to_uniform(self) -> Tensor:
        """Compute the KL to variables whose categories are equally probable. -> [B]."""
        _, categories, variables = self.log_p.shape
        entropy: Tensor = torch.special.entr(self.mean).sum(1)
        return variables * math.log(categories) - entropy


class CategoricalHead(Head):
    """Logits of the categories; T = temperature * exp(-rate * updates), or min_temperature."""

    updates: Tensor

    def __init__(self, config: CategoricalConfig, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.config = config
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, code: Tensor) -> Categorical:
        config, temperature = self.config, None
        if self.training:
            falling = config.temperature * (-config.rate * self.updates).exp()
            temperature = falling.clamp(min=config.min_temperature)
        logits = code.float().unflatten(1, (config.categories, -1))
        posterior = Categorical(logits, temperature)
        posterior.learn = lambda noise: self.updates.add_(1)
        return posterior


class Uniform(Prior):
    """One-hot variables whose categories are equally probable."""

    def __init__(self, config: UniformConfig, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(config, latent_dim, shape)
        self.categories, self.variables = config.categories, latent_dim // config.categories

    def log_prob(self, z: Tensor, encode: Encode, x: Tensor | None = None) -> Tensor:
        return z.new_full(z.shape[:-1], -self.variables * math.log(self.categories))

    def sample(self, n: int, generator: torch.Generator, encode: Encode) -> Tensor:
        shape, place = (n, self.variables), generator.device
        number = torch.randint(self.categories, shape, generator=generator, device=place)
        return one_hot(number, self.categories, 1).flatten(1)

    def exact_kl(self, posterior: Posterior) -> KL:
        assert isinstance(posterior, Categorical)
        return KL(None, posterior.kl_to_uniform())
