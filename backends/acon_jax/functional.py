"""The gated activation functions on JAX arrays.

No intermediate value overflows, and the hand-written gradients keep the arguments only. A *gate*
is a learnt or generated value beside x: an array (1,), (C,), of the shape of x, or 1 or N where x
has its batch, 1 or C where it has its channels, and ones otherwise; beside x of another rank than
4, (N, 1, 1, C) or (N, C, 1, 1). Channels of x are at `channel_axis`. All return the shape and dtype
of x; 16-bit values are computed in float32.

These are plain functions, for nnx, Linen, Equinox and Haiku alike. They support jit, vmap, grad,
grad of grad and hessian, but not jvp and jacfwd: JAX has no forward mode for custom_vjp.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from acon_core.errors import SpecError
from acon_core.frontend.gated import document
from acon_jax import FRAMEWORK, pointwise
from acon_jax.gradient import (
    BOUND,
    Gate,
    Rule,
    Terms,
    among_ones,
    check_axis,
    check_floating,
    to_rank,
    upcast_half,
    varying_alike,
)


def _acon(x: Array, p1: Gate, p2: Gate, beta: Gate) -> Array:
    slope = p1 - p2
    return x * (p2 + slope * jax.nn.sigmoid((beta * slope) * x))


def _acon_pullback(g: Array, x: Array, p1: Gate, p2: Gate, beta: Gate) -> Terms:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    st = s * t
    curvature = jnp.clip(z, -BOUND, BOUND) * st
    # dy/dp1 and dy/dp2 over x. Never 1 - s: it loses the digits that t keeps.
    to_p1, to_p2 = s + curvature, t - curvature
    gx = g * x
    return g * (p1 * to_p1 + p2 * to_p2), gx * to_p1, gx * to_p2, gx * (slope * (x * (slope * st)))


_ACON = Rule(_acon, _acon_pullback, "acon")


def acon(x: Array, p1: Gate, p2: Gate, beta: Gate, channel_axis: int = -1) -> Array:
    """Compute ACON-C, the smooth maximum of p1 x and p2 x."""
    check_floating("acon", x)
    return _ACON(x, *(to_rank(gate, x, channel_axis) for gate in (p1, p2, beta)))


def _weigh(values: Array, beta: Array) -> tuple[Array, Array, Array]:
    """Return (m, h, w) with y = m + 2 sum(w h).

    m is the value of largest weight, h half of each distance from it, w the softmax. Halves,
    because the distance of two finite values may overflow. No exponent is above 0.
    """
    ends = values.max(0, keepdims=True), values.min(0, keepdims=True)
    m = jax.lax.stop_gradient(jnp.where(beta >= 0, *ends))  # y does not depend on it
    h = values / 2 - m / 2
    powers = jnp.exp(2 * beta * h)
    return m[0], h, powers / powers.sum(0, keepdims=True)


@jax.jit
def _smooth_forward(beta: Array, *values: Array) -> Array:
    m, h, w = _weigh(*upcast_half(jnp.stack(values), beta))
    half = (w * h).sum(0)
    return ((m + half) + half).astype(values[0].dtype)


_smooth = jax.custom_vjp(_smooth_forward)


@jax.jit
def _smooth_backward(saved: tuple[Array, ...], g: Array) -> Terms:
    beta, *values = saved
    g, stacked, wide = upcast_half(g, jnp.stack(values), beta)
    _, h, w = _weigh(stacked, wide)
    away = h - (w * h).sum(0, keepdims=True)  # half of x - y
    to_values = g[None] * (w + w * jnp.clip(2 * wide * away, -BOUND, BOUND))
    to_beta = (g * ((w * away) * away).sum(0)).sum() * 4
    return to_beta.astype(beta.dtype), *(term.astype(value.dtype) for term, value in zip(to_values, values, strict=True))


_smooth.defvjp(lambda *arrays: (_smooth_forward(*arrays), arrays), _smooth_backward)


def smooth_maximum(*values: Array, beta: Gate = 1.0) -> Array:
    """Compute the smooth maximum of two or more values, element by element."""
    if len(values) < 2 or len({value.shape for value in values}) > 1:
        raise SpecError(f"smooth_maximum: expected two values or more of one shape, found {[v.shape for v in values]}")
    check_floating("smooth_maximum", values[0])
    scalar = jnp.asarray(beta, jnp.promote_types(values[0].dtype, jnp.float32)).reshape(())
    y: Array = _smooth(*varying_alike(scalar, *values))
    return y


def maximum(a: Array, b: Array) -> Array:
    """Compute the maximum of two values, element by element."""
    check_floating("maximum", a)
    return jnp.maximum(a, b)


def _prelu(x: Array, positive: Gate, negative: Gate) -> Array:
    return jnp.where(x > 0, positive, negative) * x


def _prelu_pullback(g: Array, x: Array, positive: Gate, negative: Gate) -> Terms:
    return g * jnp.where(x > 0, positive, negative), g * jnp.maximum(x, 0.0), g * jnp.minimum(x, 0.0)


_PRELU = Rule(_prelu, _prelu_pullback, "slopes")


def prelu(x: Array, negative: Gate, channel_axis: int = -1) -> Array:
    """Compute PReLU: x where x > 0, else `negative` times x."""
    check_floating("prelu", x)
    return _PRELU(x, 1.0, to_rank(negative, x, channel_axis))


@jax.jit
def _arelu_slopes(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Return the slopes of AReLU. The bounds are inside, where jnp.clip has half a gradient."""
    alpha, beta = upcast_half(alpha, beta)
    inside = (alpha >= 0.01) & (alpha <= 0.99)
    return 1.0 + jax.nn.sigmoid(beta), jnp.where(inside, alpha, jax.lax.stop_gradient(jnp.clip(alpha, 0.01, 0.99)))


