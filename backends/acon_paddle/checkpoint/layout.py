"""Paddle's names and layouts: PyTorch's, but for (in, out) weights and names of statistics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acon_core.layout import Layout, Slot
from acon_core.spec import BatchNorm, Conv2d, LayerNorm, Linear

layout = Layout("paddle")


@layout.register(Conv2d, LayerNorm)
def same_layout(node: Conv2d | LayerNorm) -> Mapping[str, Slot | None]:
    return {name: Slot(name) for name in node.params}


@layout.register(Linear)
def linear(node: Linear) -> Mapping[str, Slot | None]:
    return {**{name: Slot(name) for name in node.params}, "weight": Slot("weight", np.transpose, np.transpose)}


@layout.register(BatchNorm)
def batch_norm(node: BatchNorm) -> Mapping[str, Slot | None]:
    return {
        "weight": Slot("weight"),
        "bias": Slot("bias"),
        "running_mean": Slot("_mean"),
        "running_var": Slot("_variance"),
        "num_batches_tracked": None,
    }
