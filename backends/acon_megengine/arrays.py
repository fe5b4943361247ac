"""Convert between NumPy arrays and tensors. MegEngine has no float64, and rounds one silently."""

from __future__ import annotations

import numpy as np
from megengine import Tensor
from numpy.typing import NDArray

from acon_core.errors import SpecError


def to_tensor(array: NDArray) -> Tensor:
    """Copy an array into a tensor. Raises SpecError for any dtype but float32."""
    if array.dtype != np.float32:
        raise SpecError(f"MegEngine: expected an array of float32, found {array.dtype}; cast it with .astype")
    return Tensor(np.array(array, order="C", copy=True))


def to_array(tensor: Tensor) -> NDArray:
    """Copy a tensor into an array of its dtype."""
    return np.array(tensor.numpy(), copy=True)
