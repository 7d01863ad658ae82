from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae_cli.config import networks
from vae_cli.vae.posteriors import Posterior
from vae_cli.vae.priors import Mixture, Prior

Z = 3


def no_encoder(x: Tensor) -> Posterior:
    raise AssertionError("these priors are not made of posteriors")


def mixture() -> Mixture:
    """A mixture away from its symmetric start."""
    torch.manual_seed(0)
    prior = networks.MixtureConfig(name="mixture", components=4).build(Z, (4,))
    with torch.no_grad():
        prior.log_scales += 0.5 * torch.randn_like(prior.log_scales)
        prior.logits += torch.randn_like(prior.logits)
    return prior


def standard_normal() -> Prior:
    return networks.StandardNormalConfig(name="standard_normal").build(Z, (4,))


def reference(prior: Prior) -> MixtureSameFamily | Independent:
    """The distribution of torch that a prior is."""
    if not isinstance(prior, Mixture):
        return Independent(Normal(torch.zeros(Z), 1.0), 1)
    components = Independent(Normal(prior.means, prior.log_scales.exp()), 1)
    return MixtureSameFamily(Categorical(logits=prior.logits), components)


@pytest.mark.parametrize("make", [standard_normal, mixture])
def test_a_prior_is_that_of_torch_distributions(make: Callable[[], Prior]):
    prior, n = make(), 100_000
    draws = [prior.sample(n, torch.Generator().manual_seed(1), no_encoder) for _ in range(2)]
    assert draws[0].equal(draws[1])  # the generator decides
    z, expected = draws[0].detach(), reference(prior)
    torch.testing.assert_close(prior.log_prob(z, no_encoder), expected.log_prob(z))
    assert ((z.mean(0) - expected.mean).abs() < 4 * expected.stddev / n**0.5).all()
    torch.testing.assert_close(z.std(0), expected.stddev, rtol=0.02, atol=0)
    inputs = (z[None, :4].double().requires_grad_(), *prior.double().parameters())
    assert torch.autograd.gradcheck(lambda z, *_: prior.log_prob(z, no_encoder), inputs)
