"""Elementwise functions on PyTorch tensors, and the specs of PyTorch's own activations.

PyTorch's own where value and gradient are the spec's in every dtype, else a corrected version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_core import spec
from acon_torch.gradient import Rule, inplace, upcast_half

# From here on, log(1 + exp(z)) rounds to z in float64 too. PyTorch's threshold is off by 2e-9.
_SOFTPLUS_THRESHOLD = 40.0
_PYTORCH_SOFTPLUS_THRESHOLD = 20
# Beyond it, the gradient of GELU is exactly 0 or 1. PyTorch's squares x and is NaN from 2e19 on.
_GELU_BOUND = 100.0

relu, relu6, elu, selu, celu = F.relu, F.relu6, F.elu, F.selu, F.celu
silu, mish, hardswish = F.silu, F.mish, F.hardswish


def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """Compute x where x > 0, else slope x. Gradient at 0: slope."""
    return F.leaky_relu(x, slope)


def _gelu(x: Tensor) -> Tensor:
    # Not F.gelu: it is inf for half the largest float, and NaN for inf.
    twice = inplace(inplace(x * math.sqrt(0.5), "erf"), "add", 1.0)
    return inplace(inplace(twice, "mul", 0.5), "mul", x)


def _gelu_pullback(needed: Sequence[bool], g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (torch.ops.aten.gelu_backward(g, x),)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_tanh_pullback(needed: Sequence[bool], g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (torch.ops.aten.gelu_backward(g, x.clamp(-_GELU_BOUND, _GELU_BOUND), approximate="tanh"),)


_GELU = {"none": Rule(_gelu, _gelu_pullback), "tanh": Rule(_gelu_tanh, _gelu_tanh_pullback)}


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute x (1 + erf(x / sqrt 2)) / 2, or its tanh approximation. Smooth."""
    return _GELU[approximate](x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """Compute log(1 + exp(beta x)) / beta, for every x. Smooth."""
    return F.softplus(x, beta, _SOFTPLUS_THRESHOLD)


def hardsigmoid(x: Tensor) -> Tensor:
    """Compute min(max(x + 3, 0), 6) / 6. Gradient at -3 and 3: 0."""
    if x.dtype == torch.float64:  # F.hardsigmoid's gradient is 1 / 6 rounded to float32
        return F.hardtanh(x, -3.0, 3.0).add(3.0) / 6.0
    return F.hardsigmoid(x)


def sigmoid(x: Tensor) -> Tensor:
    """Compute 1 / (1 + exp(-x)). Smooth."""
    # PyTorch computes the gradient from y; in 16 bits, 1 - y keeps too few digits.
    return torch.sigmoid(upcast_half(x)[0]).to(x.dtype)


NATIVE_ACTIVATIONS: dict[type[nn.Module], Any] = {
    nn.Identity: lambda module: spec.Identity(),
    nn.ReLU: lambda module: spec.ReLU(),
    nn.ReLU6: lambda module: spec.ReLU6(),
    nn.LeakyReLU: lambda module: spec.LeakyReLU(module.negative_slope),
    nn.PReLU: lambda module: spec.PReLU() if module.num_parameters == 1 else spec.PReLU(module.num_parameters, shared=False),
    nn.ELU: lambda module: spec.ELU(module.alpha),
    nn.SELU: lambda module: spec.SELU(),
    nn.CELU: lambda module: spec.CELU(module.alpha),
    nn.GELU: lambda module: spec.GELU(module.approximate),
    nn.SiLU: lambda module: spec.SiLU(),
    nn.Mish: lambda module: spec.Mish(),
    # With a threshold below PyTorch's default it is another function.
    nn.Softplus: lambda module: spec.Softplus(module.beta) if module.threshold >= _PYTORCH_SOFTPLUS_THRESHOLD else None,
    nn.Hardswish: lambda module: spec.HardSwish(),
    nn.Hardsigmoid: lambda module: spec.HardSigmoid(),
    nn.Sigmoid: lambda module: spec.Sigmoid(),
}
"""The specs of PyTorch's activation modules. A subclass may compute something else."""

ACTIVATION_FUNCTIONS = {kind.__name__.lower() for kind in NATIVE_ACTIVATIONS} - {"identity"} | {"leaky_relu"}
"""The names of PyTorch's activation functions."""
