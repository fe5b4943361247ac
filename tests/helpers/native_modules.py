"""Run native modules of any backend by one function."""

from __future__ import annotations

from typing import Any

import numpy as np

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
