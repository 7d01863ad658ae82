import pytest
import torch
from torch.autograd.functional import jacobian

from vae_cli.config import optimization
from vae_cli.config.networks import MLPConfig
from vae_cli.models.networks import MLP
from vae_cli.vae.posteriors import Point
from vae_cli.vae.regularizers import Coded


@pytest.fixture
def model() -> MLP:
    torch.manual_seed(0)
    start = {"init": "torch", "output_bias": "init", "condition_on_labels": False}
    config = MLPConfig(name="ae", hidden_sizes=[8], latent_dim=3, activation="tanh", **start)
    return config.build((6,), 3).double()


@pytest.fixture
def coded(model) -> Coded:
    """Five examples of six values with codes of three numbers, in float64."""
    x = torch.randn(5, 6, dtype=torch.double)

    def decode(z: torch.Tensor) -> torch.Tensor:
        return model.decode(z).sigmoid()

    return Coded(x, model.encode(x), lambda x: Point(model.encode(x)), decode, model.decoder)


def test_the_contractive_term_and_its_gradient_are_those_of_autograds_jacobian(coded, model):
    penalty = optimization.ContractiveConfig(name="contractive", weight=1.0).build()
    rows = [
        jacobian(lambda x: coded.encode(x[None]).mean[0], x, create_graph=True) for x in coded.x
    ]
    expected, term = torch.stack(rows).square().sum() / len(rows), penalty.term(coded)
    torch.testing.assert_close(term, expected)
    gradients = [torch.autograd.grad(value, model.encoder[0].weight) for value in (term, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():  # measuring computes the value alone
        assert penalty.term(coded).equal(term)


def test_the_gradient_term_and_its_gradient_have_the_mean_of_autograds_jacobian(coded, model):
    penalty = optimization.GradientConfig(name="gradient", weight=1.0).build()
    rows = [jacobian(lambda z: coded.decode(z[None])[0], z, create_graph=True) for z in coded.code]
    expected = torch.stack(rows).square().sum() / len(rows)
    many = coded._replace(code=coded.code.repeat(20_000, 1))  # each repeat has a draw of its own
    term = penalty.term(many)
    torch.testing.assert_close(term, expected, rtol=0.02, atol=0)
    for weight in (
        model.encoder[0].weight,
        model.decoder[0].weight,
    ):  # through the code, and by itself
        found, exact = (
            torch.autograd.grad(value, weight, retain_graph=True)[0] for value in (term, expected)
        )
        torch.testing.assert_close(found, exact, rtol=0.05, atol=float(exact.abs().max()) / 50)
    with torch.no_grad():
        assert not penalty.term(coded).requires_grad


def test_norms_of_the_code_and_of_the_decoder(coded):
    sparse = optimization.SparseConfig(name="sparse", weight=0.5).build()
    assert sparse.weight == 0.5
    torch.testing.assert_close(sparse.term(coded), coded.code.abs().sum(1).mean())
    l2 = optimization.L2Config(name="l2", weight=0.5, decoder=0.1).build()
    half = 0.5 * coded.code.norm(dim=1).square().mean()
    weights = torch.nn.utils.parameters_to_vector(coded.decoder.parameters()).norm().square()
    torch.testing.assert_close(l2.weight * l2.term(coded), 0.5 * half + 0.1 * weights)
    assert optimization.NoPenaltyConfig(name="none").build().weight == 0


def test_several_penalties_are_added_by_their_weights(coded):
    weights = {"sparse": 0.3, "l2": 0.0, "decoder": 0.1, "contractive": 0.2, "gradient": 0.4}
    several = optimization.SeveralPenaltiesConfig(name="several", **weights).build()
    decoder = optimization.L2Config(name="l2", weight=1e-300, decoder=0.1).build()
    torch.manual_seed(1)  # of the draws of `gradient`
    expected = decoder.term(coded)
    for schema, name in (
        (optimization.SparseConfig, "sparse"),
        (optimization.ContractiveConfig, "contractive"),
        (optimization.GradientConfig, "gradient"),
    ):
        alone = schema(name=name, weight=weights[name]).build()
        expected = expected + alone.weight * alone.term(coded)
    torch.manual_seed(1)
    torch.testing.assert_close(several.weight * several.term(coded), expected)


def test_corruptions_change_the_input_by_noise_by_zeros_or_not():
    x = torch.rand(200, 100) + 0.1
    assert optimization.NoCorruptionConfig(name="none").build()(x, torch.Generator()) is x
    gaussian = optimization.GaussianNoiseConfig(name="gaussian", sigma=0.2).build()
    noise = gaussian(x, torch.Generator().manual_seed(0)) - x
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 0.2) < 0.01
    masking = optimization.MaskingConfig(name="masking", probability=0.3).build()
    masked, other = (masking(x, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert abs(masked.eq(0).float().mean() - 0.3) < 0.02
    assert (masked.eq(x) | masked.eq(0)).all()
    assert not masked.equal(other)
