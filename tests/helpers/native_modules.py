"""Run native modules of any backend by one function."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from acon_core import backends
from acon_core.backends import Backend


def run(backend: Backend, module: Any, x: np.ndarray) -> Any:
    """Run a native module on images (N, C, H, W) in evaluation mode."""
    if backend.name == "jax":
        import jax.numpy as jnp

        return module(jnp.asarray(np.moveaxis(x, 1, -1)))
    module.eval()
    if backend.name == "torch":
        import torch

        return module(torch.from_numpy(x))
    if backend.name == "paddle":
        import paddle

        return module(paddle.to_tensor(x))
    import megengine

    return module(megengine.tensor(x))


def native(backend: Backend, array: np.ndarray) -> Any:
    """Return an array (N, C, ...) as a tensor of the framework, in its layout."""
    if backend.name == "jax":
        import jax.numpy as jnp

        return jnp.asarray(np.moveaxis(array, 1, -1) if array.ndim > 2 else array)
    if backend.name == "torch":
        import torch

        return torch.from_numpy(array)
    if backend.name == "paddle":
        import paddle

        return paddle.to_tensor(array)
    import megengine

    return megengine.tensor(array)


def make(backend: Backend, name: str, channels: int, **options: Any) -> Any:
    """Make an activation of the backend's package by its name, with initial values."""
    if backend.name == "jax":
        from flax import nnx

        options["rngs"] = nnx.Rngs(0)
    return import_module(backends.packages()[backend.name]).activation(name, channels, **options)


def cast(backend: Backend, tensor: Any, dtype: str) -> Any:
    """Convert a tensor of the framework to a dtype by its name."""
    if backend.name == "torch":
        import torch

        return tensor.to(getattr(torch, dtype))
    if backend.name == "megengine" and dtype == "bfloat16":
        from megengine.core.tensor.dtype import bfloat16

        return tensor.astype(bfloat16)
    return tensor.astype(dtype)
