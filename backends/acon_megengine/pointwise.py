"""Functions of each element on MegEngine tensors: its own where value and gradient are the spec's, ours where they are not."""

from __future__ import annotations

import math
from collections.abc import Callable

import megengine.functional as F
from megengine import Tensor

from acon_core.spec.pointwise import SELU_ALPHA, SELU_SCALE
from acon_megengine.gradient import above, bounded, custom

Elementwise = Callable[[Tensor], Tensor]


def _own(function: Elementwise, x: Tensor) -> Tensor:
    """A function of MegEngine's, computed in float32."""
    return function(x.astype("float32")).astype(x.dtype)


def _by_slope(value: Elementwise, slope: Elementwise, x: Tensor) -> Tensor:
    """`value(x)`, whose gradient is g times `slope(x)`."""
    return custom(value, lambda g, x: (g * slope(x),), x)


def _pieces(x: Tensor, right: Tensor | float, left: Tensor | float) -> Tensor:
    """`right` where x > 0, else `left`."""
    on = above(x)
    return on * right + (1.0 - on) * left


def identity(x: Tensor) -> Tensor:
    """A copy of x: MegEngine has no gradient for an input that is put out as it is."""
    return F.copy(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0). Gradient at 0: 0."""
    return _own(F.relu, x)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6). Gradient at 0 and at 6: 0."""
    return _own(F.relu6, x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where x > 0, else slope x. Gradient at 0: slope, where MegEngine's own has 1."""
    return _by_slope(lambda x: F.maximum(x, 0.0) + slope * F.minimum(x, 0.0), lambda x: _pieces(x, 1.0, slope), x)


def _exponential(x: Tensor, scale: float, alpha: float, rate: float) -> Tensor:
    """scale x where x > 0, else scale alpha (exp(rate x) - 1): ELU, SELU and CELU. Gradient at 0: the left side's."""

    def value(x: Tensor) -> Tensor:
        return scale * F.maximum(x, 0.0) + (scale * alpha) * F.expm1(rate * F.minimum(x, 0.0))

    def slope(x: Tensor) -> Tensor:
        return _pieces(x, scale, (scale * alpha * rate) * F.exp(rate * F.minimum(x, 0.0)))

    return _by_slope(value, slope, x)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x) - 1). Gradient at 0: alpha."""
    return _exponential(x, 1.0, alpha, 1.0)


def selu(x: Tensor) -> Tensor:
    """scale x where x > 0, else scale alpha (exp(x) - 1). Gradient at 0: scale alpha."""
    return _exponential(x, SELU_SCALE, SELU_ALPHA, 1.0)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x / alpha) - 1): smooth."""
    return _exponential(x, 1.0, alpha, 1.0 / alpha)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x (1 + erf(x / sqrt 2)) / 2, or with `approximate` = `tanh`: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    if approximate == "none":
        return _own(F.gelu, x)
    root, cubic = math.sqrt(2.0 / math.pi), 0.044715

    # (1 + tanh(u)) / 2 = sigmoid(2 u), and 1 + cubic x^2 as a factor: x^3 alone would overflow first.
    def exponent(x: Tensor) -> Tensor:
        return (2.0 * root) * x * (1.0 + cubic * x * x)

    def slope(x: Tensor) -> Tensor:
        u = exponent(x)
        # Where x^2 overflows, sigmoid'(u) is 0; the bound keeps 0 times it finite.
        rate = bounded((2.0 * root) * x * (1.0 + (3.0 * cubic) * x * x))
        return F.sigmoid(u) + rate * (F.sigmoid(u) * F.sigmoid(-u))

    return _by_slope(lambda x: x * F.sigmoid(exponent(x)), slope, x)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return _own(F.silu, x)


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x))) = x s (1 + t) / (1 + t^2), with s = sigmoid(x), t = sigmoid(-x): no exponential overflows."""

    def value(x: Tensor) -> Tensor:
        t = F.sigmoid(-x)
        return x * (F.sigmoid(x) * (1.0 + t) / (1.0 + t * t))

    def slope(x: Tensor) -> Tensor:
        s, t = F.sigmoid(x), F.sigmoid(-x)
        square = 1.0 + t * t
        return s * (1.0 + t) / square + bounded(x) * (4.0 * t * t * s) / (square * square)

    return _by_slope(value, slope, x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, without the overflow of beta x that MegEngine's own would have."""

    def value(x: Tensor) -> Tensor:
        return F.maximum(x, 0.0) + F.log1p(F.exp(-beta * F.maximum(x, -x))) / beta

    return _by_slope(value, lambda x: F.sigmoid(beta * x), x)


def hard_gate(x: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return F.minimum(F.maximum(x + 3.0, 0.0), 6.0) / 6.0


def hardswish_value(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6, divided before it is multiplied: 6 x may overflow."""
    return x * hard_gate(x)


def hardswish_slope(x: Tensor) -> Tensor:
    """0 up to -3, 1 from 3 on, (2 x + 3) / 6 between. MegEngine's own has -0.5 and 1.5 at the two ends."""
    inside = (2.0 * F.minimum(F.maximum(x, -3.0), 3.0) + 3.0) / 6.0
    low, high = above(x + 3.0), above(3.0 - x)
    return low * (high * inside + (1.0 - high))


def hardswish(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6. Gradient at -3: 0; at 3: 1."""
    return _by_slope(hardswish_value, hardswish_slope, x)


def hardsigmoid(x: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Gradient at -3 and at 3: 0."""
    return _by_slope(hard_gate, lambda x: above(x + 3.0) * above(3.0 - x) / 6.0, x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _own(F.sigmoid, x)
