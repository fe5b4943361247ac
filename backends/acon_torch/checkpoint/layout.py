"""PyTorch's names and layouts, which are the canonical ones."""

from __future__ import annotations

from collections.abc import Mapping

from acon_core.layout import Layout, Slot
from acon_core.spec import BatchNorm, Conv2d, LayerNorm, Linear, Node

layout = Layout("torch")


@layout.register(Conv2d, Linear, BatchNorm, LayerNorm)
def same_layout(node: Node) -> Mapping[str, Slot | None]:
    return {name: Slot(name) for name in node.params}
