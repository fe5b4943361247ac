"""Convert between NumPy arrays and tensors without changing a bit, bfloat16 included."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(array: NDArray) -> Tensor:
    """Copy an array into a tensor of its dtype and its memory order (such as channels last)."""
    array = np.array(array, order="K", copy=True)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> NDArray:
    """Copy a tensor into an array of its dtype."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16).copy()
    return tensor.numpy().copy()
