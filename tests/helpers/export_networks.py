"""The networks for the export tests: each family with its published activations."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from acon_core import spec

# With few blocks, because tracing time grows with their number.
NETWORKS: list[tuple[str, str, dict[str, Any]]] = [
    ("acon/shufflenet_v2_x0_5", "acon_c", {"repeats": (2, 1, 1)}),
    ("acon/resnet18", "meta_acon", {}),
    ("acon/tfnet_0_5", "acon_frelu", {"repeats": (2, 1, 1, 1)}),
    ("acon/dcn", "meta_acon", {}),
]
FUSED: list[tuple[str, int, dict[str, Any]]] = [
    ("repact/shufflenet_v2_x0_5", 2, {"repeats": (2, 1, 1)}),
    ("repact/mobilenet_v3_small", 3, {}),
    ("repact/swin_tiny_patch4_window7_224", 1, {"depths": (1, 2, 1, 1)}),
    ("repact/vit_base_patch16_224", 2, {"depth": 1, "image_size": 48}),
]
_SIZES = {"acon/dcn": (32, 32), "repact/vit_base_patch16_224": (48, 48)}


def size(network: str) -> tuple[int, int]:
    """Return the height and width for the export: not square where the network allows it."""
    return _SIZES.get(network, (64, 96))


def fused(package: ModuleType, network: str, variant: int, options: dict[str, Any]) -> Any:
    """Create the network with RepAct and fuse it, so that only closed forms remain."""
    module = package.fuse(package.create(network, spec.RepAct(variant), 7, **options))
    kinds = {type(node) for _, node in spec.walk(module.spec)}
    assert spec.FusedRepAct in kinds
    assert spec.RepAct not in kinds
    return module
