from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vae_cli.models import kernels

HAS_ONEDNN = torch.backends.mkldnn.is_available()
ONEDNN = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")


def derivatives(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The value of a function, its first derivatives and one of its second."""
    value = function(*inputs)
    weights = torch.linspace(-1, 1, value.numel()).reshape(value.shape)
    first = torch.autograd.grad((weights * value).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), inputs[1:2] or inputs)
    return [value, *first, *second]


def agree(fast: list[Tensor], plain: list[Tensor]) -> None:
    for one, other in zip(fast, plain, strict=True):
        limit = 1e-5 * float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=limit)


@ONEDNN
@pytest.mark.parametrize(("batch", "before", "after"), [(7, 33, 5), (128, 784, 400), (1, 1, 1)])
def test_products_and_derivatives_of_onednn_are_those_of_torch(batch, before, after):
    torch.manual_seed(0)
    shapes = ((batch, before), (after, before), (after,))
    inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
    agree(derivatives(kernels._OneDNNLinear.apply, *inputs), derivatives(F.linear, *inputs))


@ONEDNN
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_onednn_gets_no_weight_with_gaps(monkeypatch, memory):
    dense, product = [], torch.ops.mkldnn._linear_pointwise.default

    def watch(x: Tensor, weight: Tensor, *others: object) -> Tensor:
        dense.append(weight.is_contiguous() or weight.t().is_contiguous())
        return product(x, weight, *others)

    monkeypatch.setattr(torch.ops.mkldnn._linear_pointwise, "default", watch)
    tap = torch.randn(40, 30, 3, 3).contiguous(memory_format=memory)[:, :, 1, 1]
    x, y = torch.randn(7, 30), torch.randn(7, 40)
    agree([kernels._product(x, tap), kernels._product(y, tap.t())], [x @ tap.t(), y @ tap])
    assert dense == [True] * 2


def test_the_layer_takes_the_form_that_fits(monkeypatch):
    layer, x = kernels.Linear(300, 300), torch.randn(4, 300)
    expected = F.linear(x, layer.weight, layer.bias)
    for faster in (True, False):
        monkeypatch.setattr(kernels, "onednn_is_faster", lambda faster=faster: faster)
        torch.testing.assert_close(layer(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    layer(x).sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert not kernels.fast_on(x.to("meta"))


def test_the_bernoulli_kernel_is_the_plain_formula_with_its_derivatives():
    torch.manual_seed(0)
    x, logits = torch.rand(4, 5, 3), (4 * torch.randn(2, 4, 5, 3)).requires_grad_()
    agree(
        derivatives(lambda logits: kernels.bernoulli_log_prob(x, logits), logits),
        derivatives(lambda logits: (x * logits - F.softplus(logits)).flatten(2).sum(2), logits),
    )
