"""ResNet, ShuffleNetV2 and MobileNetV3 as torchvision publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.networks.mobilenet_v3 import BLOCKS, mobilenet
from acon_core.networks.network import Network, check_num_classes
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.networks.resnet import resnet
from acon_core.networks.shufflenet_v2 import REPEATS, shuffled
from acon_core.spec.pointwise import HardSwish, ReLU

SOURCE = "torchvision 0.28"

# The first block with HardSwish; those before it have ReLU. Howard et al. 2019, tables 1 and 2.
HARDSWISH_FROM = {"small": 3, "large": 6}


def torchvision_resnet(
    depth: int = 50, num_classes: int = 1000, replace_stride_with_dilation: Sequence[bool] = (False, False, False)
) -> Network:
    """Return torchvision's ResNet with ReLU: V1.5, with the stride on the 3x3 convolution.

    Options as for `resnet`, which has the same names with ``bias=False, stride_on=3`` and takes
    another activation. (N, 3, H, W) -> (N, num_classes). References: He et al. 2016, "Deep Residual
    Learning"; pytorch/vision, torchvision/models/resnet.py.
    """
    made = resnet(depth, ReLU(), num_classes, replace_stride_with_dilation, bias=False, stride_on=3)
    source = f"He et al. 2016 (ResNet); {SOURCE}"
    return replace(made, name=f"torchvision/resnet{depth}", activation=None, input=IMAGENET_INPUT, source=source)


def torchvision_shufflenet_v2(width: float = 1.0, num_classes: int = 1000, repeats: Sequence[int] = REPEATS) -> Network:
    """Return torchvision's ShuffleNetV2 with ReLU, of width 0.5, 1.0, 1.5 or 2.0.

    `repeats`: blocks per stage. (N, 3, H, W) -> (N, num_classes). References: Ma et al. 2018,
    "ShuffleNet V2"; pytorch/vision, torchvision/models/shufflenetv2.py.
    """
    check_num_classes("torchvision_shufflenet_v2", num_classes)
    made = shuffled("torchvision", width, ReLU(), num_classes, repeats, f"Ma et al. 2018 (ShuffleNetV2); {SOURCE}")
    return replace(made, activation=None)


def torchvision_mobilenet_v3(size: str = "small", num_classes: int = 1000) -> Network:
    """Return torchvision's MobileNetV3, "small" or "large", with ReLU first and HardSwish later.

    HardSwish starts at the fourth block of small and at the seventh of large; the stem and the last
    convolution have it too. (N, 3, H, W) -> (N, num_classes). References: Howard et al. 2019,
    "Searching for MobileNetV3"; pytorch/vision, torchvision/models/mobilenetv3.py.
    """
    check_num_classes("torchvision_mobilenet_v3", num_classes)
    first = HARDSWISH_FROM[size]
    later = len(BLOCKS[size]) - first
    acts = [HardSwish(), *[ReLU()] * first, *[HardSwish()] * later, HardSwish()]
    return mobilenet("torchvision", size, acts, num_classes, f"Howard et al. 2019 (MobileNetV3); {SOURCE}")
