"""ACON on JAX arrays: overflow-safe forward, closed-form gradient that keeps the input alone."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from acon_core.errors import SpecError

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38


def _to_rank(gate: Array, x: Array, channel_axis: int) -> Array:
    """(C,) or (1 or N, C and nothing but ones) as something that broadcasts against x with the channels at `channel_axis`."""
    batch, channels = (gate.shape[0], math.prod(gate.shape[1:])) if gate.ndim > 1 else (1, gate.size)
    if channels != x.shape[channel_axis] or batch not in (1, x.shape[0]):
        raise SpecError(
            f"acon: expected p1, p2, beta of shape ({x.shape[channel_axis]},), one batch of them, or one a sample, found "
            f"{gate.shape} beside x {x.shape} with its channels at axis {channel_axis}; pass channel_axis=1 for (N, C, ...)"
        )
    shape = [1] * x.ndim
    shape[0] = batch
    shape[channel_axis] = channels
    return gate.reshape(shape)


def _wide(*arrays: Array) -> list[Array]:
    """16-bit arrays in float32: the sums would round too much, and the bound on z does not exist in float16."""
    return [array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in arrays]


def _sum_to(term: Array, like: Array) -> Array:
    axes = [axis for axis, size in enumerate(like.shape) if size != term.shape[axis]]
    return term.sum(axes, keepdims=True).astype(like.dtype)


def _forward(x: Array, p1: Array, p2: Array, beta: Array) -> Array:
    dtype = x.dtype
    x, p1, p2, beta = _wide(x, p1, p2, beta)
    slope = p1 - p2
    return (x * (p2 + slope * jax.nn.sigmoid((beta * slope) * x))).astype(dtype)


_acon = jax.custom_vjp(_forward)


def _forward_and_saved(*arguments: Array) -> tuple[Array, tuple[Array, ...]]:
    # Not _acon itself: a rule that calls its own function cannot be differentiated forward, so there would be no Hessian.
    return _forward(*arguments), arguments


def _backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    g, x, p1, p2, beta = _wide(g, *saved)
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    st = s * t
    bend = jnp.clip(z, -BOUND, BOUND) * st
    to_p1, to_p2 = s + bend, t - bend
    gx = g * x
    terms = (g * (p1 * to_p1 + p2 * to_p2), gx * to_p1, gx * to_p2, gx * (slope * (x * (slope * st))))
    return tuple(_sum_to(term, like) for term, like in zip(terms, saved, strict=True))


_acon.defvjp(_forward_and_saved, _backward)


def acon(x: Array, p1: Array, p2: Array, beta: Array, channel_axis: int = -1) -> Array:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`. p1, p2, beta: (C,), or (1 or N, ...) with C and nothing but ones behind the
    batch, such as (N, 1, 1, C), for values per sample. Returns the shape and dtype of x; 16-bit inputs are computed in
    float32. Smooth: no kinks. For the backward pass it keeps its arguments alone.
    A plain function, for nnx, Linen, Equinox or Haiku alike: works under jit, vmap, grad, grad of grad and hessian; not
    under jvp or jacfwd, since JAX has no forward mode for functions with a gradient of their own.
    Raises SpecError for channels that do not fit. Source: Ma et al. 2021, equation 8.
    """
    gates = [_to_rank(gate, x, channel_axis) for gate in (p1, p2, beta)]
    y: Array = _acon(x, *gates)
    return y
