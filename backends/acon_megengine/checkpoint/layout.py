"""MegEngine's names and layouts: PyTorch's, but grouped weights are 5-D and Conv2d biases 4-D."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import NDArray

from acon_core.layout import Layout, Slot
from acon_core.spec import BatchNorm, Conv2d, LayerNorm, Linear

layout = Layout("megengine", integers=False)


@layout.register(Conv2d)
def conv2d(node: Conv2d) -> Mapping[str, Slot | None]:
    shapes = {name: param.shape for name, param in node.params.items()}

    def to_groups(weight: NDArray) -> NDArray:
        return weight.reshape(node.groups, node.out_channels // node.groups, *weight.shape[1:])

    def from_groups(weight: NDArray) -> NDArray:
        return weight.reshape(shapes["weight"])

    slots = {"weight": Slot("weight", to_groups, from_groups) if node.groups > 1 else Slot("weight")}
    if node.bias:
        slots["bias"] = Slot("bias", lambda bias: bias.reshape(1, -1, 1, 1), lambda bias: bias.reshape(-1))
    return slots


@layout.register(Linear, LayerNorm)
def same_layout(node: Linear | LayerNorm) -> Mapping[str, Slot | None]:
    return {name: Slot(name) for name in node.params}


@layout.register(BatchNorm)
def batch_norm(node: BatchNorm) -> Mapping[str, Slot | None]:
    return {name: Slot(name) if param.kind != "counter" else None for name, param in node.params.items()}
