import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vae_cli.models import layers
from vae_cli.models.convolutions import Down, Last, Up

ONEDNN = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)
KINDS = [pytest.param(layers._OneDNNLinear, 1e-5, marks=ONEDNN), (layers._BFloat16Linear, 2e-2)]


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
@pytest.mark.parametrize("shape", [(7, 33, 5), (128, 784, 400), (1, 1, 1)])
def test_products_and_gradients_are_those_of_torch(kind, tolerance, shape):
    batch, before, after = shape
    x, weight, bias = tensors((batch, before), (after, before), (after,))
    upstream = torch.randn(batch, after)
    expected = F.linear(x, weight, bias)
    result = kind.apply(x, weight, bias)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(result.float(), expected, rtol=0, atol=tolerance * scale)
    wanted = torch.autograd.grad(expected, (x, weight, bias), upstream)
    found = torch.autograd.grad(result, (x, weight, bias), upstream.to(result.dtype))
    for one, other in zip(found, wanted, strict=True):
        limit = tolerance * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=limit)


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
def test_a_gradient_of_the_gradient_is_that_of_torch(kind, tolerance):
    x, weight, bias = tensors((6, 9), (4, 9), (4,))

    def second(layer: object) -> Tensor:
        code = layer(x, weight, bias).float().square().sum()
        (first,) = torch.autograd.grad(code, x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight)[0]

    wanted = second(F.linear)
    limit = 3 * tolerance * float(wanted.abs().max())
    torch.testing.assert_close(second(kind.apply), wanted, rtol=0, atol=limit)


def test_the_layer_takes_the_kernel_for_its_precision(monkeypatch):
    layer, x = layers.Linear(300, 300), torch.randn(4, 300)
    plain = F.linear(x, layer.weight, layer.bias)
    for faster in (True, False):
        monkeypatch.setattr(layers, "onednn_is_faster", lambda faster=faster: faster)
        torch.testing.assert_close(layer(x), plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    layer(x).sum().backward()
    assert layer.weight.grad.dtype == torch.float32


SIZES = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (7, 7), (5, 8)]


def images(*shape: int) -> list[Tensor]:
    """The same image, in both ways that it can lie in memory."""
    x = tensors(shape)[0].detach()
    return [
        x.contiguous(memory_format=f).requires_grad_()
        for f in (torch.contiguous_format, torch.channels_last)
    ]


def agree(layer: nn.Module, plain: nn.Module, x: Tensor) -> None:
    """Results and gradients of a layer and of torch's with the same parameters."""
    plain.load_state_dict(layer.state_dict())
    wanted, found = plain(x), layer(x)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(wanted)
    expected = torch.autograd.grad(wanted, [x, *plain.parameters()], upstream)
    gradients = torch.autograd.grad(found, [x, *layer.parameters()], upstream)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_down_is_a_strided_convolution(size):
    for x in images(3, 4, *size):
        layer = Down(4, 6, size)
        agree(layer, nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), x)


@pytest.mark.parametrize("size", SIZES)
def test_up_is_a_transposed_convolution_to_exactly_its_size(size):
    extra = tuple(1 - n % 2 for n in size)
    for x in images(3, 6, *(math.ceil(n / 2) for n in size)):
        layer = Up(6, 4, size)
        assert layer(x).shape[2:] == size
        agree(layer, nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=extra, bias=False), x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_last_is_a_convolution(size, channels):
    for x in images(2, 5, *size):
        agree(Last(5, channels), nn.Conv2d(5, channels, 3, padding=1), x)


@ONEDNN
def test_onednn_gets_no_weight_with_gaps():
    kernel = torch.randn(40, 30, 3, 3)
    dense = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "linear_pointwise" in str(func):
                dense.append(args[1].is_contiguous() or args[1].t().is_contiguous())
            return func(*args, **(kwargs or {}))

    x = torch.randn(7, 30)
    for memory in (torch.contiguous_format, torch.channels_last):
        tap = kernel.contiguous(memory_format=memory)[:, :, 1, 1]
        with Watch():
            found = layers._product(x, tap), layers._product(torch.randn(7, 40), tap.t())
        torch.testing.assert_close(found[0], x @ tap.t(), rtol=1e-4, atol=1e-4)
    assert dense == [True] * 4
