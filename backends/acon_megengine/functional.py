"""The gated activation functions on MegEngine tensors.

No intermediate value overflows, and the hand-written gradients keep the arguments only. A *gate*
is a learnt or generated value beside x: a tensor (1,), (C,), (1 or N, 1 or C, 1, 1), or of the
shape of x. Channels of x are at `channel_axis`. All return the shape and dtype of x; 16-bit values
are computed in float32. `acon_core.frontend.gated` has the docstrings.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from operator import add

import megengine.functional as F
from megengine import Tensor

from acon_core import spec
from acon_core.errors import SpecError
from acon_core.frontend.gated import document
from acon_megengine import FRAMEWORK
from acon_megengine.gradient import Gate, Rule, Terms, above, bounded, check_floating, upcast_half
from acon_megengine.kernels import KernelRule
from acon_megengine.pointwise import hardswish_slope, hardswish_value


def _acon(x: Tensor, p1: Gate, p2: Gate, beta: Gate) -> Tensor:
    slope = p1 - p2
    return x * (p2 + slope * F.sigmoid((beta * slope) * x))


def _acon_pullback(g: Tensor, x: Tensor, p1: Gate, p2: Gate, beta: Gate) -> Terms:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = F.sigmoid(z), F.sigmoid(-z)
    st = s * t
    curvature = bounded(z) * st
    # dy/dp1 and dy/dp2 over x. Never 1 - s: it loses the digits that t keeps.
    to_p1, to_p2, to_beta = s + curvature, t - curvature, slope * (x * (slope * st))
    gx = g * x
    dp1, dp2 = (gx * term if isinstance(p, Tensor) else None for p, term in ((p1, to_p1), (p2, to_p2)))
    return g * (p1 * to_p1 + p2 * to_p2), dp1, dp2, gx * to_beta


_ACON = KernelRule(_acon, _acon_pullback, "acon")


def acon(x: Tensor, p1: Gate, p2: Gate, beta: Gate, channel_axis: int = 1) -> Tensor:
    """Compute ACON-C, the smooth maximum of p1 x and p2 x."""
    check_floating("acon", x)
    return _ACON(x, p1, p2, beta, channel_axis=channel_axis)


def _weigh(beta: Gate, values: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Return half of the value of largest weight, half of each distance, the weights, their mean.

    Halves, because the distance of two finite values may overflow. No exponent is above 0.
    """
    largest, smallest = reduce(F.maximum, values), reduce(F.minimum, values)
    if isinstance(beta, Tensor):
        on = above(beta)
        lead = (on * largest + (1.0 - on) * smallest) * 0.5
    else:
        lead = (largest if beta > 0 else smallest) * 0.5
    away = [value * 0.5 - lead for value in values]
    exps = [F.exp((2.0 * beta) * each) for each in away]
    total = reduce(add, exps)
    weights = [each / total for each in exps]
    return lead, away, weights, reduce(add, (w * each for w, each in zip(weights, away, strict=True)))


def _smooth_maximum(x: Tensor, beta: Gate, *others: Tensor) -> Tensor:
    lead, _, _, mean = _weigh(beta, (x, *others))
    return (lead + mean) * 2.0


def _smooth_maximum_pullback(g: Tensor, x: Tensor, beta: Gate, *others: Tensor) -> Terms:
    _, away, weights, mean = _weigh(beta, (x, *others))
    # Distances from y by way of the leading value, because y itself is rounded.
    away = [each - mean for each in away]
    dx, *terms = (g * (w + w * bounded((2.0 * beta) * each)) for w, each in zip(weights, away, strict=True))
    if not isinstance(beta, Tensor):
        return dx, None, *terms
    variance = reduce(add, ((w * each) * each for w, each in zip(weights, away, strict=True)))
    return dx, g * (4.0 * variance), *terms


_SMOOTH_MAXIMUM = Rule(_smooth_maximum, _smooth_maximum_pullback)


def smooth_maximum(*values: Tensor, beta: Gate = 1.0) -> Tensor:
    """Compute the smooth maximum of two or more values, element by element."""
    spec.SmoothMaximum().out_shapes(*(value._tuple_shape for value in values))
    if isinstance(beta, Tensor) and prod(beta._tuple_shape) != 1:
        raise SpecError(f"smooth_maximum: expected beta of one element, found shape {beta._tuple_shape}")
    x, *others = values
    check_floating("smooth_maximum", x)
    gate = F.reshape(beta, (1,) * x.ndim) if isinstance(beta, Tensor) else float(beta)
    return _SMOOTH_MAXIMUM(x, gate, *others)


