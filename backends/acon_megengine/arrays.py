"""NumPy arrays and tensors. MegEngine has no float64: it would round one to float32 without a word."""

from __future__ import annotations

import numpy as np
from megengine import Tensor
from numpy.typing import NDArray

from acon_core.errors import SpecError


def to_tensor(array: NDArray) -> Tensor:
    """A tensor with a copy of the array's values. Raises SpecError for any dtype but float32."""
    if array.dtype != np.float32:
        raise SpecError(f"MegEngine: expected an array of float32, found {array.dtype}; cast it with .astype")
    return Tensor(np.array(array, order="C", copy=True))


def to_array(tensor: Tensor) -> NDArray:
    """An array with a copy of the tensor's values, in its dtype."""
    return np.array(tensor.numpy(), copy=True)
