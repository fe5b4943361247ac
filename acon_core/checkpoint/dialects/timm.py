"""timm's names in Swin: a stage begins with the merging of patches, which here ends the one before, and the head has a pool."""

from __future__ import annotations

from acon_core.checkpoint.dialects.dialect import Dialect

timm = Dialect(
    "timm",
    "timm's Swin",
    places={
        "layers.0.downsample": "layers.1.downsample",
        "layers.1.downsample": "layers.2.downsample",
        "layers.2.downsample": "layers.3.downsample",
        "head": "head.fc",
    },
    absent=("layers.*.blocks.*.attn.relative_position_index",),
    networks=("timm/swin_*",),
)
