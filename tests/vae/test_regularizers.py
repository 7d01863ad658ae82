from collections.abc import Callable

import pytest
import torch
from torch.autograd.functional import jacobian

from vae_cli.config import losses
from vae_cli.config.networks import MLPConfig
from vae_cli.vae.posteriors import Point
from vae_cli.vae.regularizers import Coded


@pytest.fixture
def coded() -> Coded:
    """Five examples of six values with codes of three numbers, in float64."""
    torch.manual_seed(0)
    start = {"init": "torch", "output_bias": "init"}
    config = MLPConfig(name="ae", hidden_sizes=[8], latent_dim=3, activation="tanh", **start)
    model, x = config.build((6,), 3).double(), torch.randn(5, 6, dtype=torch.double)

    def decode(z: torch.Tensor) -> torch.Tensor:
        return model.decode(z).sigmoid()

    return Coded(x, model.encode(x), lambda x: Point(model.encode(x)), decode, model.decoder)


def jacobian_norm(function: Callable[[torch.Tensor], torch.Tensor], xs: torch.Tensor):
    rows = [jacobian(lambda x: function(x[None])[0], x, create_graph=True) for x in xs]
    return torch.stack(rows).square().sum() / len(xs)


@pytest.mark.parametrize("name", ["contractive", "gradient"])
def test_a_slope_and_its_gradient_are_those_of_autograds_jacobian(coded, name):
    schema = {"contractive": losses.ContractiveConfig, "gradient": losses.GradientConfig}[name]
    penalty = schema(name=name, weight=1.0).build()
    if name == "contractive":
        expected = jacobian_norm(lambda x: coded.encode(x).mean, coded.x)
    else:
        expected = jacobian_norm(coded.decode, coded.encode(coded.x).mean)
    term = penalty.term(coded)
    torch.testing.assert_close(term, expected)
    encoder = coded.encode.__closure__[0].cell_contents.encoder
    weights = [encoder[0].weight, *([coded.decoder[0].weight] if name == "gradient" else [])]
    gradients = [torch.autograd.grad(value, weights) for value in (term, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():  # measuring computes the value alone
        assert penalty.term(coded).equal(term)


def test_norms_of_the_code_and_of_the_decoder(coded):
    sparse = losses.SparseConfig(name="sparse", weight=0.5).build()
    assert sparse.weight == 0.5
    torch.testing.assert_close(sparse.term(coded), coded.code.abs().sum(1).mean())
    l2 = losses.L2Config(name="l2", weight=0.5, decoder=0.1).build()
    half = 0.5 * coded.code.norm(dim=1).square().mean()
    weights = torch.nn.utils.parameters_to_vector(coded.decoder.parameters()).norm().square()
    torch.testing.assert_close(l2.weight * l2.term(coded), 0.5 * half + 0.1 * weights)
    assert losses.NoPenaltyConfig(name="none").build().weight == 0


def test_several_penalties_are_added_by_their_weights(coded):
    weights = {"sparse": 0.3, "l2": 0.0, "decoder": 0.1, "contractive": 0.2, "gradient": 0.4}
    several = losses.SeveralPenaltiesConfig(name="several", **weights).build()
    decoder = losses.L2Config(name="l2", weight=1e-300, decoder=0.1).build()
    expected = decoder.term(coded)
    for schema, name in (
        (losses.SparseConfig, "sparse"),
        (losses.ContractiveConfig, "contractive"),
        (losses.GradientConfig, "gradient"),
    ):
        alone = schema(name=name, weight=weights[name]).build()
        expected = expected + alone.weight * alone.term(coded)
    torch.testing.assert_close(several.weight * several.term(coded), expected)


def test_corruptions_change_the_input_by_noise_by_zeros_or_not():
    x = torch.rand(200, 100) + 0.1
    assert losses.NoCorruptionConfig(name="none").build()(x, torch.Generator()) is x
    gaussian = losses.GaussianNoiseConfig(name="gaussian", sigma=0.2).build()
    noise = gaussian(x, torch.Generator().manual_seed(0)) - x
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 0.2) < 0.01
    masking = losses.MaskingConfig(name="masking", probability=0.3).build()
    masked, other = (masking(x, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert abs(masked.eq(0).float().mean() - 0.3) < 0.02
    assert (masked.eq(x) | masked.eq(0)).all()
    assert not masked.equal(other)
