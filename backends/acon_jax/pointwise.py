"""Elementwise functions on JAX arrays, and the specs of JAX's own activations.

`jax.nn`'s own where value and gradient are the spec's, else ours. Each returns the shape and dtype
of x; 16-bit values are computed in float32. All support jit, vmap, grad, jvp and hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from acon_core import spec
from acon_jax.gradient import upcast_half

# Beyond it GELU is 0 or x in float64 too; its cube is finite in float32.
_GELU_BOUND = 100.0
# Beyond it log(1 + exp(z)) rounds to z, and its gradient to 1, in float64 too; beta x may overflow.
_SOFTPLUS_BOUND = 50.0


def _elementwise(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compute 16 bits in float32, and compile: eagerly, each operation is a pass over memory."""

    @jax.jit
    @wraps(function)
    def compiled(x: Array, *options: Any, **named: Any) -> Array:
        return function(*upcast_half(x), *options, **named).astype(x.dtype)

    return compiled


def _with_slope(slope: Callable[[Array], Array]) -> Callable[[Callable[[Array], Array]], Callable[[Array], Array]]:
    """Differentiate a function as `slope`, which defines the kinks; jnp.clip has halves there."""

    def decorate(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        differentiable = jax.custom_jvp(function)
        differentiable.defjvp(lambda primals, tangents: (function(*primals), slope(*primals) * tangents[0]))
        return wraps(function)(differentiable)

    return decorate


relu, relu6 = jax.nn.relu, jax.nn.relu6  # they round nothing, also in 16 bits
sigmoid, silu, mish, elu, selu, celu = map(
    _elementwise, (jax.nn.sigmoid, jax.nn.silu, jax.nn.mish, jax.nn.elu, jax.nn.selu, jax.nn.celu)
)
_gelu = _elementwise(lambda x: jax.nn.gelu(x, approximate=False))


def identity(x: Array) -> Array:
    """Return x."""
    return x


@_elementwise
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """Compute x where x > 0, else slope x. Gradient at 0: slope; that of jax.nn is 1."""
    return jnp.where(x > 0, x, slope * x)


@_elementwise
def _gelu_tanh(x: Array) -> Array:
    u = jnp.clip(x, -_GELU_BOUND, _GELU_BOUND)
    return x * jax.nn.sigmoid((8 / jnp.pi) ** 0.5 * (u + 0.044715 * u**3))


def gelu(x: Array, approximate: Literal["none", "tanh"] = "none") -> Array:
    """Compute x (1 + erf(x / sqrt 2)) / 2, or its tanh approximation. Smooth.

    The gradient of jax.nn's tanh form is NaN where the cube of x overflows.
    """
    return {"none": _gelu, "tanh": _gelu_tanh}[approximate](x)


@_elementwise
def softplus(x: Array, beta: float = 1.0) -> Array:
    """Compute log(1 + exp(beta x)) / beta, for every x. Smooth."""
    z = beta * x
    far = z > _SOFTPLUS_BOUND
    return jnp.where(far, x, jax.nn.softplus(jnp.where(far, _SOFTPLUS_BOUND, z)) / beta)


def hardswish_slope(x: Array) -> Array:
    """Compute the derivative of hardswish: 0 up to -3, 1 from 3 on, (2 x + 3) / 6 between.

    x decides, because x + 3 rounds to 6 just before x is 3.
    """
    return jnp.where(x <= -3, 0.0, jnp.where(x >= 3, 1.0, x / 3 + 0.5)).astype(x.dtype)


@_elementwise
@_with_slope(hardswish_slope)
def hardswish(x: Array) -> Array:
    """Compute x min(max(x + 3, 0), 6) / 6; divide first, so that nothing overflows."""
    return x * (jnp.clip(x + 3, 0, 6) / 6)


@_elementwise
@_with_slope(lambda x: jnp.where((x > -3) & (x < 3), 1 / 6, 0.0).astype(x.dtype))
def hardsigmoid(x: Array) -> Array:
    """Compute min(max(x + 3, 0), 6) / 6. Gradient at -3 and 3: 0."""
    return jnp.clip(x + 3, 0, 6) / 6


NATIVE_ACTIVATIONS: dict[Callable[..., Any], Callable[..., spec.Node]] = {
    jax.nn.identity: spec.Identity,
    jax.nn.relu: spec.ReLU,
    jax.nn.relu6: spec.ReLU6,
    jax.nn.leaky_relu: lambda negative_slope=0.01: spec.LeakyReLU(negative_slope),
    jax.nn.elu: spec.ELU,
    jax.nn.selu: spec.SELU,
    jax.nn.celu: spec.CELU,
    jax.nn.gelu: lambda approximate=True: spec.GELU("tanh" if approximate else "none"),
    jax.nn.silu: spec.SiLU,
    jax.nn.mish: spec.Mish,
    jax.nn.softplus: spec.Softplus,
    jax.nn.hard_swish: spec.HardSwish,
    jax.nn.hard_sigmoid: spec.HardSigmoid,
    jax.nn.sigmoid: spec.Sigmoid,
}
"""The specs of JAX's activation functions, from the keywords that a `functools.partial` holds."""

ACTIVATION_FUNCTIONS = {function.__name__ for function in NATIVE_ACTIVATIONS} - {"identity", "sigmoid"}
"""Names of their calls in a jaxpr, where sigmoid is the operation `logistic`."""
