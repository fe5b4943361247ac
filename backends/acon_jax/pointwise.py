"""Functions of each element alone, on JAX arrays: `jax.nn`'s own where value and gradient are the spec's, else ours.

Each takes an array of any shape and returns its shape and dtype; 16-bit values are computed in float32. All work under jit,
vmap, grad, jvp and hessian. What each computes, and its gradient at kinks, is in `acon_core.spec.pointwise`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

# Beyond it the sigmoid of GELU's polynomial is 0 or 1 in float64 too, while its cube is still finite in float32.
GELU_BOUND = 100.0
# Beyond it log(1 + exp(z)) rounds to z, and its gradient to 1, in float64 too, while beta x may overflow.
SOFTPLUS_BOUND = 50.0


def widened(x: Array) -> Array:
    """16-bit arrays in float32, others as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _elementwise(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function in float32 where x has 16 bits, compiled as one: eagerly, each operation would be a pass over memory."""

    @jax.jit
    @wraps(function)
    def narrow(x: Array, *options: Any, **named: Any) -> Array:
        return function(widened(x), *options, **named).astype(x.dtype)

    return narrow


def _with_slope(slope: Callable[[Array], Array]) -> Callable[[Callable[[Array], Array]], Callable[[Array], Array]]:
    """Differentiate a function as `slope`, which says what holds at the kinks: of `jnp.clip`'s, they are the halves."""

    def decorate(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        differentiable = jax.custom_jvp(function)
        differentiable.defjvp(lambda primals, tangents: (function(*primals), slope(*primals) * tangents[0]))
        return wraps(function)(differentiable)

    return decorate


relu, relu6 = jax.nn.relu, jax.nn.relu6  # of 16 bits they round nothing
sigmoid, silu, mish, elu, selu, celu = map(
    _elementwise, (jax.nn.sigmoid, jax.nn.silu, jax.nn.mish, jax.nn.elu, jax.nn.selu, jax.nn.celu)
)
_gelu = _elementwise(lambda x: jax.nn.gelu(x, approximate=False))


def identity(x: Array) -> Array:
    """x."""
    return x


@_elementwise
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """x where x > 0, else slope x; of jax.nn's the gradient at 0 is 1."""
    return jnp.where(x > 0, x, slope * x)


@_elementwise
def _gelu_tanh(x: Array) -> Array:
    u = jnp.clip(x, -GELU_BOUND, GELU_BOUND)
    return x * jax.nn.sigmoid((8 / jnp.pi) ** 0.5 * (u + 0.044715 * u**3))


def gelu(x: Array, approximate: Literal["none", "tanh"] = "none") -> Array:
    """x (1 + erf(x / sqrt 2)) / 2, or its form with tanh: of jax.nn's the gradient is NaN where the cube of x overflows."""
    return {"none": _gelu, "tanh": _gelu_tanh}[approximate](x)


@_elementwise
def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + exp(beta x)) / beta."""
    z = beta * x
    far = z > SOFTPLUS_BOUND
    return jnp.where(far, x, jax.nn.softplus(jnp.where(far, SOFTPLUS_BOUND, z)) / beta)


def hardswish_slope(x: Array) -> Array:
    """0 up to -3, then (2 x + 3) / 6, and 1 from 3 on: x decides, since x + 3 rounds to 6 just before x is 3."""
    return jnp.where(x <= -3, 0.0, jnp.where(x >= 3, 1.0, x / 3 + 0.5)).astype(x.dtype)


@_elementwise
@_with_slope(hardswish_slope)
def hardswish(x: Array) -> Array:
    """x min(max(x + 3, 0), 6) / 6; the product is formed last, so that it is finite wherever x is."""
    return x * (jnp.clip(x + 3, 0, 6) / 6)


@_elementwise
@_with_slope(lambda x: jnp.where((x > -3) & (x < 3), 1 / 6, 0.0).astype(x.dtype))
def hardsigmoid(x: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6."""
    return jnp.clip(x + 3, 0, 6) / 6
