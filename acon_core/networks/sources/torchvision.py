"""torchvision's ResNet, ShuffleNetV2 and MobileNetV3, with their published activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.networks.mobilenet_v3 import BLOCKS, mobilenet
from acon_core.networks.network import Network, check_num_classes
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.networks.resnet import resnet
from acon_core.networks.shufflenet_v2 import REPEATS, torchvision_layout
from acon_core.spec.pointwise import HardSwish, ReLU

SOURCE = "torchvision 0.28"

# Index of the first block with HardSwish. Earlier blocks have ReLU. Howard et al. 2019, tables 1
# and 2.
FIRST_HARDSWISH_BLOCK = {"small": 3, "large": 6}


def torchvision_resnet(
    depth: int = 50, num_classes: int = 1000, replace_stride_with_dilation: Sequence[bool] = (False, False, False)
) -> Network:
    """Return torchvision's ResNet with ReLU.

    This is ResNet V1.5: a bottleneck has its stride on the 3x3 convolution. Arguments are as for
    `resnet`. For another activation with the same parameter names, call ``resnet`` with
    ``bias=False, stride_on=3``. (N, 3, H, W) -> (N, num_classes). References: He et al. 2016, "Deep
    Residual Learning"; pytorch/vision, torchvision/models/resnet.py.
    """
    network = resnet(depth, ReLU(), num_classes, replace_stride_with_dilation, bias=False, stride_on=3)
    source = f"He et al. 2016 (ResNet); {SOURCE}"
    return replace(network, name=f"torchvision/resnet{depth}", activation=None, input=IMAGENET_INPUT, source=source)


def torchvision_shufflenet_v2(width: float = 1.0, num_classes: int = 1000, repeats: Sequence[int] = REPEATS) -> Network:
    """Return torchvision's ShuffleNetV2 with ReLU.

    `width`: the width multiplier, 0.5, 1.0, 1.5 or 2.0. `repeats`: blocks per stage.
    (N, 3, H, W) -> (N, num_classes). References: Ma et al. 2018, "ShuffleNet V2";
    pytorch/vision, torchvision/models/shufflenetv2.py.
    """
    check_num_classes("torchvision_shufflenet_v2", num_classes)
    network = torchvision_layout("torchvision", width, ReLU(), num_classes, repeats, f"Ma et al. 2018 (ShuffleNetV2); {SOURCE}")
    return replace(network, activation=None)


def torchvision_mobilenet_v3(size: str = "small", num_classes: int = 1000) -> Network:
    """Return torchvision's MobileNetV3 with ReLU and HardSwish.

    `size`: "small" or "large". The first three blocks of small and the first six of large have
    ReLU. Later blocks, the stem and the last convolution have HardSwish. (N, 3, H, W) ->
    (N, num_classes). References: Howard et al. 2019, "Searching for MobileNetV3";
    pytorch/vision, torchvision/models/mobilenetv3.py.
    """
    check_num_classes("torchvision_mobilenet_v3", num_classes)
    relu_blocks = FIRST_HARDSWISH_BLOCK[size]
    hardswish_blocks = len(BLOCKS[size]) - relu_blocks
    acts = [HardSwish(), *[ReLU()] * relu_blocks, *[HardSwish()] * hardswish_blocks, HardSwish()]
    return mobilenet("torchvision", size, acts, num_classes, f"Howard et al. 2019 (MobileNetV3); {SOURCE}")
