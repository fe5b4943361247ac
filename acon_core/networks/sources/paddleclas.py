"""PaddleClas's ResNet."""

from __future__ import annotations

from acon_core.networks.network import Network, as_published_by
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.networks.resnet import resnet
from acon_core.spec.node import Node
from acon_core.spec.pointwise import ReLU


def paddleclas_resnet(depth: int = 18, act: Node | str | None = None, num_classes: int = 1000) -> Network:
    """Return PaddleClas's ResNet of depth 18 or 34. (N, 3, H, W) -> (N, num_classes).

    It has ReLU everywhere, or `act` in the places of `resnet`. It differs from torchvision's ResNet
    in the shortcut of its first block: a 1x1 convolution and a batch norm instead of the identity.
    At depths 50, 101 and 152 the two graphs are the same; use `torchvision_resnet` for these.
    Parameters have torchvision's names; the dialect `paddleclas` gives PaddleClas's names.
    References: He et al. 2016, "Deep Residual Learning"; PaddlePaddle/PaddleClas,
    legendary_models/resnet.py, commit 0009cb6.
    """
    network = resnet(depth, ReLU() if act is None else act, num_classes, bias=False, stride_on=3, project_first=True)
    return as_published_by("paddleclas", network, act, "He et al. 2016 (ResNet); PaddleClas at 0009cb6", input=IMAGENET_INPUT)
