"""Flax's names and layouts.

Kernels are HWIO or (in, out); norms have scale, mean and var; per-channel parameters are (C,).
"""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import NDArray

from acon_core.layout import Layout, Slot
from acon_core.spec import BatchNorm, Conv2d, Graph, Layer, LayerNorm, Linear, Node


class FlaxLayout(Layout):
    """Per-channel parameters, (1, C, 1, 1), are (C,) here, to broadcast with channels last."""

    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        if isinstance(node, Graph | Layer) and type(node) not in self.rules:
            slots = super().slots(node)
            return {name: _per_channel(name) if _is_per_channel(node.params[name].shape) else slots[name] for name in slots}
        return super().slots(node)


def _is_per_channel(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape == (1, shape[1], 1, 1)


def _per_channel(name: str) -> Slot:
    return Slot(name, lambda array: array.reshape(-1), lambda array: array.reshape(1, -1, 1, 1))


def _hwio(array: NDArray) -> NDArray:
    return array.transpose(2, 3, 1, 0)


def _oihw(array: NDArray) -> NDArray:
    return array.transpose(3, 2, 0, 1)


def _transposed(array: NDArray) -> NDArray:
    return array.transpose(1, 0)


layout = FlaxLayout("jax", integers=False)


@layout.register(Conv2d)
def conv2d(node: Conv2d) -> Mapping[str, Slot | None]:
    return {"weight": Slot("kernel", _hwio, _oihw), "bias": Slot("bias")}


@layout.register(Linear)
def linear(node: Linear) -> Mapping[str, Slot | None]:
    return {"weight": Slot("kernel", _transposed, _transposed), "bias": Slot("bias")}


@layout.register(BatchNorm)
def batch_norm(node: BatchNorm) -> Mapping[str, Slot | None]:
    return {
        "weight": Slot("scale"),
        "bias": Slot("bias"),
        "running_mean": Slot("mean"),
        "running_var": Slot("var"),
        "num_batches_tracked": None,
    }


@layout.register(LayerNorm)
def layer_norm(node: LayerNorm) -> Mapping[str, Slot | None]:
    return {"weight": Slot("scale"), "bias": Slot("bias")}
