"""ResNet as PaddleClas has it, for its weights: with ReLU alone."""

from __future__ import annotations

from dataclasses import replace

from acon_core.networks.network import Network, Preprocessing
from acon_core.networks.resnet import resnet
from acon_core.spec.pointwise import ReLU

INPUT = Preprocessing("RGB", range=(0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, resize=256)


def paddleclas_resnet(depth: int = 18, num_classes: int = 1000) -> Network:
    """PaddleClas's ResNet of `depth` 18 or 34, with ReLU: torchvision's, and a convolution on the first block's identity.

    Its 50, 101 and 152 are torchvision's graphs, and have no entry here. PaddleClas has other names, those of the dialect
    `paddleclas`; here they are torchvision's. (N, 3, H, W) -> (N, num_classes).
    Source: He et al. 2016; PaddleClas legendary_models/resnet.py at 0009cb6.
    """
    made = resnet(depth, ReLU(), num_classes, bias=False, stride_on=3, project_first=True)
    source = "He et al. 2016 (ResNet); PaddleClas at 0009cb6"
    return replace(made, name=f"paddleclas/resnet{depth}", activation=None, input=INPUT, source=source)
