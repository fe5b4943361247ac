"""Elementwise functions on MegEngine tensors, and the specs of MegEngine's own activations.

MegEngine's own where value and gradient are the spec's, else a value and a slope of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import megengine.functional as F
import megengine.module as M
from megengine import Tensor

from acon_core import spec
from acon_core.spec.pointwise import SELU_ALPHA, SELU_SCALE
from acon_megengine.gradient import Rule, above, bounded

_Map = Callable[[Tensor], Tensor]


def _own(function: _Map, x: Tensor) -> Tensor:
    """Compute a function of MegEngine in float32."""
    return function(x.astype("float32")).astype(x.dtype)


relu, relu6, silu, sigmoid = (partial(_own, function) for function in (F.relu, F.relu6, F.silu, F.sigmoid))


def _by_slope(value: _Map, slope: _Map, x: Tensor) -> Tensor:
    """Compute `value(x)`, whose derivative is `slope(x)`."""
    return Rule(value, lambda g, x: (g * slope(x),))(x)


def _pieces(x: Tensor, right: Tensor | float, left: Tensor | float) -> Tensor:
    """Return `right` where x > 0, else `left`."""
    on = above(x)
    return on * right + (1.0 - on) * left


def identity(x: Tensor) -> Tensor:
    """Return a copy of x: MegEngine has no gradient for an input that is also an output."""
    return F.copy(x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """Compute x where x > 0, else slope x. Gradient at 0: slope; MegEngine's own has 1."""
    return _by_slope(lambda x: F.maximum(x, 0.0) + slope * F.minimum(x, 0.0), lambda x: _pieces(x, 1.0, slope), x)


def _exponential(x: Tensor, scale: float, alpha: float, rate: float) -> Tensor:
    """Compute scale x where x > 0, else scale alpha (exp(rate x) - 1), for ELU, SELU and CELU."""

    def value(x: Tensor) -> Tensor:
        return scale * F.maximum(x, 0.0) + (scale * alpha) * F.expm1(rate * F.minimum(x, 0.0))

    def slope(x: Tensor) -> Tensor:
        return _pieces(x, scale, (scale * alpha * rate) * F.exp(rate * F.minimum(x, 0.0)))

    return _by_slope(value, slope, x)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Compute x where x > 0, else alpha (exp(x) - 1). Gradient at 0: alpha."""
    return _exponential(x, 1.0, alpha, 1.0)


def selu(x: Tensor) -> Tensor:
    """Compute scale times elu(x, alpha), constants as published. Gradient at 0: scale alpha."""
    return _exponential(x, SELU_SCALE, SELU_ALPHA, 1.0)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Compute x where x > 0, else alpha (exp(x / alpha) - 1). Smooth."""
    return _exponential(x, 1.0, alpha, 1.0 / alpha)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute x (1 + erf(x / sqrt 2)) / 2, or its tanh approximation. Smooth."""
    if approximate == "none":
        return _own(F.gelu, x)
    root, cubic = math.sqrt(2.0 / math.pi), 0.044715

    # (1 + tanh(u)) / 2 = sigmoid(2 u). With 1 + cubic x^2 as a factor: x^3 overflows earlier.
    def exponent(x: Tensor) -> Tensor:
        return (2.0 * root) * x * (1.0 + cubic * x * x)

    def slope(x: Tensor) -> Tensor:
        u = exponent(x)
        # Where x^2 overflows, sigmoid'(u) is 0; the bound keeps their product finite.
        rate = bounded((2.0 * root) * x * (1.0 + (3.0 * cubic) * x * x))
        return F.sigmoid(u) + rate * (F.sigmoid(u) * F.sigmoid(-u))

    return _by_slope(lambda x: x * F.sigmoid(exponent(x)), slope, x)


def mish(x: Tensor) -> Tensor:
    """Compute x tanh(log(1 + exp(x))), in a form without overflow. Smooth."""

    def value(x: Tensor) -> Tensor:
        t = F.sigmoid(-x)
        return x * (F.sigmoid(x) * (1.0 + t) / (1.0 + t * t))

    def slope(x: Tensor) -> Tensor:
        s, t = F.sigmoid(x), F.sigmoid(-x)
        square = 1.0 + t * t
        return s * (1.0 + t) / square + bounded(x) * (4.0 * t * t * s) / (square * square)

    return _by_slope(value, slope, x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """Compute log(1 + exp(beta x)) / beta; in MegEngine's own, beta x overflows. Smooth."""

    def value(x: Tensor) -> Tensor:
        return F.maximum(x, 0.0) + F.log1p(F.exp(-beta * F.maximum(x, -x))) / beta

    return _by_slope(value, lambda x: F.sigmoid(beta * x), x)


def hard_gate(x: Tensor) -> Tensor:
    """Compute min(max(x + 3, 0), 6) / 6."""
    return F.minimum(F.maximum(x + 3.0, 0.0), 6.0) / 6.0


def hardswish_value(x: Tensor) -> Tensor:
    """Compute x min(max(x + 3, 0), 6) / 6; divide first, so that nothing overflows."""
    return x * hard_gate(x)


def hardswish_slope(x: Tensor) -> Tensor:
    """Compute the derivative of hardswish: 0 up to -3, 1 from 3 on, (2 x + 3) / 6 between.

    MegEngine's own has -0.5 and 1.5 at the two ends.
    """
    inside = (2.0 * F.minimum(F.maximum(x, -3.0), 3.0) + 3.0) / 6.0
    low, high = above(x + 3.0), above(3.0 - x)
    return low * (high * inside + (1.0 - high))


def hardswish(x: Tensor) -> Tensor:
    """Compute x min(max(x + 3, 0), 6) / 6. Gradient at -3: 0; at 3: 1."""
    return _by_slope(hardswish_value, hardswish_slope, x)


def hardsigmoid(x: Tensor) -> Tensor:
    """Compute min(max(x + 3, 0), 6) / 6. Gradient at -3 and 3: 0."""
    return _by_slope(hard_gate, lambda x: above(x + 3.0) * above(3.0 - x) / 6.0, x)


NATIVE_ACTIVATIONS: dict[type[M.Module], Callable[[Any], spec.Node]] = {
    M.Identity: lambda module: spec.Identity(),
    M.ReLU: lambda module: spec.ReLU(),
    M.LeakyReLU: lambda module: spec.LeakyReLU(module.negative_slope),
    M.PReLU: lambda module: spec.PReLU(module.num_parameters, shared=module.num_parameters == 1),
    M.GELU: lambda module: spec.GELU(),
    M.SiLU: lambda module: spec.SiLU(),
    M.Sigmoid: lambda module: spec.Sigmoid(),
}
"""The specs of MegEngine's activation modules. A subclass may compute something else."""

ACTIVATION_FUNCTIONS = ("relu", "relu6", "leaky_relu", "prelu", "gelu", "silu", "softplus", "sigmoid", "hswish", "hsigmoid")
"""The activation functions of `megengine.functional`."""
