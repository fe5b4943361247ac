"""The gated activation functions on Paddle tensors.

No intermediate value overflows, and the hand-written gradients keep the arguments only. A *gate*
is a learnt or generated value beside x: a tensor (1,), (C,), (1 or N, 1 or C, 1, 1), or of the
shape of x. Channels of x are at `channel_axis`. All return the shape and dtype of x; 16-bit values
are computed in float32. `acon_core.frontend.gated` has the docstrings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.jit import not_to_static
from paddle.utils import flatten

from acon_core.errors import SpecError
from acon_core.frontend.gated import document
from acon_core.spec import SmoothMaximum
from acon_paddle import FRAMEWORK, kernels
from acon_paddle.arrays import constant
from acon_paddle.gradient import (
    BOUND,
    Gate,
    Rule,
    Terms,
    apply,
    by_kernel,
    check_floating,
    ensure,
    gated,
    to_rank,
    upcast_half,
)
from acon_paddle.pointwise import exp, hardswish_slope, hardswish_value


def _acon(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    slope = p1 - p2
    return x * (p2 + slope * F.sigmoid((beta * slope) * x))


def _acon_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Terms:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = F.sigmoid(z), F.sigmoid(-z)
    st = s * t
    curvature = z.clip(-BOUND, BOUND) * st
    # dy/dp1 and dy/dp2 over x. Never 1 - s: it loses the digits that t keeps.
    to_p1, to_p2 = s + curvature, t - curvature
    gx = g * x
    yield g * (p1 * to_p1 + p2 * to_p2) if needed[0] else None
    yield gx * to_p1 if needed[1] else None
    yield gx * to_p2 if needed[2] else None
    yield gx * (slope * (x * (slope * st))) if needed[3] else None


_ACON = Rule(_acon, _acon_pullback, "acon")


def acon(x: Tensor, p1: Gate, p2: Gate, beta: Gate, channel_axis: int = 1) -> Tensor:
    """Compute ACON-C, the smooth maximum of p1 x and p2 x."""
    check_floating("acon", x)
    return gated(_ACON, x, p1, p2, beta, channel_axis=channel_axis)


def _weigh(beta: Tensor, values: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Return the value of largest weight, half of each distance from it, the weights, their mean.

    Halves, because the distance of two finite numbers may overflow.
    """
    sign = 1 - 2 * (beta < 0).astype(beta.dtype)
    pivot = reduce(paddle.maximum, [sign * value for value in values]) * sign
    halves = [value * 0.5 - pivot * 0.5 for value in values]
    powers = [exp(2 * (beta * half)) for half in halves]
    total = sum(powers[1:], powers[0])
    weights = [power / total for power in powers]
    products = [weight * half for weight, half in zip(weights, halves, strict=True)]
    return pivot, halves, weights, sum(products[1:], products[0])


def _smooth_maximum(x: Tensor, beta: Tensor, *others: Tensor) -> Tensor:
    pivot, _, _, mean = _weigh(beta, [x, *others])
    return 2 * (pivot * 0.5 + mean)


def _smooth_maximum_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, beta: Tensor, *others: Tensor) -> Terms:
    _, halves, weights, mean = _weigh(beta, [x, *others])
    away = [half - mean for half in halves]

    def to_value(i: int) -> Tensor:
        return g * (weights[i] + (2 * (beta * away[i])).clip(-BOUND, BOUND) * weights[i])

    yield to_value(0) if needed[0] else None
    terms = [(weight * each) * each for weight, each in zip(weights, away, strict=True)]
    yield g * (4 * sum(terms[1:], terms[0])) if needed[1] else None
    for i in range(1, len(weights)):
        yield to_value(i) if needed[i + 1] else None


_SMOOTH_MAXIMUM = Rule(_smooth_maximum, _smooth_maximum_pullback)


def _check_values(shapes: list[tuple[int, ...]], beta: tuple[int, ...]) -> None:
    if len(shapes) < 2 or not any(-1 in shape for shape in shapes):
        SmoothMaximum().out_shapes(*shapes)
    if set(beta) - {1, -1}:
        raise SpecError(f"smooth_maximum: expected beta of one element, found shape {beta}")


@not_to_static
def _checked_beta(beta: Gate, values: Any) -> Tensor:
    """Check the shapes, and return beta as a tensor without axes."""
    values = flatten(values)  # to_static passes a tuple of a tuple
    number = isinstance(beta, int | float)
    ensure(_check_values, [tuple(value.shape) for value in values], () if number else tuple(beta.shape))
    return to_rank(beta, values[0], 1) if number else beta.reshape([])


@not_to_static
def _of_two(values: Any, beta: Tensor) -> Tensor | None:
    """Return b + (a - b) sigmoid(beta (a - b)), or None where the kernel library does not serve it.

    In halves, because the distance of two finite numbers may overflow.
    """
    values = flatten(values)
    if len(values) != 2:
        return None
    a, b = upcast_half(*values)
    if not kernels.usable("acon", a, (1.0, 0.0, beta), 1):
        return None
    step = acon(a * 0.5 - b * 0.5, 1.0, 0.0, 2 * beta)
    return (b + step + step).astype(values[0].dtype)


def smooth_maximum(*values: Tensor, beta: Gate = 1.0) -> Tensor:
    """Compute the smooth maximum of two or more values, element by element."""
    scalar = _checked_beta(beta, values)
    check_floating("smooth_maximum", values[0])
    y = _of_two(values, scalar)
    return apply(_SMOOTH_MAXIMUM, values[0], scalar, *values[1:]) if y is None else y


