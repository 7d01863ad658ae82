"""Measure what a trained model has learned. N examples, K codes for each, Z dimensions, nats."""

import copy
import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_cli.data.dataset import Data
from vae_cli.training.evaluation import Codes, InFloat64, evaluate
from vae_cli.vae.priors import VALUES
from vae_cli.vae.vae import VAE

Estimate = tuple[float, float]  # a number and its standard error


def mean_and_error(values: Tensor) -> Estimate:
    """Average over examples [N]. -> the mean and its standard error, std / sqrt(N)."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def bits_per_dimension(vae: VAE, data: Data, seed: int) -> tuple[float | None, str]:
    """Bound the test set's code length in bits a data dimension from above; say of what.

    -(E_q log P(x|z) - KL) / (D ln 2) with probabilities P: those of 0 and 1, or of each 8-bit grey
    level's cell under a density (`Likelihood.log_mass`). Otherwise None and the reason.
    """
    likelihood, binary = vae.likelihood, data.binarize != "none"
    how = f"{data.binarize} binarised data, probability of 0 and 1"
    if not likelihood.normalised:
        return None, "the likelihood is not normalised (use gaussian)"
    if likelihood.domain == "binary" and not binary:
        return None, "the likelihood gives no probability of grey values"
    if likelihood.domain != "binary":
        how = "8-bit values k/255, exact probability of each from (k - 1/2)/255 to (k + 1/2)/255"
        if binary:
            return None, "a density at binary values is no probability (use bernoulli)"
        if data.test.x.dtype != torch.uint8:
            return None, "the data is not stored in 8 bits"
    vae = copy.deepcopy(vae)
    vae.likelihood = InFloat64(likelihood, levels=likelihood.domain != "binary")
    try:
        elbo = evaluate(vae, data, data.test, 1.0, seed).metrics["elbo"]
    except NotImplementedError as error:  # of a likelihood without log_between
        return None, str(error)
    return -elbo / (math.prod(data.shape) * math.log(2)), how


def information(mean: Tensor, stddev: Tensor, source: torch.Generator) -> list[Estimate]:
    """Estimate I_q(x; z) and the total correlation of q(z), of posteriors [N, Z], in nats.

    With q(z) = (1/N) sum_m q(z|x_m) and z_n ~ q(z|x_n), the mean over n of
    log q(z_n|x_n) - log q(z_n), the index-code mutual information of Hoffman & Johnson 2016, and
    log q(z_n) - sum_j log q(z_nj), which is KL(q(z) || prod_j q(z_j)). Each z_n lies in a component
    of q(z) of its own: of all the data whose sample the N are, the first is too small (at most
    log N), the second too large, the more the less the posteriors overlap. `source` is on the CPU.
    -> two estimates, each with its standard error.
    """
    mean, stddev = mean.double(), stddev.double()
    z = mean + stddev * torch.randn(mean.shape, generator=source, dtype=torch.float64)
    log_scale = stddev.log()  # constants cancel between all terms
    own = (-0.5 * ((z - mean) / stddev).square() - log_scale).sum(1)
    joints, products = [], []
    # all pairs [rows, N], in blocks that a processor's cache holds
    for rows in z.split(max(1, VALUES // 16 // len(z))):
        joint, product = torch.zeros(len(rows), len(z), dtype=torch.float64), torch.zeros(len(rows))
        for j, z_j in enumerate(rows.unbind(1)):
            scaled = (z_j[:, None] - mean[:, j]).div_(stddev[:, j])
            density = scaled.square_().mul_(-0.5).sub_(log_scale[:, j])  # log q(z_nj|x_m)
            joint += density
            product = product + density.logsumexp(1) - math.log(len(z))
        joints.append(joint.logsumexp(1) - math.log(len(z)))
        products.append(product)
    log_joint, log_product = torch.cat(joints), torch.cat(products)
    return [mean_and_error(own - log_joint), mean_and_error(log_joint - log_product)]


def _activity(codes: Codes) -> tuple[Tensor, str]:
    """Measure how much each dimension tells [Z], and say by what."""
    if codes.kl is not None and bool((codes.kl > 0).any()):
        return codes.kl.mean(0), "KL"
    return codes.mean.var(0, unbiased=False), "variance"


def most_active(codes: Codes) -> list[int]:
    """Order latent dimensions by falling mean KL or, where there is none, variance of the mean."""
    order: list[int] = _activity(codes)[0].argsort(descending=True, stable=True).tolist()
    return order


def order(codes: Codes) -> str:
    """Say in which order `most_active` puts the dimensions, for a title."""
    return f"largest {_activity(codes)[1]} first"


def linear_probe(train: Codes, labels: Tensor, test: Codes, truth: Tensor) -> dict[str, float]:
    """Fit a logistic regression to the training codes' standardised means, and score it.

    scikit-learn's, with its own L2 penalty (C = 1), at most 1,000 iterations of L-BFGS.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with warnings.catch_warnings(action="ignore"):  # reported as `converged`
        classifier.fit(train.mean.numpy(), labels.cpu().numpy())
    return {
        "train_accuracy": float(classifier.score(train.mean.numpy(), labels.cpu().numpy())),
        "test_accuracy": float(classifier.score(test.mean.numpy(), truth.cpu().numpy())),
        "converged": bool(classifier[-1].n_iter_.max() < 1000),
    }


def line(stops: Tensor, steps: int) -> Tensor:
    """Walk straight from stop to stop, both ends included. [L + 1, Z] -> [L, steps, Z]."""
    share = torch.linspace(0, 1, steps, device=stops.device)[:, None]
    return torch.lerp(stops[:-1, None], stops[1:, None], share)


class Fit(NamedTuple):
    """The result of `fit`, on the CPU in float64."""

    code: Tensor  # [Z]
    decoded: Tensor  # [*shape] E[x|z]
    residual_norm: float  # ||target - decoded||_2 in the data's own units


def fit(vae: VAE, target: Tensor, num_starts: int, source: torch.Generator, label: int = 0) -> Fit:
    """Find the z that minimises ||target - E[x|z]||_2. target [*shape], source on the CPU.

    label: the class in which a conditional model encodes and decodes. Least squares by trust
    regions (scipy) in float64, from the best 8 of `num_starts` codes: the target's own posterior
    mean, and draws from the prior.
    """
    from scipy.optimize import least_squares

    double, wanted = copy.deepcopy(vae).cpu().eval().requires_grad_(False), target.cpu().double()
    given = torch.tensor([label])
    encoded = double.encode(wanted.float()[None], given).mean  # [1, Z]
    starts = torch.cat([encoded, double.draw_prior(num_starts - 1, source)]).double()
    double.double()

    def decode(z: Tensor) -> Tensor:  # [N, Z] -> [N, *shape]; VAE.decode returns float32
        return double.likelihood.mean(double.model.decode(z, given.expand(len(z)))[None])[0]

    def residuals(z: Any) -> Tensor:  # [Z] -> [P]
        return (decode(torch.as_tensor(z)[None])[0] - wanted).flatten()

    slopes: Any = torch.func.jacrev(residuals)  # [Z] -> [P, Z]
    best = (decode(starts) - wanted).flatten(1).norm(dim=1).argsort()[:8]
    how = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-12)
    searches = [
        least_squares(residuals, start, lambda z: slopes(torch.as_tensor(z)).numpy(), **how)
        for start in starts[best].numpy()
    ]
    code = torch.from_numpy(min(searches, key=lambda search: search.cost).x)
    return Fit(code, decode(code[None])[0], float(residuals(code).norm()))
