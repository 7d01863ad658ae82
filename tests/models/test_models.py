import math

import pytest
import torch

from vae_cli import build
from vae_cli.models.interface import ACTIVATIONS
from vae_cli.posteriors import DiagonalGaussian, Point
from vae_cli.schema.models import Activation

IMAGES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 31, 17), (5, 1, 9), (2, 64, 48)]


@pytest.mark.parametrize("name", ["ae", "mlp_vae", "conv_vae", "conv_ae"])
@pytest.mark.parametrize("shape", IMAGES)
def test_any_image_comes_out_in_its_own_shape(make_config, name, shape):
    model = build.vae(make_config(f"model={name}", "model.latent_dim=4"), shape).model
    x = torch.rand(3, *shape)
    posterior = model.encode(x)
    assert posterior.mean.shape == (3, 4)
    assert model.decode(posterior.mean).shape == x.shape


@pytest.mark.parametrize("name", ["ae", "mlp_vae"])
def test_mlp_models_take_curves(make_config, name):
    model = build.vae(make_config(f"model={name}", "dataset=beta_pdf"), (100,)).model
    assert model.decode(model.encode(torch.randn(3, 100)).mean).shape == (3, 100)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ae", Point),
        ("conv_ae", Point),
        ("mlp_vae", DiagonalGaussian),
        ("conv_vae", DiagonalGaussian),
    ],
)
def test_a_plain_autoencoder_is_the_same_network_with_a_point(make_config, name, kind):
    model = build.vae(make_config(f"model={name}"), (1, 28, 28)).model
    assert type(model.encode(torch.rand(2, 1, 28, 28))) is kind


def test_mlp_sizes(make_config):
    config = make_config(
        "model.hidden_sizes=[30,20]", "model.latent_dim=5", "model.activation=tanh"
    )
    model = build.vae(config, (1, 4, 4)).model
    sizes = [list(p.shape) for p in model.parameters() if p.ndim == 2]
    assert sizes == [[30, 16], [20, 30], [10, 20], [20, 5], [30, 20], [16, 30]]
    assert sum(isinstance(m, torch.nn.Tanh) for m in model.modules()) == 4


def test_mlp_without_hidden_layers_is_linear(make_config):
    model = build.vae(make_config("model.hidden_sizes=[]", "model.latent_dim=2"), (7,)).model
    a, b = torch.randn(2, 2, 7)
    middle = model.encode((a + b) / 2).mean
    torch.testing.assert_close(middle, (model.encode(a).mean + model.encode(b).mean) / 2)


def test_conv_halves_to_its_last_channels(make_config):
    model = build.vae(make_config("model=conv_vae", "model.channels=[8,16]"), (3, 21, 10)).model
    assert model.smallest == (16, 6, 3)
    shapes = [list(p.shape) for p in model.parameters() if p.ndim == 4]
    down = [[8, 3, 3, 3], [16, 8, 3, 3]]
    up = [[16, 8, 3, 3], [8, 8, 3, 3]]  # a transposed convolution's weight is [in, out, 3, 3]
    assert shapes == [*down, *up, [3, 8, 3, 3]]


def test_every_activation_by_its_name(make_config):
    assert set(ACTIVATIONS) == set(Activation)
    for activation in Activation:
        model = build.vae(make_config(f"model.activation={activation.name}"), (6,)).model
        assert math.isfinite(model.decode(model.encode(torch.randn(2, 6)).mean).sum().item())


def test_weights_come_from_the_seed(make_config):
    def weights(seed: int) -> torch.Tensor:
        model = build.vae(make_config(f"seed={seed}"), (6,)).model
        return torch.cat([p.flatten() for p in model.parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))