def _tie_weight(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 where a is larger, 1 / 2 at a tie, else 0."""
    return ((a > b).astype(a.dtype) + (a >= b).astype(a.dtype)) * 0.5


def _maximum_pullback(needed: Sequence[bool], g: Tensor, a: Tensor, b: Tensor) -> Terms:
    yield g * _tie_weight(a, b) if needed[0] else None
    yield g * _tie_weight(b, a) if needed[1] else None


_MAXIMUM = Rule(paddle.maximum, _maximum_pullback, "maximum")


@not_to_static
def maximum(a: Tensor, b: Tensor) -> Tensor:
    """Compute the maximum of two values, element by element."""
    check_floating("maximum", a)
    alike = a.shape == b.shape and a.dtype == b.dtype
    y = by_kernel(_MAXIMUM, a, (b,), 1) if alike else None
    return paddle.maximum(a, b) if y is None else y


def _prelu(x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    return paddle.where(x > 0, positive * x, negative * x)


def _prelu_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, positive: Tensor, negative: Tensor) -> Terms:
    above = x > 0
    yield paddle.where(above, g * positive, g * negative) if needed[0] else None
    yield paddle.where(above, g * x, paddle.zeros_like(x)) if needed[1] else None
    yield paddle.where(above, paddle.zeros_like(x), g * x) if needed[2] else None


_PRELU = Rule(_prelu, _prelu_pullback, "slopes")


def prelu(x: Tensor, negative: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute PReLU: x where x > 0, else `negative` times x."""
    check_floating("prelu", x)
    return gated(_PRELU, x, 1.0, negative, channel_axis=channel_axis)


def _arelu_slopes(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    return 1 + F.sigmoid(beta), alpha.clip(constant(_LOW, alpha), constant(_HIGH, alpha))


def _arelu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _prelu(x, *_arelu_slopes(alpha, beta))


def _arelu_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
    of_each = (needed[0], needed[2], needed[1])
    dx, to_positive, to_negative = _prelu_pullback(of_each, g, x, *_arelu_slopes(alpha, beta))
    inside = ((alpha >= constant(_LOW, alpha)) & (alpha <= constant(_HIGH, alpha))).astype(x.dtype)
    yield dx
    yield None if to_negative is None else to_negative * inside
    yield None if to_positive is None else to_positive * (F.sigmoid(beta) * F.sigmoid(-beta))


_LOW, _HIGH = 0.01, 0.99
_ARELU = Rule(_arelu, _arelu_pullback, "attention_slopes")


def arelu(x: Tensor, alpha: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute AReLU: (1 + sigmoid(beta)) x where x > 0, else min(max(alpha, 0.01), 0.99) x."""
    check_floating("arelu", x)
    return gated(_ARELU, x, alpha, beta, channel_axis=channel_axis)


def repact_coefficients(weights: Tensor, alpha: Tensor, softmax: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the factors of x, relu(x) and hardswish(x) in the sum of the branches of RepAct."""
    w0, w1, w2, w3 = (F.softmax(weights) if softmax else weights).split(4)
    return w0 + alpha * w2, w1 + (1 - alpha) * w2, w3


def _repact(x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor) -> Tensor:
    return identity * x + relu * F.relu(x) + hardswish * hardswish_value(x) + shift


def _repact_pullback(
    needed: Sequence[bool], g: Tensor, x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor
) -> Terms:
    yield g * (identity + relu * (x > 0).astype(x.dtype) + hardswish * hardswish_slope(x)) if needed[0] else None
    yield g * x if needed[1] else None
    yield g * F.relu(x) if needed[2] else None
    yield g * hardswish_value(x) if needed[3] else None
    yield g if needed[4] else None


_REPACT = Rule(_repact, _repact_pullback, "branches")


def repact(
    x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | None = None, channel_axis: int = 1
) -> Tensor:
    """Compute identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift."""
    check_floating("repact", x)
    return gated(_REPACT, x, identity, relu, hardswish, 0.0 if shift is None else shift, channel_axis=channel_axis)


def _line_maximum(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return paddle.maximum(a1 * x + b1, a2 * x + b2)


def _line_maximum_pullback(
    needed: Sequence[bool], g: Tensor, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor
) -> Terms:
    first, second = a1 * x + b1, a2 * x + b2
    tie_weight = _tie_weight(first, second)
    g1, g2 = g * tie_weight, g * (1 - tie_weight)
    yield a1 * g1 + a2 * g2 if needed[0] else None
    yield g1 * x if needed[1] else None
    yield g2 * x if needed[2] else None
    yield g1 if needed[3] else None
    yield g2 if needed[4] else None


_LINE_MAXIMUM = Rule(_line_maximum, _line_maximum_pullback, "two_lines")


@not_to_static
def _lines(theta: Tensor, lambdas: Tensor, init_v: Tensor) -> list[Tensor]:
    """Return a1, a2, b1, b2: (N, 1 or C, 1, 1). 2 sigmoid(z) - 1 = tanh(z / 2)."""
    half = paddle.tanh(theta * 0.5).reshape([0, theta.shape[1] // 4, 4])
    return [each.unsqueeze([2, 3]) for each in (half * lambdas + init_v).unbind(2)]


def dynamic_maximum(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute the maximum of two lines, max(a1 x + b1, a2 x + b2): the function of DyReLU."""
    check_floating("dynamic_maximum", x)
    a1, a2, b1, b2 = _lines(theta, lambdas, init_v)
    return gated(_LINE_MAXIMUM, x, a1, a2, b1, b2, channel_axis=channel_axis)


document(FRAMEWORK, acon, smooth_maximum, maximum, prelu, arelu, repact_coefficients, repact, dynamic_maximum)
