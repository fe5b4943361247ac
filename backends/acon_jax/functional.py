"""Functions of x and of gates beside it, on JAX arrays: gradients in closed form that keep the arguments alone.

Plain functions, for nnx, Linen, Equinox or Haiku alike: they work under jit, vmap, grad, grad of grad and hessian; not under
jvp or jacfwd, since JAX has no forward mode for functions with a reverse mode of their own. `channel_axis` is where x has its
channels. A gate has shape (1,), (C,), that of x, or 1 or N where x has its batch, 1 or C where it has its channels, and ones
otherwise, such as (N, 1, 1, C); beside x of another rank than 4, (N, 1, 1, C) or (N, C, 1, 1). All return the shape and dtype
of x; 16-bit values are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from acon_core.errors import SpecError
from acon_core.spec import Shape
from acon_jax.pointwise import hardswish, hardswish_slope, relu, widened

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38

Gate = Array | float


class Rule(NamedTuple):
    """`value(x, *gates)` and `terms(g, x, *gates)`: what the gradients of x and of each gate are the sums of."""

    value: Callable[..., Array]
    terms: Callable[..., tuple[Array, ...]]


Fixed = tuple[float | None, ...]


def _with_fixed(gates: tuple[Array, ...], fixed: Fixed) -> list[Gate]:
    """All gates in order: those that are numbers, and arrays where `fixed` is None."""
    given = iter(gates)
    return [widened(next(given)) if number is None else number for number in fixed]


@partial(jax.jit, static_argnums=(0, 1))
def _forward(rule: Rule, fixed: Fixed, x: Array, *gates: Array) -> Array:
    return rule.value(widened(x), *_with_fixed(gates, fixed)).astype(x.dtype)


_gated = jax.custom_vjp(_forward, nondiff_argnums=(0, 1))


def _forward_and_saved(rule: Rule, fixed: Fixed, *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    # Not _gated itself: a rule that calls its own function cannot be differentiated forward, so there would be no Hessian.
    return _forward(rule, fixed, *arrays), arrays


@partial(jax.jit, static_argnums=(0, 1))
def _backward(rule: Rule, fixed: Fixed, saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    # Compiled as one, so that a term that nobody asks for, of a fixed gate, is not computed.
    x, *gates = saved
    to_x, *to_gates = rule.terms(widened(g), widened(x), *_with_fixed(tuple(gates), fixed))
    wanted = [term for term, number in zip(to_gates, fixed, strict=True) if number is None]
    return tuple(_sum_to(term, like) for term, like in zip((to_x, *wanted), saved, strict=True))


_gated.defvjp(_forward_and_saved, _backward)


def _sum_to(term: Array, like: Array) -> Array:
    axes = [axis for axis, size in enumerate(like.shape) if size != term.shape[axis]]
    return term.sum(axes, keepdims=True).astype(like.dtype)


def check_axis(shape: Shape, channel_axis: int) -> None:
    """Raise SpecError unless it is an axis behind the batch. Alone, as a row under vmap is, channels have the last one."""
    if channel_axis not in (-1, *range(1, len(shape)), *range(1 - len(shape), -1)):
        raise SpecError(f"channel_axis {channel_axis}: expected an axis of x {shape} behind the batch")


def _among_ones(x: Array, channel_axis: int, batch: int, channels: int) -> Shape:
    """The rank of x with these two sizes where x has its batch and its channels."""
    sizes = [1] * x.ndim
    if x.ndim > 1:
        sizes[0] = batch
    if x.ndim > 0:
        sizes[channel_axis] = channels
    return tuple(sizes)


def _to_rank(gate: Array, x: Array, channel_axis: int) -> Array:
    """A gate as something that broadcasts against x with the channels at `channel_axis`."""
    if gate.shape == x.shape:
        return gate
    most = (x.shape[0] if x.ndim > 1 else 1, x.shape[channel_axis] if x.ndim else 1)
    for n, c in product({1, most[0]}, {1, most[1]}):
        shape = _among_ones(x, channel_axis, n, c)
        # In the rank of x, a gate is what NumPy would broadcast it as, and nothing else.
        known = {shape, *([(c,)] if n == 1 else []), *([(n, 1, 1, c), (n, c, 1, 1)] if x.ndim != 4 else [])}
        if (gate.shape or (1,)) in known:
            return gate.reshape(shape)
    own = _among_ones(x, channel_axis, *most)
    raise SpecError(
        f"expected a gate of shape (1,), ({most[1]},), {own} or 1 in place of its sizes, or that of x, found {gate.shape} "
        f"beside x {x.shape} with its channels at axis {channel_axis}; pass channel_axis=1 for (N, C, ...)"
    )


def _apply(rule: Rule, x: Array, *gates: Gate, channel_axis: int = -1) -> Array:
    check_axis(x.shape, channel_axis)
    fixed = tuple(float(gate) if isinstance(gate, float | int) else None for gate in gates)
    arrays = [_to_rank(gate, x, channel_axis) for gate in gates if not isinstance(gate, float | int)]
    y: Array = _gated(rule, fixed, x, *arrays)
    return y


def _acon(x: Array, p1: Gate, p2: Gate, beta: Gate) -> Array:
    slope = p1 - p2
    return x * (p2 + slope * jax.nn.sigmoid((beta * slope) * x))


def _acon_terms(g: Array, x: Array, p1: Gate, p2: Gate, beta: Gate) -> tuple[Array, ...]:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    st = s * t
    bend = jnp.clip(z, -BOUND, BOUND) * st
    to_p1, to_p2 = s + bend, t - bend
    gx = g * x
    return g * (p1 * to_p1 + p2 * to_p2), gx * to_p1, gx * to_p2, gx * (slope * (x * (slope * st)))


ACON = Rule(_acon, _acon_terms)


def acon(x: Array, p1: Gate, p2: Gate, beta: Gate, channel_axis: int = -1) -> Array:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`. p1, p2, beta: (1,), (C,), the shape of x, or 1 or N, 1 or C, and ones otherwise
    where x has them, such as (N, 1, 1, C). A Python number is fixed, and no gradient is computed for it:
    `acon(x, 1.0, 0.0, beta)` is ACON-A. Returns the shape and dtype of x; 16-bit inputs are computed in float32. Smooth: no
    kinks. For the backward pass it keeps its arguments alone.
    A plain function, for nnx, Linen, Equinox or Haiku alike: works under jit, vmap, grad, grad of grad and hessian; not
    under jvp or jacfwd, since JAX has no forward mode for functions with a gradient of their own.
    Raises SpecError for a gate or an axis that does not fit. Source: Ma et al. 2021, equation 8.
    """
    return _apply(ACON, x, p1, p2, beta, channel_axis=channel_axis)


