"""PaddleClas's names in ResNet: blocks in one row through all stages, a norm beside its convolution, the first of them 0."""

from __future__ import annotations

from acon_core.checkpoint.dialects.dialect import Dialect

paddleclas = Dialect(
    "paddleclas",
    "PaddleClas's ResNet",
    places={
        "conv1": "stem.0.conv",
        "bn1": "stem.0.bn",
        "layer*": "",
        "layer*.*": "blocks.{count}",
        "layer*.*.conv1": "{up}.conv0.conv",
        "layer*.*.bn1": "{up}.conv0.bn",
        "layer*.*.conv2": "{up}.conv1.conv",
        "layer*.*.bn2": "{up}.conv1.bn",
        "layer*.*.conv3": "{up}.conv2.conv",
        "layer*.*.bn3": "{up}.conv2.bn",
        "layer*.*.downsample": "{up}.short",
        "layer*.*.downsample.0": "{up}.conv",
        "layer*.*.downsample.1": "{up}.bn",
    },
    networks=("paddleclas/resnet*", "torchvision/resnet50", "torchvision/resnet101", "torchvision/resnet152"),
)
