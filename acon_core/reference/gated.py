"""Forward and backward rules of gated functions: functions of an input x and of gates.

A gate is a parameter or a computed value that is broadcast against x. Its gradient is summed over
the axes along which it was broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acon_core.reference.core import Array, Context, Gradients, Values, elementwise, evaluate, gradients, sigmoid
from acon_core.reference.pointwise import hardswish, hardswish_slope, relu_slope
from acon_core.spec import gated as g


def to_rank(gate: Array, x: Array) -> Array:
    """Reshape a gate (1,), (C,) or (n, c, 1, ...) so that it broadcasts against x."""
    if gate.shape == x.shape:
        return gate
    batch_and_channels = gate.shape[:2] if gate.ndim > 1 else (1, gate.shape[0])
    return gate.reshape(*batch_and_channels, *(1,) * (x.ndim - 2))


def sum_to_gate(gradient: Array, gate: Array, x: Array) -> Array:
    """Sum a gradient of the shape of x to the shape of the gate: the transpose of broadcasting."""
    shape = to_rank(gate, x).shape
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and x.shape[axis] != 1)
    total: Array = gradient.sum(axes, keepdims=True).reshape(gate.shape)
    return total


def gated_gradients(x: Array, gates: Sequence[Array], dx: Sequence[Array], dgates: Sequence[Sequence[Array]]) -> Gradients:
    """Make the gradients of x and of each gate from their terms, which have the shape of x.

    A gradient is the sum of its terms. Its scale is the sum of their absolute values.
    """

    def sum_of_absolutes(terms: Sequence[Array]) -> Array:
        return sum((np.abs(term) for term in terms), np.zeros(x.shape))

    pairs = list(zip(dgates, gates, strict=True))
    return gradients(
        sum(dx, np.zeros(x.shape)),
        *(sum_to_gate(sum(terms, np.zeros(x.shape)), gate, x) for terms, gate in pairs),
        scales=(sum_of_absolutes(dx), *(sum_to_gate(sum_of_absolutes(terms), gate, x) for terms, gate in pairs)),
    )


@evaluate.register(g.Acon)
def _acon(node: g.Acon, context: Context, x: Array, *gates: Array) -> Values:
    gate_values = dict(zip(node.gates, (to_rank(gate, x) for gate in gates), strict=True))
    p1, p2 = (gate_values.get(name, np.float64(getattr(node, name) or 0.0)) for name in ("p1", "p2"))
    slope = p1 - p2
    z = gate_values["beta"] * slope * x
    s, t = sigmoid(z), sigmoid(-z)
    # z times the derivative of the sigmoid. An infinite z is clipped, because inf * 0 is NaN.
    curvature = np.clip(z, -1e300, 1e300) * (s * t)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        (c,) = cotangents
        cx = c * x
        terms = {
            "p1": (cx * s, cx * curvature),
            "p2": (cx * t, -cx * curvature),
            # slope**2 * x * s * t, multiplied from the smallest factor to avoid overflow.
            "beta": (cx * (slope * (x * (slope * (s * t)))),),
        }
        dx = (c * p1 * (s + curvature), c * p2 * (t - curvature))
        return gated_gradients(x, gates, dx, [terms[name] for name in node.gates])

    return (x * (p2 + slope * s),), vjp


@evaluate.register(g.SmoothMaximum)
def _smooth_maximum(node: g.SmoothMaximum, context: Context, *values: Array) -> Values:
    stacked = np.stack(values)
    exponentials = np.exp(node.beta * stacked - (node.beta * stacked).max(0))
    weights = exponentials / exponentials.sum(0)
    offsets = stacked - stacked.max(0)  # exactly 0 where a value equals the maximum
    mean = (weights * offsets).sum(0)
    y = stacked.max(0) + mean

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        direct = cotangents[0] * weights  # with the weights held constant
        through_weights = direct * (node.beta * (offsets - mean))
        return gradients(*(direct + through_weights), scales=tuple(np.abs(direct) + np.abs(through_weights)))

    return (y,), vjp


@evaluate.register(g.Maximum)
def _maximum(node: g.Maximum, context: Context, a: Array, b: Array) -> Values:
    tie_weight = np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))
    return elementwise(np.maximum(a, b), tie_weight, 1.0 - tie_weight)


@evaluate.register(g.PReLUFunction)
def _prelu(node: g.PReLUFunction, context: Context, x: Array, negative: Array) -> Values:
    slope = np.where(x > 0, 1.0, to_rank(negative, x))

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        (c,) = cotangents
        return gated_gradients(x, (negative,), (c * slope,), ((c * np.minimum(x, 0.0),),))

    return (x * slope,), vjp


@evaluate.register(g.AReLUFunction)
def _arelu(node: g.AReLUFunction, context: Context, x: Array, alpha: Array, beta: Array) -> Values:
    negative_slope, beta_logit = to_rank(np.clip(alpha, 0.01, 0.99), x), to_rank(beta, x)
    slope = np.where(x > 0, 1.0 + sigmoid(beta_logit), negative_slope)
    not_clipped = to_rank(((alpha >= 0.01) & (alpha <= 0.99)).astype(np.float64), x)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        (c,) = cotangents
        dalpha = c * np.minimum(x, 0.0) * not_clipped
        dbeta = c * np.maximum(x, 0.0) * (sigmoid(beta_logit) * sigmoid(-beta_logit))
        return gated_gradients(x, (alpha, beta), (c * slope,), ((dalpha,), (dbeta,)))

    return (x * slope,), vjp


@evaluate.register(g.RepActCoefficients)
def _repact_coefficients(node: g.RepActCoefficients, context: Context, weights: Array, alpha: Array) -> Values:
    w = weights
    if node.softmax:
        exponentials = np.exp(weights - weights.max())
        w = exponentials / exponentials.sum()
    values = (w[:1] + alpha * w[2:3], w[1:2] + (1.0 - alpha) * w[2:3], w[3:])

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        da, db, dh = cotangents
        dw = np.concatenate([da, db, alpha * da + (1.0 - alpha) * db, dh])
        dw_scale = np.concatenate([np.abs(da), np.abs(db), np.abs(alpha * da) + np.abs((1.0 - alpha) * db), np.abs(dh)])
        if node.softmax:
            dw, dw_scale = w * (dw - (w * dw).sum()), w * (dw_scale + (w * dw_scale).sum())
        return gradients(dw, (da - db) * w[2:3], scales=(dw_scale, (np.abs(da) + np.abs(db)) * w[2:3]))

    return values, vjp


@evaluate.register(g.RepActFunction)
def _repact(node: g.RepActFunction, context: Context, x: Array, *gates: Array) -> Values:
    a, b, h, *shift = (to_rank(gate, x) for gate in gates)
    bases = (x, np.maximum(x, 0.0), hardswish(x), *(np.ones(x.shape) for _ in shift))

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        (c,) = cotangents
        dx = (c * a, c * b * relu_slope(x), c * h * hardswish_slope(x))
        return gated_gradients(x, gates, dx, [(c * base,) for base in bases])

    return (a * bases[0] + b * bases[1] + h * bases[2] + (shift[0] if shift else 0.0),), vjp


@evaluate.register(g.DynamicMaximum)
def _dynamic_maximum(node: g.DynamicMaximum, context: Context, x: Array, theta: Array, lambdas: Array, init_v: Array) -> Values:
    per_channel = theta.shape[1] != 4 or x.shape[1] == 1
    half = np.tanh(theta / 2.0)  # 2 sigmoid(theta) - 1
    coefficients = (half.reshape(x.shape[0], theta.shape[1] // 4, 4) * lambdas + init_v).transpose(2, 0, 1)
    a1, a2, b1, b2 = (each.reshape(*each.shape, *(1,) * (x.ndim - 2)) for each in coefficients)
    first, second = a1 * x + b1, a2 * x + b2
    tie_weight = np.where(first > second, 1.0, np.where(first == second, 0.5, 0.0))

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        (c,) = cotangents
        first_c, second_c = c * tie_weight, c * (1.0 - tie_weight)
        parts = (first_c * x, second_c * x, first_c, second_c)
        axes = tuple(range(2, x.ndim)) if per_channel else tuple(range(1, x.ndim))

        def theta_gradient(terms: Sequence[Array]) -> Array:
            total: Array = np.stack([term.sum(axes) for term in terms], -1)
            return (total * (lambdas * (1.0 - half.reshape(*total.shape) ** 2) / 2.0)).reshape(theta.shape)

        dx = (first_c * a1, second_c * a2)
        return gradients(
            dx[0] + dx[1], theta_gradient(parts), np.zeros(4), np.zeros(4),
            scales=(np.abs(dx[0]) + np.abs(dx[1]), theta_gradient([np.abs(part) for part in parts]), np.zeros(4), np.zeros(4)),
        )  # fmt: skip

    return (np.maximum(first, second),), vjp
