"""Networks with a posterior, a prior, a likelihood and an objective: a loss from a batch.

Shapes: B examples, K codes for an example, Z latent dimensions.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from vae_cli.config.settings import Config
from vae_cli.models.networks import Autoencoder
from vae_cli.vae.likelihoods import Likelihood
from vae_cli.vae.objectives import Drawn, Objective, Terms, Weight
from vae_cli.vae.posteriors import Head, Posterior
from vae_cli.vae.priors import Examples, Prior
from vae_cli.vae.regularizers import Coded, Penalty

# layers that normalise by the batch in training, and by running statistics otherwise
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class VAE(nn.Module):
    """An autoencoder with the meaning of its code and of its output, and a rule for its loss.

    The networks may run in bfloat16; densities, KL and loss are always computed in float32.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """Build the components that `config` names. shape: of one example.

        classes: of the dataset; with model.condition_on_labels, q(z|x, y) and p(x|z, y) know them.
        """
        super().__init__()
        self.classes = classes if config.model.condition_on_labels else 0
        self.latent_dim = latent_dim = config.model.latent_dim  # Z
        self.head: Head = config.posterior.build(latent_dim)  # it knows the width of the code
        model = config.model.model_copy(update={"latent_dim": self.head.decoded})
        self.model: Autoencoder = model.build(shape, self.head.width(), self.classes)
        if config.model.init == "glorot":
            self.model.draw_glorot()
        self.prior: Prior = config.prior.build(latent_dim, shape)
        self.likelihood: Likelihood = config.likelihood.build()
        self.objective: Objective = config.objective.build(latent_dim)
        self.penalty: Penalty = config.penalty.build()
        self.precision = config.precision
        # a loss that is no mean over examples compares between batches of one size only
        whole = config.objective.of_whole_batch or config.beta_schedule.of_whole_batch
        self.batch_size = config.batch_size if whole else None  # to be measured in; None: any

    @torch.no_grad()
    def start_at(self, mean: Tensor, examples: int) -> None:
        """Set the decoder's last bias so that, where its weights add nothing, E[x|z] is `mean`.

        mean [*shape], of `examples` examples. A bias of a channel gets the mean over its pixels.
        """
        bias = self.model.output_bias()
        means = mean.reshape(len(bias), -1).mean(1)
        bias.copy_(self.likelihood.raw_of_mean(means, examples))

    def learn_from(self, examples: Examples) -> None:
        """Let the components take what they start from, before the first update."""
        self.prior.learn_from(examples)
        self.objective.learn_from(examples)

    def noise_shape(self, batch: int) -> tuple[int, int, int]:
        """Return the shape (K, B, Z) of the standard normal noise that a batch needs."""
        return self.objective.num_samples, batch, self.latent_dim

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        weight: Weight,
        seen: Tensor | None = None,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Terms:
        """Compute the loss and its terms. x [B, *shape], noise [K, B, Z] standard normal.

        seen: what the encoder gets in place of x (denoising), of x's shape. generator: for an
        objective that draws more than the codes. labels [B] int64.
        """
        seen = x if seen is None else seen
        posterior = self.encode(seen, labels)
        return self.terms(posterior, x, noise, weight, seen, generator, labels)

    def terms(
        self,
        posterior: Posterior,
        x: Tensor,
        noise: Tensor,
        weight: Weight,
        seen: Tensor,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Terms:
        """Compute the loss and its terms of a batch that is encoded already: posterior of `seen`.

        x, seen [B, *shape], noise [K, B, Z] standard normal.
        """
        code = posterior.sample(noise)
        log_likelihood = self.likelihood.log_prob(x, self.decode(code.z, labels))  # [K, B]
        drawn = Drawn(
            x, posterior, code, log_likelihood, self.prior, self.encode_aside, labels, generator
        )
        loss, metrics = self.objective(drawn, weight)
        if self.training and posterior.learn is not None:
            posterior.learn(noise)
        costs, metrics = [posterior.cost], metrics | posterior.metrics
        if self.penalty.weight:
            encode = partial(self._encode_aside, labels=labels)
            decode = partial(self.mean, labels=labels)
            at = Coded(seen, posterior.mean, encode, decode, self.model.decoder, generator)
            with self._without("track_running_stats"):  # which count a batch once
                term = self.penalty.term(at)
            costs.append(self.penalty.weight * term)
            metrics = metrics | {"penalty": term.detach()}
        for cost in (cost for cost in costs if cost is not None):
            loss, whole = loss + cost, metrics["loss"] + cost.detach()
            metrics = metrics | {"loss": whole}
        return Terms(loss, metrics)

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Posterior:
        """Compute q(z|x), of a conditional model q(z|x, y). x [B, *shape], labels [B] int64."""
        with self._autocast(x.device):
            return self._posterior(x, labels)

    def encode_aside(self, x: Tensor, labels: Tensor | None = None) -> Posterior:
        """Compute q(z|x) of examples that are no batch of the data, for a prior that encodes.

        BatchNorm normalises them by its running statistics, as in every measurement, and does not
        count them.
        """
        with self._autocast(x.device):
            return self._encode_aside(x, labels)

    def _encode_aside(self, x: Tensor, labels: Tensor | None = None) -> Posterior:
        with self._without("training"):
            return self._posterior(x, labels)

    @contextmanager
    def _without(self, switch: str) -> Iterator[None]:
        """Set a switch of the BatchNorms that train to False for the block."""
        layers = [m for m in self.model.modules() if isinstance(m, BATCH_NORMS) and m.training]
        for layer in layers:
            setattr(layer, switch, False)
        try:
            yield
        finally:
            for layer in layers:
                setattr(layer, switch, True)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute raw likelihood parameters in float32. z [K, B, Z] -> [K, B, *shape].

        labels [B] int64, which a conditional model needs.
        """
        given = None if labels is None else labels.expand(z.shape[:2]).flatten()
        with self._autocast(z.device):
            params = self.model.decode(z.flatten(0, 1), given)
        separate: Tensor = params.float().unflatten(0, z.shape[:2])
        return separate

    def mean(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute E[x|z]. z [N, Z] -> [N, *shape]."""
        return self.likelihood.mean(self.decode(z[None], labels))[0]

    @torch.no_grad()
    def draw_prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n codes from the prior, on the generator's device. -> [n, Z]."""
        return self.prior.sample(n, generator, self.encode_aside)

    def _posterior(self, x: Tensor, labels: Tensor | None = None) -> Posterior:
        posterior: Posterior = self.head(self.model.encode(x, labels))
        return posterior

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        narrow = self.precision == "bf16"
        return torch.autocast(device.type, torch.bfloat16) if narrow else nullcontext()


def build_vae(config: Config, shape: tuple[int, ...], classes: int = 0) -> VAE:
    """Build a VAE with weights drawn from config.seed, which torch's own generator takes."""
    torch.manual_seed(config.seed)
    return VAE(config, shape, classes)
