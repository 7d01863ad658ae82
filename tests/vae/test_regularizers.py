import torch
from torch.autograd.functional import jacobian

from vae_cli.config import losses
from vae_cli.config.networks import MLPConfig
from vae_cli.vae.posteriors import Point


def test_the_contractive_term_and_its_gradient_are_those_of_autograds_jacobian():
    torch.manual_seed(0)
    start = {"init": "torch", "output_bias": "init", "condition_on_labels": False}
    config = MLPConfig(name="ae", hidden_sizes=[8], latent_dim=3, activation="tanh", **start)
    model, xs = config.build((6,), 3).double(), torch.randn(5, 6, dtype=torch.double)
    penalty = losses.ContractiveConfig(name="contractive", weight=1.0).build()

    def encode(x: torch.Tensor) -> Point:
        return Point(model.encode(x))

    term = penalty.term(encode, xs, encode(xs).mean)
    rows = [jacobian(lambda x: model.encode(x[None])[0], x, create_graph=True) for x in xs]
    expected = torch.stack(rows).square().sum() / len(xs)
    torch.testing.assert_close(term, expected)
    weight = model.encoder[0].weight
    gradients = [torch.autograd.grad(value, weight) for value in (term, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():  # measuring computes the value alone
        assert penalty.term(encode, xs, encode(xs).mean).equal(term)


def test_the_sparse_term_is_the_codes_l1_norm_and_none_weighs_nothing():
    penalty, code = losses.SparseConfig(name="sparse", weight=0.5).build(), torch.randn(4, 3)
    assert penalty.weight == 0.5
    expected = code.abs().sum(1).mean()
    torch.testing.assert_close(penalty.term(Point, torch.rand(4, 6), code), expected)
    assert losses.NoPenaltyConfig(name="none").build().weight == 0


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
