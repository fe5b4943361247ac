"""Parameter names of timm's Swin.

timm puts patch merging at the start of a stage; the spec puts it at the end of the previous stage.
"""

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
