"""Parameter names of PaddleClas's ResNet.

Blocks are numbered across stages, not within each stage. A convolution and its norm are the
children ``conv`` and ``bn`` of one module.
"""

from __future__ import annotations

from acon_core.checkpoint.dialects.dialect import Dialect

paddleclas = Dialect(
    "paddleclas",
    "PaddleClas's ResNet",
    paths={
        "conv1": "stem.0.conv",
        "bn1": "stem.0.bn",
        "layer*": "",
        "layer*.*": "blocks.{index}",
        "layer*.*.conv1": "{parent}.conv0.conv",
        "layer*.*.bn1": "{parent}.conv0.bn",
        "layer*.*.conv2": "{parent}.conv1.conv",
        "layer*.*.bn2": "{parent}.conv1.bn",
        "layer*.*.conv3": "{parent}.conv2.conv",
        "layer*.*.bn3": "{parent}.conv2.bn",
        "layer*.*.downsample": "{parent}.short",
        "layer*.*.downsample.0": "{parent}.conv",
        "layer*.*.downsample.1": "{parent}.bn",
    },
    networks=("paddleclas/resnet*", "torchvision/resnet50", "torchvision/resnet101", "torchvision/resnet152"),
)
