"""NumPy arrays with channels first and JAX arrays with channels last, bit for bit."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from numpy.typing import NDArray

from acon_core.spec import Shape


def precision(dtype: DTypeLike) -> AbstractContextManager[None]:
    """JAX has float64 only where it is switched on: here, while a verb runs, so that the user's process stays as it is."""
    return jax.enable_x64(True) if jnp.dtype(dtype) == jnp.float64 else nullcontext()


def on_device(array: NDArray) -> Array:
    """A copy of its values, in its dtype: `jnp.asarray` would compile a program for every shape."""
    return jax.device_put(np.array(array, order="C"))


def filled(value: float, shape: Shape, dtype: DTypeLike) -> Array:
    """An array of one value."""
    return on_device(np.full(shape, value, jnp.dtype(dtype)))


def to_jax(array: NDArray) -> Array:
    """An array (N, C, ...) as (N, ..., C), with a copy of its values, in its dtype."""
    return on_device(np.moveaxis(array, 1, -1) if array.ndim > 2 else array)


def to_numpy(array: Array) -> NDArray:
    """An array (N, ..., C) as (N, C, ...), with a copy of its values, in its dtype."""
    return np.array(np.moveaxis(np.asarray(array), -1, 1) if array.ndim > 2 else array, order="C")


def canonical_shape(shape: Shape) -> Shape:
    """The shape (N, ..., C) as (N, C, ...)."""
    return shape[:1] + shape[1:][-1:] + shape[1:-1]
