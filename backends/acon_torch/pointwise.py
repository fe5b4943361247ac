"""The functions of each element: PyTorch's own where value and gradient are the spec's in every dtype, else made so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from acon_torch.gradient import Rule, wide

# log(1 + exp(z)) is z from here on in float64 too; PyTorch's own threshold is wrong by 2e-9 there.
_SOFTPLUS_IS_LINEAR = 40.0
SOFTPLUS_OF_PYTORCH = 20
# GELU's gradient is exactly 0 or 1 long before, and PyTorch's, which squares x, is NaN from 2e19 on.
_GELU_IS_FLAT = 100.0


def identity(x: Tensor) -> Tensor:
    """x itself."""
    return x


def relu(x: Tensor) -> Tensor:
    """max(x, 0). Gradient at 0: 0."""
    return F.relu(x)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6). Gradient at 0 and at 6: 0."""
    return F.relu6(x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where x > 0, else slope x. Gradient at 0: slope."""
    return F.leaky_relu(x, slope)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x) - 1). Gradient at 0: alpha."""
    return F.elu(x, alpha)


def selu(x: Tensor) -> Tensor:
    """scale times elu(x, alpha), with the paper's constants. Gradient at 0: scale alpha."""
    return F.selu(x)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x / alpha) - 1). Smooth."""
    return F.celu(x, alpha)


def _gelu(x: Tensor) -> Tensor:
    # Not PyTorch's, which is inf for half the largest float, and NaN for inf.
    return (x * math.sqrt(0.5)).erf_().add_(1.0).mul_(0.5).mul_(x)


def _gelu_pullback(needed: Sequence[bool], g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (torch.ops.aten.gelu_backward(g, x),)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_tanh_pullback(needed: Sequence[bool], g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (torch.ops.aten.gelu_backward(g, x.clamp(-_GELU_IS_FLAT, _GELU_IS_FLAT), approximate="tanh"),)


_GELU = {"none": Rule(_gelu, _gelu_pullback), "tanh": Rule(_gelu_tanh, _gelu_tanh_pullback)}


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x (1 + erf(x / sqrt 2)) / 2, or with `tanh` x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Smooth."""
    return _GELU[approximate](x)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x). Smooth."""
    return F.silu(x)


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x))). Smooth."""
    return F.mish(x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, for every x. Smooth."""
    return F.softplus(x, beta, _SOFTPLUS_IS_LINEAR)


def hardswish(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6. Gradient at -3: 0; at 3: 1."""
    return F.hardswish(x)


def hardsigmoid(x: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Gradient at -3 and at 3: 0."""
    if x.dtype == torch.float64:  # of which PyTorch's gradient is the float32 next to 1 / 6
        return F.hardtanh(x, -3.0, 3.0).add(3.0) / 6.0
    return F.hardsigmoid(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)). Smooth."""
    # In float32 where x is of 16 bits: PyTorch's gradient is made from the value, of which 1 - y keeps too little there.
    return torch.sigmoid(wide(x)[0]).to(x.dtype)
