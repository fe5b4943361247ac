"""torchvision's ResNet, ShuffleNetV2 and MobileNetV3, with theirs or other activations."""

from __future__ import annotations

from collections.abc import Sequence

from acon_core.networks.mobilenet_v3 import BLOCKS, mobilenet, mobilenet_v3
from acon_core.networks.network import Network, as_published_by, check_num_classes, resolve_activation
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.networks.resnet import resnet
from acon_core.networks.shufflenet_v2 import REPEATS, torchvision_layout
from acon_core.spec.node import Node
from acon_core.spec.pointwise import HardSwish, ReLU

SOURCE = "torchvision 0.28"

# Index of the first block with HardSwish. Earlier blocks have ReLU. Howard et al. 2019, tables 1
# and 2.
FIRST_HARDSWISH_BLOCK = {"small": 3, "large": 6}


def torchvision_resnet(
    depth: int = 50,
    act: Node | str | None = None,
    num_classes: int = 1000,
    replace_stride_with_dilation: Sequence[bool] = (False, False, False),
    groups: int = 1,
    width_per_group: int = 64,
    repeats: Sequence[int] | None = None,
    cifar_stem: bool = False,
) -> Network:
    """Return torchvision's ResNet with ReLU, or with `act` in the places of `resnet`.

    This is ResNet V1.5: a bottleneck has its stride on the 3x3 convolution. Arguments are as for
    `resnet`. (N, 3, H, W) -> (N, num_classes). References: He et al. 2016, "Deep Residual
    Learning"; pytorch/vision, torchvision/models/resnet.py.
    """
    published = ReLU() if act is None else act
    network = resnet(
        depth, published, num_classes, replace_stride_with_dilation, bias=False, stride_on=3,
        groups=groups, width_per_group=width_per_group, repeats=repeats, cifar_stem=cifar_stem,
    )  # fmt: skip
    return as_published_by("torchvision", network, act, f"He et al. 2016 (ResNet); {SOURCE}", input=IMAGENET_INPUT)


def torchvision_shufflenet_v2(
    width: float = 1.0,
    act: Node | str | None = None,
    num_classes: int = 1000,
    repeats: Sequence[int] = REPEATS,
    channels: Sequence[int] | None = None,
) -> Network:
    """Return torchvision's ShuffleNetV2 with ReLU, or `act` in place of every ReLU.

    `width`: the width multiplier, 0.5, 1.0, 1.5 or 2.0. `repeats` and `channels`: as for
    `repact_shufflenet_v2`.
    (N, 3, H, W) -> (N, num_classes). References: Ma et al. 2018, "ShuffleNet V2";
    pytorch/vision, torchvision/models/shufflenetv2.py.
    """
    made = resolve_activation("torchvision_shufflenet_v2", ReLU() if act is None else act, num_classes)
    source = f"Ma et al. 2018 (ShuffleNetV2); {SOURCE}"
    network = torchvision_layout("torchvision", width, made, num_classes, repeats, channels, source)
    return as_published_by("torchvision", network, act, source)


def torchvision_mobilenet_v3(
    size: str = "small", act: Node | str | None = None, num_classes: int = 1000, reduced_tail: bool = False
) -> Network:
    """Return torchvision's MobileNetV3 with ReLU and HardSwish, or `act` as in `mobilenet_v3`.

    `size`: "small" or "large". The first three blocks of small and the first six of large have
    ReLU. Later blocks, the stem and the last convolution have HardSwish. `reduced_tail`: as in
    `mobilenet_v3`. (N, 3, H, W) -> (N, num_classes). References: Howard et al. 2019, "Searching
    for MobileNetV3";
    pytorch/vision, torchvision/models/mobilenetv3.py.
    """
    source = f"Howard et al. 2019 (MobileNetV3); {SOURCE}"
    if act is not None:
        return as_published_by("torchvision", mobilenet_v3(size, act, num_classes, reduced_tail), act, source)
    check_num_classes("torchvision_mobilenet_v3", num_classes)
    relu_blocks = FIRST_HARDSWISH_BLOCK[size]
    hardswish_blocks = len(BLOCKS[size]) - relu_blocks
    acts = [HardSwish(), *[ReLU()] * relu_blocks, *[HardSwish()] * hardswish_blocks, HardSwish()]
    return mobilenet("torchvision", size, acts, num_classes, reduced_tail, source)
