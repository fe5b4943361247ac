"""Convert between NumPy arrays, Python numbers and tensors."""

from __future__ import annotations

import paddle
from numpy.typing import NDArray
from paddle import Tensor
from paddle.jit import not_to_static


def to_tensor(array: NDArray) -> Tensor:
    """Copy an array into a tensor of its dtype."""
    return paddle.to_tensor(array)


def to_array(tensor: Tensor) -> NDArray:
    """Copy a tensor into an array of its dtype."""
    array: NDArray = tensor.numpy().copy()
    return array


@not_to_static
def constant(value: float, like: Tensor) -> Tensor:
    """Return a number in the dtype of a tensor. to_static would round a Python float to float32."""
    return paddle.full([], value, like.dtype)