def _tie_weight(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 where a > b, 1 / 2 at a tie, else 0: what a gets of the gradient of the maximum."""
    return (1.0 + F.sign(a - b)) * 0.5


def _maximum_pullback(g: Tensor, a: Tensor, b: Tensor) -> Terms:
    tie_weight = _tie_weight(a, b)
    return g * tie_weight, g * (1.0 - tie_weight)


# MegEngine's own gives a all of the gradient at a tie.
_MAXIMUM = KernelRule(F.maximum, _maximum_pullback, "maximum")


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """Compute the maximum of two values, element by element."""
    check_floating("maximum", a)
    alike = a.ndim > 1 and a._tuple_shape == b._tuple_shape
    return _MAXIMUM(a, b) if alike else Rule.__call__(_MAXIMUM, a, b)


def _prelu(x: Tensor, _: float, negative: Tensor) -> Tensor:
    return F.maximum(x, 0.0) + negative * F.minimum(x, 0.0)


def _prelu_pullback(g: Tensor, x: Tensor, _: float, negative: Tensor) -> Terms:
    on = above(x)
    return g * (on + (1.0 - on) * negative), None, g * F.minimum(x, 0.0)


_PRELU = KernelRule(_prelu, _prelu_pullback, "slopes")


def prelu(x: Tensor, negative: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute PReLU: x where x > 0, else `negative` times x."""
    check_floating("prelu", x)
    return _PRELU(x, 1.0, negative, channel_axis=channel_axis)


_LOW, _HIGH = 0.01, 0.99


def _arelu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    left = F.minimum(F.maximum(alpha, _LOW), _HIGH)
    return (1.0 + F.sigmoid(beta)) * F.maximum(x, 0.0) + left * F.minimum(x, 0.0)


def _arelu_pullback(g: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
    left, s, on = F.minimum(F.maximum(alpha, _LOW), _HIGH), F.sigmoid(beta), above(x)
    # The bounds belong to the range, as compared in float32.
    inside = (1.0 - above(_LOW - alpha)) * (1.0 - above(alpha - _HIGH))
    dalpha = g * F.minimum(x, 0.0) * inside
    dbeta = g * F.maximum(x, 0.0) * (s * F.sigmoid(-beta))
    return g * (on * (1.0 + s) + (1.0 - on) * left), dalpha, dbeta


_ARELU = KernelRule(_arelu, _arelu_pullback, "attention_slopes")


def arelu(x: Tensor, alpha: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute AReLU: (1 + sigmoid(beta)) x where x > 0, else min(max(alpha, 0.01), 0.99) x."""
    check_floating("arelu", x)
    return _ARELU(x, alpha, beta, channel_axis=channel_axis)


def _softmax(weights: Tensor) -> Tensor:
    exps = F.exp(weights - F.max(weights, 0, keepdims=True))
    return exps / F.sum(exps, 0, keepdims=True)


def _softmax_pullback(g: Tensor, weights: Tensor) -> Terms:
    y = _softmax(weights)
    return (y * (g - F.sum(g * y, 0, keepdims=True)),)


_SOFTMAX = Rule(_softmax, _softmax_pullback)


def repact_coefficients(weights: Tensor, alpha: Tensor, softmax: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the factors of x, relu(x) and hardswish(x) in the sum of the branches of RepAct."""
    w0, w1, w2, w3 = F.split(_SOFTMAX(weights) if softmax else weights, 4)
    return w0 + alpha * w2, w1 + (1.0 - alpha) * w2, w3


def _repact(x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Gate) -> Tensor:
    return identity * x + relu * F.maximum(x, 0.0) + hardswish * hardswish_value(x) + shift


def _repact_pullback(g: Tensor, x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Gate) -> Terms:
    dx = g * (identity + relu * above(x) + hardswish * hardswish_slope(x))
    return dx, g * x, g * F.maximum(x, 0.0), g * hardswish_value(x), g


_REPACT = KernelRule(_repact, _repact_pullback, "branches")


def repact(
    x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | None = None, channel_axis: int = 1
) -> Tensor:
    """Compute identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift."""
    check_floating("repact", x)
    return _REPACT(x, identity, relu, hardswish, 0.0 if shift is None else shift, channel_axis=channel_axis)


def _lines(theta: Tensor, lambdas: Tensor, init_v: Tensor) -> Tensor:
    """Return a1, a2, b1, b2 in (N, 1 or C, 1, 1, 4). 2 sigmoid(z) - 1 = tanh(z / 2)."""
    return lambdas * F.tanh(0.5 * F.reshape(theta, (-1, theta._tuple_shape[1] // 4, 1, 1, 4))) + init_v


def _lines_pullback(g: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor) -> Terms:
    # 2 sigmoid'(z) = 2 sigmoid(z) sigmoid(-z).
    slope = 2.0 * F.sigmoid(theta) * F.sigmoid(-theta)
    return F.reshape(g * lambdas, (-1, theta._tuple_shape[1])) * slope, None, None


_LINES = Rule(_lines, _lines_pullback)


def _two_lines(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return F.maximum(a1 * x + b1, a2 * x + b2)


def _two_lines_pullback(g: Tensor, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Terms:
    tie_weight = _tie_weight(a1 * x + b1, a2 * x + b2)
    g1, g2 = g * tie_weight, g * (1.0 - tie_weight)
    return g1 * a1 + g2 * a2, g1 * x, g2 * x, g1, g2


_TWO_LINES = KernelRule(_two_lines, _two_lines_pullback, "two_lines")


def dynamic_maximum(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute the maximum of two lines, max(a1 x + b1, a2 x + b2): the function of DyReLU."""
    check_floating("dynamic_maximum", x)
    lines = _LINES(*upcast_half(theta, lambdas, init_v))
    return _TWO_LINES(x, *(lines[..., i] for i in range(4)), channel_axis=channel_axis)


document(FRAMEWORK, acon, smooth_maximum, maximum, prelu, arelu, repact_coefficients, repact, dynamic_maximum)
