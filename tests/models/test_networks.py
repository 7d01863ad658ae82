import math

import pytest
import torch
from torch import nn

from vae_cli.config.networks import ConvConfig, MLPConfig
from vae_cli.console import UserError
from vae_cli.models.networks import ACTIVATIONS, Autoencoder, Down, Last, Up

START = {"init": "torch", "output_bias": "init", "condition_on_labels": False}
SIZES = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (7, 7), (5, 8)]


def mlp(*shape: int, activation: str = "relu") -> Autoencoder:
    settings = {"hidden_sizes": [30, 20], "latent_dim": 4, "activation": activation}
    settings |= START
    return MLPConfig(name="mlp_vae", **settings).build(shape, 8)


def conv(*shape: int, channels: tuple[int, ...] = (4, 8, 8, 8)) -> Autoencoder:
    settings = {"channels": list(channels), "latent_dim": 4, "activation": "leaky_relu"}
    settings |= START
    return ConvConfig(name="conv_vae", spatial=False, **settings).build(shape, 8)


def sizes_of_weights(model: Autoencoder) -> list[list[int]]:
    return [list(p.shape) for p in model.parameters() if p.ndim > 1]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 31, 17), (5, 1, 9), (2, 64, 48), (100,)])
def test_images_and_curves_come_out_in_their_own_shape(shape):
    for make in [mlp, conv][: len(shape)]:  # curves have one axis: the MLP alone
        model, x = make(*shape), torch.rand(3, *shape)
        code = model.encode(x)
        assert code.shape == (3, 8)
        assert model.decode(code[:, :4]).shape == x.shape


def test_a_spatial_code_is_an_image_of_the_last_convolutions_positions():
    settings = {"channels": [4, 8], "activation": "leaky_relu", "spatial": True, **START}
    model = ConvConfig(name="conv_vae", latent_dim=24, **settings).build((1, 10, 7), 48).eval()
    code = model.encode(torch.rand(5, 1, 10, 7))  # 4 channels of 3x2 positions, mean and log_var
    assert code.shape == (5, 48)
    z = code[:, :24].detach().clone().view(5, 4, 3, 2)
    assert model.decode(z.flatten(1)).shape == (5, 1, 10, 7)
    z[:, :, 0, 0] += 1
    change = model.decode(z.flatten(1)) - model.decode(code[:, :24])
    assert change[:, :, :3, :3].abs().max() > 0
    assert change[:, :, 9].eq(0).all()  # far from the position
    with pytest.raises(UserError, match=r"has 3x2 positions, .* such as 48"):
        ConvConfig(name="conv_vae", latent_dim=25, **settings).build((1, 10, 7), 50)


def test_a_label_is_channels_of_a_spatial_code():
    settings = {"channels": [4, 8], "activation": "leaky_relu", "spatial": True, **START}
    config = ConvConfig(name="conv_vae", latent_dim=24, **settings)
    model, labels = config.build((1, 10, 7), 48, 3).eval(), torch.tensor([2, 0, 1, 2, 1])
    code = model.encode(torch.rand(5, 1, 10, 7), labels)
    assert code.shape == (5, 48)
    planes = torch.eye(3)[labels][:, :, None, None].expand(5, 3, 3, 2)
    image = torch.cat([code[:, :24].unflatten(1, (4, 3, 2)), planes], 1)  # after the Unflatten
    torch.testing.assert_close(model.decode(code[:, :24], labels), model.decoder[1:](image))


def test_the_schema_allows_exactly_the_activations_that_there_are():
    assert set(MLPConfig.model_fields["activation"].annotation.__args__) == set(ACTIVATIONS)
    for name, layer in ACTIVATIONS.items():
        assert sum(type(m) is layer for m in mlp(6, activation=name).modules()) == 4


def test_the_layers_have_their_sizes_there_and_back():
    sizes = [[30, 16], [20, 30], [8, 20], [20, 4], [30, 20], [16, 30]]
    assert sizes_of_weights(mlp(1, 4, 4)) == sizes
    model = conv(3, 21, 10, channels=(8, 16))
    assert model.bottleneck == (16, 6, 3)  # each convolution halves the image
    down = [[8, 3, 3, 3], [16, 8, 3, 3], [8, 16 * 6 * 3]]
    # a transposed convolution's weight is [in, out, 3, 3]
    up = [[16 * 6 * 3, 4], [16, 8, 3, 3], [8, 8, 3, 3], [3, 8, 3, 3]]
    assert sizes_of_weights(model) == down + up


def test_batchnorm_cannot_take_one_example_of_one_pixel():
    assert mlp(4).smallest_batch() == conv(1, 8, 8, channels=(4, 4)).smallest_batch() == 1
    model = conv(1, 4, 4, channels=(4, 4))
    assert model.smallest_batch() == 2
    model.encode(torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.encode(torch.rand(1, 1, 4, 4))


@pytest.mark.parametrize("model", [mlp(1, 28, 28), conv(1, 16, 16)])
def test_glorot_draws_each_weight_from_its_fans(model):
    torch.manual_seed(0)
    model.draw_glorot()
    layers = [
        m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]
    assert len(layers) == len(sizes_of_weights(model))
    for layer in layers:
        first, second, *kernel = layer.weight.shape
        fans = (first + second) * math.prod(kernel)
        assert layer.weight.abs().max() <= math.sqrt(6 / fans)
        if layer.weight.numel() > 500:  # variance 2 / (fan_in + fan_out)
            assert layer.weight.var().item() == pytest.approx(2 / fans, rel=0.2)
        assert layer.bias is None or not layer.bias.any()


def test_glorot_draws_layers_that_no_model_of_ours_has():
    model = mlp(8)
    model.encoder = nn.Sequential(nn.Conv1d(1, 50, 3), nn.Bilinear(4, 4, 30), nn.BatchNorm1d(5))
    model.draw_glorot()
    for layer in model.encoder[:2]:
        assert not layer.bias.any()
    assert model.encoder[0].weight.abs().max().item() == pytest.approx(math.sqrt(6 / 153), rel=0.05)
    assert (model.encoder[2].weight == 1).all()  # a scale is no weight between two layers


def agree(layer: nn.Module, plain: nn.Module, *shape: int) -> None:
    """Compare results and gradients of a layer and of torch's with equal parameters."""
    torch.manual_seed(0)
    plain.load_state_dict(layer.state_dict())
    image = torch.randn(shape)
    for memory in (torch.contiguous_format, torch.channels_last):
        x = image.contiguous(memory_format=memory).requires_grad_()
        expected, result = plain(x), layer(x)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        upstream = torch.randn_like(expected)
        gradients = torch.autograd.grad(result, [x, *layer.parameters()], upstream)
        references = torch.autograd.grad(expected, [x, *plain.parameters()], upstream)
        torch.testing.assert_close(gradients, references, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_the_convolutions_are_those_of_torch(size):
    agree(Down(4, 6, size), nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), 3, 4, *size)
    extra = tuple(1 - n % 2 for n in size)
    up = nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=extra, bias=False)
    half = tuple(math.ceil(n / 2) for n in size)
    agree(Up(6, 4, size), up, 3, 6, *half)
    assert Up(6, 4, size)(torch.randn(1, 6, *half)).shape[2:] == size
    for channels in (1, 3):
        agree(Last(5, channels), nn.Conv2d(5, channels, 3, padding=1), 2, 5, *size)
