"""ResNet, ShuffleNetV2 and MobileNetV3 as torchvision has them, for its weights: each with its own activations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.networks.mobilenet_v3 import BLOCKS, mobilenet
from acon_core.networks.network import Network, Preprocessing, check_num_classes
from acon_core.networks.repact_shufflenet_v2 import REPEATS, shufflenet
from acon_core.networks.resnet import resnet
from acon_core.spec.pointwise import HardSwish, ReLU

INPUT = Preprocessing("RGB", range=(0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, resize=256)
SOURCE = "torchvision 0.28"

# The first block that has HardSwish; those before it have ReLU. Howard et al. 2019, tables 1 and 2.
HARDSWISH_FROM = {"small": 3, "large": 6}


def torchvision_resnet(
    depth: int = 50, num_classes: int = 1000, replace_stride_with_dilation: Sequence[bool] = (False, False, False)
) -> Network:
    """torchvision's ResNet of `depth` 18, 34, 50, 101 or 152, with ReLU: V1.5, whose stride is on the 3x3 convolution.

    `replace_stride_with_dilation`: as for `resnet`, of which this is bias=False, stride_on=3: with those an `acon/resnet50`
    has the same names and takes another activation. The input is that of the released weights. (N, 3, H, W) ->
    (N, num_classes). Raises SpecError for another depth. Source: He et al. 2016; torchvision.models.resnet.
    """
    made = resnet(depth, ReLU(), num_classes, replace_stride_with_dilation, bias=False, stride_on=3)
    source = f"He et al. 2016 (ResNet); {SOURCE}"
    return replace(made, name=f"torchvision/resnet{depth}", activation=None, input=INPUT, source=source)


def torchvision_shufflenet_v2(width: float = 1.0, num_classes: int = 1000, repeats: Sequence[int] = REPEATS) -> Network:
    """torchvision's ShuffleNetV2 at `width` 0.5, 1.0, 1.5 or 2.0, with ReLU. `repeats`: blocks a stage.

    (N, 3, H, W) -> (N, num_classes). Source: Ma et al. 2018; torchvision.models.shufflenetv2.
    """
    check_num_classes("torchvision_shufflenet_v2", num_classes)
    made = shufflenet("torchvision", width, ReLU(), num_classes, repeats, f"Ma et al. 2018 (ShuffleNetV2); {SOURCE}")
    return replace(made, activation=None, input=INPUT)


def torchvision_mobilenet_v3(size: str = "small", num_classes: int = 1000) -> Network:
    """torchvision's MobileNetV3 of `size` "small" or "large", with the paper's activations: ReLU first and HardSwish later.

    HardSwish from the fourth block of small on, from the seventh of large, in the stem and in the last convolution.
    (N, 3, H, W) -> (N, num_classes). Source: Howard et al. 2019; torchvision.models.mobilenetv3.
    """
    check_num_classes("torchvision_mobilenet_v3", num_classes)
    first = HARDSWISH_FROM[size]
    later = len(BLOCKS[size]) - first
    acts = [HardSwish(), *[ReLU()] * first, *[HardSwish()] * later, HardSwish()]
    made = mobilenet("torchvision", size, acts, num_classes, f"Howard et al. 2019 (MobileNetV3); {SOURCE}")
    return replace(made, input=INPUT)
