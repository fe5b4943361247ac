"""Convert between NumPy arrays, channels first, and JAX arrays, channels last, bit for bit."""

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
    """Enable float64 for the duration of a verb only, so that the user's process stays as it is."""
    return jax.enable_x64(True) if jnp.dtype(dtype) == jnp.float64 else nullcontext()


def on_device(array: NDArray) -> Array:
    """Copy an array to the device; `jnp.asarray` would compile a program per shape."""
    return jax.device_put(np.array(array, order="C"))


def filled(value: float, shape: Shape, dtype: DTypeLike) -> Array:
    """Return an array of one value."""
    return on_device(np.full(shape, value, jnp.dtype(dtype)))


def to_tensor(array: NDArray) -> Array:
    """Copy an array (N, C, ...) into a JAX array (N, ..., C) of its dtype."""
    return on_device(np.moveaxis(array, 1, -1) if array.ndim > 2 else array)


def to_array(array: Array) -> NDArray:
    """Copy a JAX array (N, ..., C) into an array (N, C, ...) of its dtype."""
    return np.array(np.moveaxis(np.asarray(array), -1, 1) if array.ndim > 2 else array, order="C")


def canonical_shape(shape: Shape) -> Shape:
    """Return the shape (N, ..., C) as (N, C, ...)."""
    return shape[:1] + shape[1:][-1:] + shape[1:-1]
