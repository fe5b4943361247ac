"""Hand-written gradients of the gated functions: one custom_vjp, which keeps the arguments only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from acon_core.errors import DtypeError, SpecError
from acon_core.spec import Shape
from acon_jax import kernels

Gate = Array | float
Terms = tuple[Array, ...]
Fixed = tuple[float | None, ...]

# The largest |z| for which z * sigmoid(z) * sigmoid(-z) is formed. Beyond it the product is 0, but
# infinity * 0 would be NaN.
BOUND = 3e38


@lru_cache
def is_floating(dtype: Any) -> bool:
    """Return whether a dtype is one of floating point."""
    return bool(jnp.issubdtype(dtype, jnp.floating))


def check_floating(function: str, x: Array) -> None:
    """Raise DtypeError for integers and booleans."""
    if not is_floating(x.dtype):
        raise DtypeError.at(function, x.dtype)


def upcast_half(*arrays: Array) -> list[Array]:
    """Convert 16-bit arrays to float32: sums round too much, and float16 has no BOUND."""
    return [array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in arrays]


def check_axis(shape: Shape, channel_axis: int) -> None:
    """Raise SpecError unless the axis is behind the batch, or -1, as of a row under vmap."""
    if channel_axis not in (-1, *range(1, len(shape)), *range(1 - len(shape), -1)):
        raise SpecError(f"channel_axis {channel_axis}: expected an axis of x {shape} behind the batch")


def among_ones(x: Array, channel_axis: int, batch: int, channels: int) -> Shape:
    """Return a shape of the rank of x: `batch` and `channels` where x has them, else ones."""
    sizes = [1] * x.ndim
    if x.ndim > 1:
        sizes[0] = batch
    if x.ndim > 0:
        sizes[channel_axis] = channels
    return tuple(sizes)


def to_rank(gate: Gate, x: Array, channel_axis: int) -> Gate:
    """Reshape a gate so that it broadcasts against x; numbers stay as they are.

    (1,) applies to all of x, (C,) and 1 or N, 1 or C among ones to batch and channels, and the
    shape of x to each element. Raises SpecError for any other shape.
    """
    check_axis(x.shape, channel_axis)
    if isinstance(gate, float | int):
        return float(gate)
    if gate.shape == x.shape:
        return gate
    most = (x.shape[0] if x.ndim > 1 else 1, x.shape[channel_axis] if x.ndim else 1)
    for n, c in product({1, most[0]}, {1, most[1]}):
        shape = among_ones(x, channel_axis, n, c)
        # A gate of the rank of x means what NumPy would broadcast it to, and nothing else.
        known = {shape, *([(c,)] if n == 1 else []), *([(n, 1, 1, c), (n, c, 1, 1)] if x.ndim != 4 else [])}
        if (gate.shape or (1,)) in known:
            return gate.reshape(shape)
    own = among_ones(x, channel_axis, *most)
    raise SpecError(
        f"expected a gate of shape (1,), ({most[1]},), {own} or 1 in place of its sizes, or that of x, found {gate.shape} "
        f"beside x {x.shape} with its channels at axis {channel_axis}; pass channel_axis=1 for (N, C, ...)"
    )


@dataclass(frozen=True)
class Rule:
    """An elementwise function of x and of gates that broadcast against it, with its gradient.

    `value(x, *gates)` is the function. `pullback(g, x, *gates)` returns one term per argument, g
    times the derivative, in any shape that sums to the argument's. Both get 16-bit values in
    float32. Terms of fixed numbers are not computed: the backward pass is compiled. `kernel` names
    the function in `acon_core.kernels`.
    """

    value: Callable[..., Array]
    pullback: Callable[..., Terms]
    kernel: str

    def __call__(self, x: Array, *gates: Gate) -> Array:
        fixed = tuple(gate if isinstance(gate, float) else None for gate in gates)
        y: Array = _gated(self, fixed, *varying_alike(x, *(gate for gate in gates if not isinstance(gate, float))))
        return y


def _mesh_axes(array: Array) -> Any:
    """Return the mesh axes along which an array varies inside shard_map."""
    kind = jax.typeof(array)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type  # up to JAX 0.9, and since


def varying_alike(*arrays: Array) -> tuple[Array, ...]:
    """Let all arrays vary along the same mesh axes, as custom_vjp requires of gradients.

    The gradient of what was equal on all devices is then summed over them, as JAX's own are.
    """
    if len(set(map(_mesh_axes, arrays))) == 1:
        return arrays
    one = prod(jnp.ones_like(array, shape=()) for array in arrays)
    return tuple(array * one.astype(array.dtype) for array in arrays)


def _all_gates(arrays: tuple[Array, ...], fixed: Fixed) -> list[Gate]:
    """Return all gates in order: those that are numbers, and arrays where `fixed` is None."""
    given = iter(upcast_half(*arrays))
    return [next(given) if number is None else number for number in fixed]


def _value(rule: Rule, fixed: Fixed, x: Array, *gates: Array) -> Terms:
    return (rule.value(*upcast_half(x), *_all_gates(gates, fixed)).astype(x.dtype),)


def _gradients(rule: Rule, fixed: Fixed, *arrays: Array) -> Terms:
    *saved, g = arrays
    x, *gates = saved
    to_x, *to_gates = rule.pullback(*upcast_half(g, x), *_all_gates(tuple(gates), fixed))
    wanted = [term for term, number in zip(to_gates, fixed, strict=True) if number is None]
    return tuple(_sum_to(term, like) for term, like in zip((to_x, *wanted), saved, strict=True))


@partial(jax.jit, static_argnums=(0, 1))
def _forward(rule: Rule, fixed: Fixed, *arrays: Array) -> Array:
    return kernels.run(_value, rule, fixed, arrays)[0]


_gated = jax.custom_vjp(_forward, nondiff_argnums=(0, 1))


def _forward_and_saved(rule: Rule, fixed: Fixed, *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    # Not _gated: a rule that calls its own function has no forward mode, so no Hessian.
    return _forward(rule, fixed, *arrays), arrays


@partial(jax.jit, static_argnums=(0, 1))
def _backward(rule: Rule, fixed: Fixed, saved: tuple[Array, ...], g: Array) -> Terms:
    return kernels.run(_gradients, rule, fixed, (*saved, g))


_gated.defvjp(_forward_and_saved, _backward)


def _sum_to(term: Array, like: Array) -> Array:
    axes = [axis for axis, size in enumerate(like.shape) if size != term.shape[axis]]
    return term.sum(axes, keepdims=True).astype(like.dtype)