def arelu(x: Array, alpha: Array, beta: Array, channel_axis: int = -1) -> Array:
    """Compute AReLU: (1 + sigmoid(beta)) x where x > 0, else min(max(alpha, 0.01), 0.99) x."""
    check_floating("arelu", x)
    return _PRELU(x, *(to_rank(slope, x, channel_axis) for slope in _arelu_slopes(alpha, beta)))


@partial(jax.jit, static_argnames="softmax")
def repact_coefficients(weights: Array, alpha: Array, softmax: bool = False) -> tuple[Array, Array, Array]:
    """Compute the factors of x, relu(x) and hardswish(x) in the sum of the branches of RepAct."""
    weights, alpha = upcast_half(weights, alpha)
    w0, w1, w2, w3 = jnp.split(jax.nn.softmax(weights) if softmax else weights, 4)
    return w0 + alpha * w2, w1 + (1.0 - alpha) * w2, w3


def _repact(x: Array, identity: Gate, relu: Gate, hardswish: Gate, shift: Gate) -> Array:
    return identity * x + relu * pointwise.relu(x) + hardswish * pointwise.hardswish(x) + shift


def _repact_pullback(g: Array, x: Array, identity: Gate, relu: Gate, hardswish: Gate, shift: Gate) -> Terms:
    to_x = identity + relu * (x > 0) + hardswish * pointwise.hardswish_slope(x)
    return g * to_x, g * x, g * pointwise.relu(x), g * pointwise.hardswish(x), g


_REPACT = Rule(_repact, _repact_pullback, "branches")


def repact(x: Array, identity: Gate, relu: Gate, hardswish: Gate, shift: Gate | None = None, channel_axis: int = -1) -> Array:
    """Compute identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift."""
    gates = (identity, relu, hardswish, 0.0 if shift is None else shift)
    check_floating("repact", x)
    return _REPACT(x, *(to_rank(gate, x, channel_axis) for gate in gates))


def _line_maximum(x: Array, a1: Array, a2: Array, b1: Array, b2: Array) -> Array:
    return jnp.maximum(a1 * x + b1, a2 * x + b2)


def _line_maximum_pullback(g: Array, x: Array, a1: Array, a2: Array, b1: Array, b2: Array) -> Terms:
    u, v = a1 * x + b1, a2 * x + b2
    tie_weight = jnp.where(u > v, 1.0, jnp.where(u == v, 0.5, 0.0)).astype(u.dtype)
    first, second = g * tie_weight, g * (1.0 - tie_weight)
    return first * a1 + second * a2, first * x, second * x, first, second


_LINE_MAXIMUM = Rule(_line_maximum, _line_maximum_pullback, "two_lines")


@jax.jit
def _lines(theta: Array, lambdas: Array, init_v: Array) -> Array:
    """Return a1, a2, b1, b2, each (N, 1 or C). 2 sigmoid(z) - 1 = tanh(z / 2)."""
    theta, lambdas, init_v = upcast_half(theta, lambdas, init_v)
    spread = jnp.tanh(theta.reshape(theta.shape[0], theta.shape[1] // 4, 4) / 2)
    return jnp.moveaxis(lambdas.reshape(1, 1, 4) * spread + init_v.reshape(1, 1, 4), -1, 0)


def dynamic_maximum(x: Array, theta: Array, lambdas: Array, init_v: Array, channel_axis: int = -1) -> Array:
    """Compute the maximum of two lines, max(a1 x + b1, a2 x + b2): the function of DyReLU."""
    check_floating("dynamic_maximum", x)
    check_axis(x.shape, channel_axis)
    lines = _lines(theta, lambdas, init_v)
    shape = among_ones(x, channel_axis, *lines.shape[1:])
    return _LINE_MAXIMUM(x, *(to_rank(line, x, channel_axis) for line in lines.reshape(4, *shape)))


document(FRAMEWORK, acon, smooth_maximum, maximum, prelu, arelu, repact_coefficients, repact, dynamic_maximum)
