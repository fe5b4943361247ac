"""ShuffleNetV2 as the RepAct code has it: convolutions without bias, halves of the channels, shuffled after they are joined."""

from __future__ import annotations

from collections.abc import Sequence

from acon_core.errors import SpecError
from acon_core.networks.network import Network, check_stage_depths, resolve_activation
from acon_core.networks.repact import INPUT, SOURCE
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.primitives import (
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Split,
)
from acon_core.spec.repact import RepAct

REPEATS = (4, 8, 4)
STEM = 24
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
# Torchvision has all; the RepAct code these.
PUBLISHED = (0.5, 1.0)


def repact_shufflenet_v2(
    width: float = 0.5, act: Node | str = RepAct(), num_classes: int = 1000, repeats: Sequence[int] = REPEATS
) -> Network:
    """ShuffleNetV2 at `width` 0.5 or 1.0, for input of any size from 32x32 on. `act` in all 37 places of ReLU.

    `act`: an activation spec, or its name. `repeats`: blocks a stage. Torchvision's graph and names. Initial values: those of
    the layers themselves. (N, 3, H, W) -> (N, num_classes). Raises SpecError for another width, or repeats that cannot be.
    Source: Ma et al. 2018; RepAct's shufflenetV2.py.
    """
    if width not in PUBLISHED:
        raise SpecError(f"repact_shufflenet_v2: expected a width in {list(PUBLISHED)}, found {width}")
    act = resolve_activation("repact_shufflenet_v2", act, num_classes)
    return shufflenet("repact", width, act, num_classes, repeats, f"Ma et al. 2018 (ShuffleNetV2), {SOURCE}")


def shufflenet(family: str, width: float, act: Node, num_classes: int, repeats: Sequence[int], source: str) -> Network:
    """The network of a family that has it: a width of `CHANNELS`, the activation, the classes, the blocks a stage."""
    *widths, last = CHANNELS[width]
    check_stage_depths(f"{family}/shufflenet_v2", "repeats", repeats, len(widths))
    stages: dict[str, Node] = {}
    channels = STEM
    for index, (count, outputs) in enumerate(zip(repeats, widths, strict=True)):
        first = downsampling_block(channels, outputs, act)
        stages[f"stage{index + 2}"] = sequential(first, *(block(outputs, act) for _ in range(count - 1)))
        channels = outputs
    return Network(
        name=f"{family}/shufflenet_v2_x{width:.1f}".replace(".", "_"),
        activation=act,
        num_classes=num_classes,
        graph=sequential(
            conv1=sequential(Conv2d(3, STEM, 3, 2, 1, bias=False), BatchNorm(STEM), bind(act, STEM)),
            maxpool=MaxPool2d(3, 2, 1),
            **stages,
            conv5=sequential(Conv2d(channels, last, 1, bias=False), BatchNorm(last), bind(act, last)),
            pool=GlobalAvgPool(),
            flatten=Flatten(),
            fc=Linear(last, num_classes),
        ),
        stages={"stem": "maxpool", **{name: name for name in stages}, "conv_last": "conv5"},
        head="fc",
        input=INPUT,
        source=source,
    )


def branch(inputs: int, outputs: int, stride: int, act: Node) -> Graph:
    """Pointwise, norm, activation; depthwise, norm; pointwise, norm, activation."""
    return sequential(
        Conv2d(inputs, outputs, 1, bias=False),
        BatchNorm(outputs),
        bind(act, outputs),
        Conv2d(outputs, outputs, 3, stride, 1, groups=outputs, bias=False),
        BatchNorm(outputs),
        Conv2d(outputs, outputs, 1, bias=False),
        BatchNorm(outputs),
        bind(act, outputs),
    )


def block(channels: int, act: Node) -> Graph:
    """Stride 1: the first half of the channels passes, the second goes through its branch. (N, C, H, W) -> the same."""
    half = channels // 2
    children: dict[str, Node] = {
        "branch2": branch(half, half, 1, act),
        "split": Split(2, interleaved=False),
        "concat": Concat(),
        "shuffle": ChannelShuffle(2),
    }
    program = ["passed, other = split(x)", "made = branch2(other)", "both = concat(passed, made)", "y = shuffle(both)"]
    return graph("x", program, "y", children)


def downsampling_block(inputs: int, outputs: int, act: Node) -> Graph:
    """Stride 2: both branches see all of x. (N, inputs, H, W) -> (N, outputs, H / 2, W / 2), rounded up."""
    half = outputs // 2
    branch1 = sequential(
        Conv2d(inputs, inputs, 3, 2, 1, groups=inputs, bias=False),
        BatchNorm(inputs),
        Conv2d(inputs, half, 1, bias=False),
        BatchNorm(half),
        bind(act, half),
    )
    children: dict[str, Node] = {
        "branch1": branch1,
        "branch2": branch(inputs, half, 2, act),
        "concat": Concat(),
        "shuffle": ChannelShuffle(2),
    }
    program = ["passed = branch1(x)", "made = branch2(x)", "both = concat(passed, made)", "y = shuffle(both)"]
    return graph("x", program, "y", children)
