"""timm's Swin: patch merging starts a stage, where in the spec it ends the stage before."""

from __future__ import annotations

from acon_core.checkpoint.dialects.dialect import Dialect

timm = Dialect(
    "timm",
    "timm's Swin",
    paths={
        "layers.0.downsample": "layers.1.downsample",
        "layers.1.downsample": "layers.2.downsample",
        "layers.2.downsample": "layers.3.downsample",
        "head": "head.fc",
    },
    absent=("layers.*.blocks.*.attn.relative_position_index",),
    networks=("timm/swin_*",),
)
