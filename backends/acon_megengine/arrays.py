"""Convert between NumPy arrays and tensors. MegEngine has no float64, and rounds one silently."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from megengine import Tensor
from megengine.module import Module
from numpy.typing import NDArray

from acon_core.errors import SpecError


def to_tensor(array: NDArray) -> Tensor:
    """Copy an array into a tensor. Raises SpecError for any dtype but float32."""
    if array.dtype != np.float32:
        raise SpecError(f"MegEngine: expected an array of float32, found {array.dtype}; cast it with .astype")
    return Tensor(np.array(array, order="C", copy=True))


def set_state(module: Module, arrays: Mapping[str, NDArray]) -> None:
    """Copy arrays, by native name, into the parameters and buffers of a module.

    `load_state_dict` reshapes every statistic once per module, which takes seconds for hundreds.
    """
    for name, tensor in module.named_tensors():
        tensor._reset(Tensor(arrays[name].reshape(tensor._tuple_shape), no_cache=True))


def to_array(tensor: Tensor) -> NDArray:
    """Copy a tensor into an array of its dtype."""
    return np.array(tensor.numpy(), copy=True)
