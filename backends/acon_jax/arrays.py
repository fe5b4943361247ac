"""NumPy arrays with channels first and JAX arrays with channels last, bit for bit."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray


def to_jax(array: NDArray) -> Array:
    """An array (N, C, ...) as (N, ..., C), with a copy of its values, in its dtype."""
    return jnp.array(np.moveaxis(array, 1, -1) if array.ndim > 2 else array)


def to_numpy(array: Array) -> NDArray:
    """An array (N, ..., C) as (N, C, ...), with a copy of its values, in its dtype."""
    return np.array(np.moveaxis(np.asarray(array), -1, 1) if array.ndim > 2 else array, order="C")