SLOPES = Rule(
    lambda x, positive, negative: jnp.where(x > 0, positive, negative) * x,
    lambda g, x, positive, negative: (
        g * jnp.where(x > 0, positive, negative), g * jnp.maximum(x, 0.0), g * jnp.minimum(x, 0.0),
    ),
)  # fmt: skip


def slopes(x: Array, negative: Gate, channel_axis: int = -1) -> Array:
    """PReLU's function: x where x > 0, else negative x. Gradient at 0: `negative`, and 0 for it. Source: He et al. 2015."""
    return _apply(SLOPES, x, 1.0, negative, channel_axis=channel_axis)


@jax.jit
def _attention(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """AReLU's two slopes. The gradient of a clip at its bounds would be a half; here they belong to the inside."""
    alpha, beta = widened(alpha), widened(beta)
    inside = (alpha >= 0.01) & (alpha <= 0.99)
    return 1.0 + jax.nn.sigmoid(beta), jnp.where(inside, alpha, jax.lax.stop_gradient(jnp.clip(alpha, 0.01, 0.99)))


def attention_slopes(x: Array, alpha: Array, beta: Array) -> Array:
    """AReLU's function: (1 + sigmoid(beta)) x where x > 0, else a x, with a = min(max(alpha, 0.01), 0.99).

    Gradient at x = 0: a; for alpha: none outside of its range. Source: Chen et al. 2020, equation 4.
    """
    return _apply(SLOPES, x, *_attention(alpha, beta))


def _branches(x: Array, a: Gate, b: Gate, h: Gate, shift: Gate) -> Array:
    return a * x + b * relu(x) + h * hardswish(x) + shift


def _branches_terms(g: Array, x: Array, a: Gate, b: Gate, h: Gate, shift: Gate) -> tuple[Array, ...]:
    to_x = a + b * (x > 0) + h * hardswish_slope(x)
    return g * to_x, g * x, g * relu(x), g * hardswish(x), g


BRANCHES = Rule(_branches, _branches_terms)


def branches(x: Array, identity: Gate, relu: Gate, hardswish: Gate, shift: Gate = 0.0) -> Array:
    """RepAct's function in three factors: identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift.

    Gradients at kinks: relu'(0) = 0, hardswish'(-3) = 0, hardswish'(3) = 1. Source: Wu et al. 2024.
    """
    return _apply(BRANCHES, x, identity, relu, hardswish, shift)


@partial(jax.jit, static_argnames="softmax")
def collapse_branches(weights: Array, alpha: Array, softmax: bool = False) -> tuple[Array, Array, Array]:
    """RepAct's four branches as the factors of x, relu(x) and hardswish(x), each (1,), in float32 where they have 16 bits.

    w0 + alpha w2, w1 + (1 - alpha) w2, w3, for w = `weights` (4,), or their softmax, and `alpha` (1,).
    """
    weights, alpha = widened(weights), widened(alpha)
    w0, w1, w2, w3 = jnp.split(jax.nn.softmax(weights) if softmax else weights, 4)
    return w0 + alpha * w2, w1 + (1.0 - alpha) * w2, w3


def _larger(u: Array, v: Array) -> Array:
    """The share of the first in the gradient of a maximum: a half where the two are equal."""
    return jnp.where(u > v, 1.0, jnp.where(u == v, 0.5, 0.0)).astype(u.dtype)


def _dynamic_terms(g: Array, x: Array, a1: Array, a2: Array, b1: Array, b2: Array) -> tuple[Array, ...]:
    share = _larger(a1 * x + b1, a2 * x + b2)
    to_first, to_second = g * share, g * (1.0 - share)
    return to_first * a1 + to_second * a2, to_first * x, to_second * x, to_first, to_second


DYNAMIC = Rule(lambda x, a1, a2, b1, b2: jnp.maximum(a1 * x + b1, a2 * x + b2), _dynamic_terms)


@jax.jit
def _coefficients(theta: Array, lambdas: Array, init_v: Array) -> Array:
    spread = jnp.tanh(widened(theta).reshape(theta.shape[0], theta.shape[1] // 4, 4) / 2)  # 2 sigmoid(theta) - 1
    return jnp.moveaxis(widened(lambdas) * spread + widened(init_v), -1, 0)


def dynamic_maximum(x: Array, theta: Array, lambdas: Array, init_v: Array, channel_axis: int = -1) -> Array:
    """DyReLU's function: max(a1 x + b1, a2 x + b2), (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v.

    theta: (N, 4), or (N, 4 C), whose channel c has elements 4 c to 4 c + 3. Gradient where the two are equal: half to each.
    Source: Chen et al. 2020 (Dynamic ReLU), section 3.2.
    """
    check_axis(x.shape, channel_axis)
    coefficients = _coefficients(theta, lambdas, init_v)
    shape = _among_ones(x, channel_axis, *coefficients.shape[1:])
    return _apply(DYNAMIC, x, *coefficients.reshape(4, *shape), channel_axis=channel_axis)


def maximum(a: Array, b: Array) -> Array:
    """The larger of two arrays, element by element. Gradient where they are equal: half to each, which is JAX's own."""
    return jnp.maximum(a, b)


def _weights(values: Array, beta: Array) -> tuple[Array, Array, Array]:
    """(m, h, w) with y = m + 2 sum(w h): m the value that beta favours, h the half distances from it, w the softmax.

    Halves, since the difference of two finite values may overflow, and their exponents are at most 0.
    """
    m = jax.lax.stop_gradient(jnp.where(beta >= 0, values.max(0), values.min(0)))  # y does not depend on it
    h = values / 2 - m / 2
    powers = jnp.exp(2 * beta * h)
    return m, h, powers / powers.sum(0)


@jax.jit
def _smooth_forward(beta: Array, *values: Array) -> Array:
    m, h, w = _weights(widened(jnp.stack(values)), widened(beta))
    half = (w * h).sum(0)
    return ((m + half) + half).astype(values[0].dtype)


_smooth = jax.custom_vjp(_smooth_forward)


@jax.jit
def _smooth_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    beta, *values = saved
    g, stacked, wide = widened(g), widened(jnp.stack(values)), widened(beta)
    _, h, w = _weights(stacked, wide)
    away = h - (w * h).sum(0)  # half of x - y
    to_values = g * (w + w * jnp.clip(2 * wide * away, -BOUND, BOUND))
    to_beta = (g * ((w * away) * away).sum(0)).sum() * 4
    return to_beta.astype(beta.dtype), *(term.astype(value.dtype) for term, value in zip(to_values, values, strict=True))


_smooth.defvjp(lambda *arrays: (_smooth_forward(*arrays), arrays), _smooth_backward)


def smooth_maximum(*values: Array, beta: Gate = 1.0) -> Array:
    """smooth_maximum(x1, ..., xn) = sum of xi exp(beta xi) / sum of exp(beta xi).

    values: two arrays or more of one shape and dtype. beta: a number, or an array of one element, which has a gradient:
    towards infinity the maximum, 0 the mean, towards minus infinity the minimum. Returns the values' shape and dtype; 16-bit
    values are computed in float32. Smooth: no kinks; finite for all finite values. For the backward pass it keeps its
    arguments alone. Works under jit, vmap, grad, grad of grad and hessian; not under jvp or jacfwd.
    Raises SpecError for less than two values, or shapes that differ. Source: Ma et al. 2021, equation 2.
    """
    if len(values) < 2 or len({value.shape for value in values}) > 1:
        raise SpecError(f"smooth_maximum: expected two values or more of one shape, found {[v.shape for v in values]}")
    y: Array = _smooth(jnp.asarray(beta, jnp.promote_types(values[0].dtype, jnp.float32)).reshape(()), *values)
    return y
