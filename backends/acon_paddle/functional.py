"""Functions of x and of gates on Paddle tensors: overflow-safe, their gradients in closed form, nothing kept but arguments."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.jit import not_to_static
from paddle.utils import flatten

from acon_core.errors import SpecError
from acon_core.spec import SmoothMaximum
from acon_paddle.arrays import BOUND, constant, ensure, exp, gradients, keep, to_rank, wide
from acon_paddle.pointwise import hardswish_slope, hardswish_value

Gradients = tuple[Tensor | None, ...]


class _Acon(PyLayer):
    """x (p2 + (p1 - p2) s), s = sigmoid(beta (p1 - p2) x), with arguments that broadcast against x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        keep(ctx, x, p1, p2, beta)
        dtype = x.dtype
        x, p1, p2, beta = wide(x, p1, p2, beta)
        slope = p1 - p2
        return (x * (p2 + slope * F.sigmoid((beta * slope) * x))).astype(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _acon_gradients(g, ctx.saved_tensor(), ctx.frozen)


@not_to_static
def _acon_gradients(g: Tensor, saved: list[Tensor], frozen: list[bool]) -> Gradients:
    g, x, p1, p2, beta = wide(g, *saved)
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = F.sigmoid(z), F.sigmoid(-z)
    st = s * t
    bend = z.clip(-BOUND, BOUND) * st
    to_p1, to_p2 = s + bend, t - bend
    gx = g * x
    terms = (
        lambda: g * (p1 * to_p1 + p2 * to_p2),
        lambda: gx * to_p1,
        lambda: gx * to_p2,
        lambda: gx * (slope * (x * (slope * st))),
    )
    return gradients(saved, frozen, terms)


def acon(x: Tensor, p1: Tensor | float, p2: Tensor | float, beta: Tensor | float, channel_axis: int = 1) -> Tensor:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`, the batch first. p1, p2, beta: (1,), (C,), (1 or N, 1 or C, 1, 1), the shape of
    x, or a number, which is fixed: p1 = 1 and p2 = 0 give ACON-A and Swish, p1 = 1 ACON-B. Returns the shape and dtype of x;
    16-bit inputs are computed in float32. Smooth: no kinks. For the backward pass it keeps its arguments alone.
    Works under paddle.jit.to_static; Paddle differentiates it once only, since it has no second derivative of a PyLayer.
    Raises SpecError for a gate of another shape. Source: Ma et al. 2021, equation 8.
    """
    y: Tensor = _Acon.apply(x, to_rank(p1, x, channel_axis), to_rank(p2, x, channel_axis), to_rank(beta, x, channel_axis))
    return y


@not_to_static
def _weigh(beta: Tensor, values: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Of the value with the largest weight: itself, half of the others' distance to it, the weights, and the mean of those.

    Halves, since the distance of two finite numbers may overflow.
    """
    sign = 1 - 2 * (beta < 0).astype(beta.dtype)
    pivot = reduce(paddle.maximum, [sign * value for value in values]) * sign
    halves = [value * 0.5 - pivot * 0.5 for value in values]
    powers = [exp(2 * (beta * half)) for half in halves]
    total = sum(powers[1:], powers[0])
    weights = [power / total for power in powers]
    products = [weight * half for weight, half in zip(weights, halves, strict=True)]
    return pivot, halves, weights, sum(products[1:], products[0])


@not_to_static
def _smooth_maximum(ctx: Any, beta: Tensor, values: tuple[Any, ...]) -> Tensor:
    values = flatten(values)  # to_static passes a tuple of a tuple
    keep(ctx, beta, *values)
    pivot, _, _, mean = _weigh(*wide(beta), wide(*values))
    return (2 * (pivot * 0.5 + mean)).astype(values[0].dtype)


@not_to_static
def _smooth_maximum_gradients(g: Tensor, saved: list[Tensor], frozen: list[bool]) -> Gradients:
    g, beta, *values = wide(g, *saved)
    _, halves, weights, mean = _weigh(beta, values)
    away = [half - mean for half in halves]

    def to_beta() -> Tensor:
        terms = [(weight * each) * each for weight, each in zip(weights, away, strict=True)]
        return g * (4 * sum(terms[1:], terms[0]))

    def to_value(weight: Tensor, each: Tensor) -> Tensor:
        return g * (weight + (2 * (beta * each)).clip(-BOUND, BOUND) * weight)

    to_values = [partial(to_value, weight, each) for weight, each in zip(weights, away, strict=True)]
    return gradients(saved, frozen, [to_beta, *to_values])


class _SmoothMaximum(PyLayer):
    """sum of xi exp(beta xi) / sum of exp(beta xi)."""

    @staticmethod
    def forward(ctx: Any, beta: Tensor, *values: Tensor) -> Tensor:
        return _smooth_maximum(ctx, beta, values)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _smooth_maximum_gradients(g, ctx.saved_tensor(), ctx.frozen)


def _check_values(shapes: list[tuple[int, ...]], beta: tuple[int, ...]) -> None:
    if len(shapes) < 2 or not any(-1 in shape for shape in shapes):
        SmoothMaximum().out_shapes(*shapes)
    if set(beta) - {1, -1}:
        raise SpecError(f"smooth_maximum: expected a beta of one element, found shape {beta}")


@not_to_static
def _beta(beta: Tensor | float, values: Any) -> Tensor:
    """A number or a tensor of one element as a tensor without axes; the shapes are checked on the way."""
    values = flatten(values)  # to_static passes a tuple of a tuple
    number = isinstance(beta, int | float)
    ensure(_check_values, [tuple(value.shape) for value in values], () if number else tuple(beta.shape))
    return to_rank(beta, values[0], 1) if number else beta.reshape([])


def smooth_maximum(*values: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """The smooth maximum of two values or more: y = sum of xi exp(beta xi) / sum of exp(beta xi), element by element.

    `values`: of one shape and dtype, which the result has; 16-bit values are computed in float32. `beta`: a number, or a
    tensor of one element, which may have a gradient: towards infinity y is the maximum, 0 the mean, towards minus infinity the
    minimum. Smooth: no kinks. No finite values overflow; of two it is as exact as b + (a - b) sigmoid(beta (a - b)).
    Keeps its arguments alone for the backward pass. Works under paddle.jit.to_static; Paddle differentiates it once only.
    Raises SpecError for fewer than two values, and for different shapes. Source: Ma et al. 2021, equation 2.
    """
    y: Tensor = _SmoothMaximum.apply(_beta(beta, values), *values)
    return y


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two values of one shape. Gradient where they are equal: half to each."""
    y: Tensor = paddle.maximum(a, b)
    return y


class _Slopes(PyLayer):
    """positive x where x > 0, else negative x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, negative: Tensor, positive: Tensor) -> Tensor:
        keep(ctx, x, negative, positive)
        dtype = x.dtype
        x, negative, positive = wide(x, negative, positive)
        return paddle.where(x > 0, positive * x, negative * x).astype(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _slopes_gradients(g, ctx.saved_tensor(), ctx.frozen)


@not_to_static
def _slopes_gradients(g: Tensor, saved: list[Tensor], frozen: list[bool]) -> Gradients:
    g, x, negative, positive = wide(g, *saved)
    above = x > 0
    terms = (
        lambda: paddle.where(above, g * positive, g * negative),
        lambda: paddle.where(above, paddle.zeros_like(x), g * x),
        lambda: paddle.where(above, g * x, paddle.zeros_like(x)),
    )
    return gradients(saved, frozen, terms)


def slopes(x: Tensor, negative: Tensor, channel_axis: int = 1) -> Tensor:
    """PReLU: x where x > 0, else negative x. Gradient at 0: `negative`, and 0 for it. `negative`: a gate as in `acon`."""
    y: Tensor = _Slopes.apply(x, to_rank(negative, x, channel_axis), to_rank(1.0, x, channel_axis))
    return y


def attention_slopes(x: Tensor, alpha: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """AReLU: (1 + sigmoid(beta)) x where x > 0, else a x, with a = alpha held within 0.01 to 0.99. Gradient at 0: a.
    `alpha`, `beta`: gates as in `acon`."""
    low = alpha.clip(constant(0.01, alpha), constant(0.99, alpha))
    y: Tensor = _Slopes.apply(x, to_rank(low, x, channel_axis), to_rank(1 + F.sigmoid(beta), x, channel_axis))
    return y


def collapse_branches(weights: Tensor, alpha: Tensor, softmax: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The factors of x, relu(x) and hardswish(x) that RepAct's branches add up to, each (1,): w0 + alpha w2,
    w1 + (1 - alpha) w2, w3, with w = weights (4,) or their softmax."""
    w0, w1, w2, w3 = (F.softmax(weights) if softmax else weights).split(4)
    return w0 + alpha * w2, w1 + (1 - alpha) * w2, w3


class _Branches(PyLayer):
    """identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor) -> Tensor:
        keep(ctx, x, identity, relu, hardswish, shift)
        dtype = x.dtype
        x, identity, relu, hardswish, shift = wide(x, identity, relu, hardswish, shift)
        return (identity * x + relu * F.relu(x) + hardswish * hardswish_value(x) + shift).astype(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _branches_gradients(g, ctx.saved_tensor(), ctx.frozen)


@not_to_static
def _branches_gradients(g: Tensor, saved: list[Tensor], frozen: list[bool]) -> Gradients:
    g, x, identity, relu, hardswish, _ = wide(g, *saved)
    terms = (
        lambda: g * (identity + relu * (x > 0).astype(x.dtype) + hardswish * hardswish_slope(x)),
        lambda: g * x,
        lambda: g * F.relu(x),
        lambda: g * hardswish_value(x),
        lambda: g,
    )
    return gradients(saved, frozen, terms)


def branches(
    x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | None = None, channel_axis: int = 1
) -> Tensor:
    """RepAct in three factors: identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6, and + shift.

    The factors: gates as in `acon`. Gradient at 0: relu' is 0; at -3 and 3: hardswish' is 0 and 1.
    """
    y: Tensor = _Branches.apply(
        x,
        to_rank(identity, x, channel_axis),
        to_rank(relu, x, channel_axis),
        to_rank(hardswish, x, channel_axis),
        to_rank(0.0 if shift is None else shift, x, channel_axis),
    )
    return y


class _TwoLines(PyLayer):
    """max(a1 x + b1, a2 x + b2), with half of the gradient to each line where they meet."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
        keep(ctx, x, a1, a2, b1, b2)
        dtype = x.dtype
        x, a1, a2, b1, b2 = wide(x, a1, a2, b1, b2)
        return paddle.maximum(a1 * x + b1, a2 * x + b2).astype(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _two_lines_gradients(g, ctx.saved_tensor(), ctx.frozen)


@not_to_static
def _two_lines_gradients(g: Tensor, saved: list[Tensor], frozen: list[bool]) -> Gradients:
    g, x, a1, a2, b1, b2 = wide(g, *saved)
    first, second = a1 * x + b1, a2 * x + b2
    share = ((first > second).astype(x.dtype) + (first >= second).astype(x.dtype)) * 0.5
    g1, g2 = g * share, g * (1 - share)
    terms = (lambda: a1 * g1 + a2 * g2, lambda: g1 * x, lambda: g2 * x, lambda: g1, lambda: g2)
    return gradients(saved, frozen, terms)


@not_to_static
def _coefficients(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int) -> list[Tensor]:
    """(a1, a2, b1, b2), each beside x: (N, 1 or C, 1, 1). 2 sigmoid(theta) - 1 is tanh(theta / 2)."""
    half = paddle.tanh(theta * 0.5).reshape([0, theta.shape[1] // 4, 4])
    return [to_rank(each.unsqueeze([2, 3]), x, channel_axis) for each in (half * lambdas + init_v).unbind(2)]


def dynamic_maximum(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int = 1) -> Tensor:
    """DyReLU: max(a1 x + b1, a2 x + b2), (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v per sample.

    `theta`: (N, 4), or (N, 4 C) for coefficients per channel. `lambdas`, `init_v`: (4,). Gradient where the two are equal:
    half to each.
    """
    a1, a2, b1, b2 = _coefficients(x, theta, lambdas, init_v, channel_axis)
    y: Tensor = _TwoLines.apply(x, a1, a2, b1, b2)
    return y
