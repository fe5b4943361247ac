"""ResNet of the ACON code, with any activation after the 3x3 convolutions of bottlenecks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from acon_core.errors import SpecError
from acon_core.networks.network import ACON_SOURCE, Network, check_stage_depths, resolve_activation
from acon_core.networks.preprocessing import ACON_INPUT
from acon_core.spec.acon import AconC
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import KaimingNormal
from acon_core.spec.pointwise import Identity, ReLU
from acon_core.spec.primitives import BatchNorm, Conv2d, GlobalAvgPool, Linear, MaxPool2d
from acon_core.spec.rearrange import Add, Flatten

REPEATS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STEM = 64
WIDTHS = (64, 128, 256, 512)
BASIC = (18, 34)
EXPANSION = 4

INIT_RULES = (InitRule(Conv2d, "weight", KaimingNormal("out")),)


def resnet(
    depth: int = 50,
    act: Node | str = AconC(),
    num_classes: int = 1000,
    replace_stride_with_dilation: Sequence[bool] = (False, False, False),
    bias: bool = True,
    stride_on: int = 1,
    project_first: bool = False,
    groups: int = 1,
    width_per_group: int = 64,
    repeats: Sequence[int] | None = None,
    cifar_stem: bool = False,
) -> Network:
    """Return a ResNet with `act` after its 3x3 convolutions.

    The defaults are those of the ACON code. A bottleneck (depth 50 and above) has `act` after its
    3x3 convolution only; the stem, the first 1x1 convolution and the sum have ReLU. A basic block
    (depths 18 and 34) has `act` after its first convolution and after the sum.

    Parameters
    ----------
    depth : {18, 34, 50, 101, 152}
        Number of layers.
    act : Node or str
        Activation at these places.
    num_classes : int
    replace_stride_with_dilation : sequence of 3 bool
        For stages 2, 3 and 4: whether their 3x3 convolutions are dilated and keep the image size.
        The first block of a dilated stage keeps the dilation of the previous stage. Only for
        bottlenecks. Names and shapes of parameters do not depend on it.
    bias : bool
        Whether convolutions have a bias.
    stride_on : {1, 3}
        Kernel size of the convolution that has the stride of a bottleneck: the first 1x1, as in the
        paper, or the 3x3.
    project_first : bool
        Whether the first block of stage 1 has a projection shortcut (1x1 convolution and batch
        norm) even if its input and output have the same shape, as at depths 18 and 34.
    groups, width_per_group : int
        Groups of the 3x3 convolution of a bottleneck, and the channels of each in stage 1: 32 and 4
        in ResNeXt-50 32x4d, 1 and 128 in Wide ResNet-50-2.
    repeats : sequence of 4 int, optional
        Blocks per stage. The default is that of `depth`.
    cifar_stem : bool
        Whether the stem is a 3x3 convolution with stride 1 and no pooling, for images of 32x32.

    Notes
    -----
    (N, 3, H, W) -> (N, num_classes), for images of any size.

    torchvision's ResNet is the graph with ``bias=False, stride_on=3``. PaddleClas's has
    ``project_first=True`` as well.

    References
    ----------
    He et al. 2016, "Deep Residual Learning"; nmaac/acon, ResNet_ACON and ResNet_MetaACON, which
    define the basic block but no network that uses it.
    """
    if depth not in REPEATS:
        raise SpecError(f"resnet: expected a depth in {list(REPEATS)}, found {depth}")
    if len(replace_stride_with_dilation) != 3:
        raise SpecError(
            "resnet: expected three values in replace_stride_with_dilation, for stages 2, 3 and 4, "
            f"found {tuple(replace_stride_with_dilation)}"
        )
    if stride_on not in (1, 3):
        raise SpecError(f"resnet: expected stride_on 1 or 3, the size of the convolution that has it, found {stride_on}")
    if depth in BASIC and any(replace_stride_with_dilation):
        raise SpecError(f"resnet: depth {depth} has only basic blocks, which cannot be dilated; use depth 50, 101 or 152")
    if depth in BASIC and (groups, width_per_group) != (1, 64):
        raise SpecError(f"resnet: depth {depth} has basic blocks, which have one group of width 64; use depth 50, 101 or 152")
    if min(groups, width_per_group) < 1:
        raise SpecError(f"resnet: expected positive groups and width_per_group, found {groups} and {width_per_group}")
    repeats = REPEATS[depth] if repeats is None else repeats
    check_stage_depths("resnet", "repeats", repeats, len(WIDTHS))
    act = resolve_activation("resnet", act, num_classes)
    stages: dict[str, Node] = {}
    channels, dilation = STEM, 1
    for index, (count, width) in enumerate(zip(repeats, WIDTHS, strict=True)):
        previous_dilation, stride = dilation, 1 if index == 0 else 2
        if index > 0 and replace_stride_with_dilation[index - 1]:
            dilation, stride = dilation * stride, 1
        outputs = width if depth in BASIC else width * EXPANSION
        inner = width * width_per_group // STEM * groups
        blocks = []
        for block in range(count):
            first = block == 0
            inputs, block_stride, block_dilation = (channels, stride, previous_dilation) if first else (outputs, 1, dilation)
            projected = inputs != outputs or block_stride != 1 or (project_first and first and index == 0)
            shortcut = downsample(inputs, outputs, block_stride, bias) if projected else {}
            blocks.append(
                basic_block(inputs, width, block_stride, act, shortcut, bias)
                if depth in BASIC
                else bottleneck(inputs, outputs, inner, groups, block_stride, block_dilation, act, shortcut, bias, stride_on)
            )
        stages[f"layer{index + 1}"] = sequential(*blocks)
        channels = outputs
    network = sequential(
        conv1=Conv2d(3, STEM, 3, 1, 1, bias=bias) if cifar_stem else Conv2d(3, STEM, 7, 2, 3, bias=bias),
        bn1=BatchNorm(STEM),
        relu=ReLU(),
        maxpool=Identity() if cifar_stem else MaxPool2d(3, 2, 1),
        **stages,
        avgpool=GlobalAvgPool(),
        flatten=Flatten(),
        fc=Linear(channels, num_classes),
    )
    return Network(
        name=f"acon/resnet{depth}",
        activation=act,
        num_classes=num_classes,
        graph=replace(network, init_rules=INIT_RULES),
        stages={"stem": "maxpool", **{f"stage{index + 1}": layer for index, layer in enumerate(stages)}},
        head="fc",
        input=ACON_INPUT,
        source=f"He et al. 2016 (ResNet), {ACON_SOURCE}",
    )


def bottleneck(
    inputs: int,
    outputs: int,
    width: int,
    groups: int,
    stride: int,
    dilation: int,
    act: Node,
    shortcut: Mapping[str, Node],
    bias: bool,
    stride_on: int,
) -> Graph:
    """Add a branch of 1x1, 3x3 (grouped, dilated, with `act`) and 1x1 convolutions to the shortcut.

    (N, inputs, H, W) -> (N, outputs, H', W'); `width` is that of the 3x3 convolution.
    """
    first, second = (stride, 1) if stride_on == 1 else (1, stride)
    children: dict[str, Node] = {
        "conv1": Conv2d(inputs, width, 1, first, bias=bias),
        "bn1": BatchNorm(width),
        "conv2": Conv2d(width, width, 3, second, dilation, dilation, groups, bias),
        "bn2": BatchNorm(width),
        "acon": bind(act, width),
        "conv3": Conv2d(width, outputs, 1, bias=bias),
        "bn3": BatchNorm(outputs),
        "relu1": ReLU(),
        "relu3": ReLU(),
    }
    program = [
        "a = conv1(x)", "b = bn1(a)", "c = relu1(b)", "d = conv2(c)", "e = bn2(d)", "f = acon(e)", "g = conv3(f)", "h = bn3(g)",
    ]  # fmt: skip
    return _residual(children, program, "h", "relu3", shortcut)


def basic_block(inputs: int, width: int, stride: int, act: Node, shortcut: Mapping[str, Node], bias: bool) -> Graph:
    """Add two 3x3 convolutions to the shortcut, with `act` after the first and after the sum."""
    children: dict[str, Node] = {
        "conv1": Conv2d(inputs, width, 3, stride, 1, bias=bias),
        "bn1": BatchNorm(width),
        "acon1": bind(act, width),
        "conv2": Conv2d(width, width, 3, 1, 1, bias=bias),
        "bn2": BatchNorm(width),
        "acon2": bind(act, width),
    }
    program = ["a = conv1(x)", "b = bn1(a)", "c = acon1(b)", "d = conv2(c)", "e = bn2(d)"]
    return _residual(children, program, "e", "acon2", shortcut)


def downsample(inputs: int, outputs: int, stride: int, bias: bool) -> Mapping[str, Node]:
    """Return the projection that gives the shortcut the shape of the branch."""
    return {"downsample": sequential(Conv2d(inputs, outputs, 1, stride, bias=bias), BatchNorm(outputs))}


def _residual(
    children: Mapping[str, Node], program: Sequence[str], branch: str, last: str, shortcut: Mapping[str, Node]
) -> Graph:
    """Add x, or its projection, to the branch, and apply the last activation."""
    project = ["identity = downsample(x)"] if shortcut else []
    total = [f"total = add({branch}, {'identity' if shortcut else 'x'})", f"y = {last}(total)"]
    return graph("x", [*program, *project, *total], "y", {**children, **shortcut, "add": Add()})
