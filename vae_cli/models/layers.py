"""The layers that networks are made of, where torch's own leave much of a CPU unused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# weights with fewer entries are multiplied sooner than oneDNN is set up (measured on Zen 4)
SMALL = 1 << 16


class Linear(nn.Linear):
    """x W^T + b. The weights and their gradients are float32 at every precision.

    On a CPU `F.linear` goes through MKL, which leaves an AMD processor's wide instructions unused;
    there oneDNN makes the products, of the same float32 numbers. Under autocast (`precision=bf16`)
    the products are of bfloat16 numbers, summed in float32, and so is the result. Anywhere else,
    and while a graph of the network is traced, this is torch's own layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer as a function. x [N, I], weight [O, I], bias [O] -> [N, O]."""
    result: Tensor
    if x.device.type != "cpu" or _traced():
        result = F.linear(x, weight, bias)
    elif torch.is_autocast_enabled("cpu"):
        result = _BFloat16Linear.apply(x, weight, bias)
    elif weight.numel() >= SMALL and x.dtype == torch.float32 and onednn_is_faster():
        result = _OneDNNLinear.apply(x, weight, bias)
    else:
        result = F.linear(x, weight, bias)
    return result


@cache
def onednn_is_faster() -> bool:
    """Whether this is an AMD processor with AVX-512 and a torch with oneDNN.

    Told by the processor's name, not by timing, so that equal runs on one machine stay equal.
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and torch.backends.mkldnn.is_available() and _is_amd()


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


class _OneDNNLinear(torch.autograd.Function):
    """F.linear and its gradients by oneDNN, in the dtype of its arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, _, for_bias = ctx.needs_input_grad
        # oneDNN's product has no gradient of its own: not where a gradient of this one is wanted
        product = F.linear if torch.is_grad_enabled() else _product
        return (
            product(grad, weight.t()) if for_x else None,
            product(grad.t(), x.t()),
            grad.sum(0) if for_bias else None,
        )


class _BFloat16Linear(torch.autograd.Function):
    """F.linear of bfloat16 copies; what autocast does, without a node for every conversion."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        narrow = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight, *narrow)
        return F.linear(*narrow, None if bias is None else bias.bfloat16())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight, *narrow = ctx.saved_tensors
        # where a gradient of this gradient is wanted, the copies must be made from their originals
        x, weight = (x.bfloat16(), weight.bfloat16()) if torch.is_grad_enabled() else narrow
        return (
            grad @ weight if ctx.needs_input_grad[0] else None,
            (grad.t() @ x).float(),
            grad.sum(0, dtype=torch.float32) if ctx.needs_input_grad[2] else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b. x [N, I], weight [O, I], also transposed views -> [N, O]."""
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        # a tap of a kernel, say: for it oneDNN takes a plain loop that is a thousand times slower
        weight = weight.contiguous()
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return result
