"""ShuffleNetV2 with any activation, as the ACON code has it: every ReLU replaced, convolutions with bias, even/odd split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.errors import SpecError
from acon_core.networks.network import Network, Preprocessing, check_stage_depths, resolve_activation
from acon_core.spec.acon import AconC
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Normal, NormalPerInput
from acon_core.spec.primitives import (
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Split,
)

REPEATS = (4, 8, 4)
STEM = 24
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}

INIT_RULES = (
    InitRule(Conv2d, "weight", Normal(0.01), under="first"),
    InitRule(Conv2d, "weight", NormalPerInput()),
    InitRule(Conv2d, "bias", Constant(0.0)),
    InitRule(BatchNorm, "bias", Constant(0.0001)),
    InitRule(Linear, "weight", Normal(0.01)),
    InitRule(Linear, "bias", Constant(0.0)),
)

INPUT = Preprocessing(order="BGR", range=(0.0, 255.0), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=224, resize=256)


def shufflenet_v2(
    width: float = 0.5, act: Node | str = AconC(), num_classes: int = 1000, repeats: Sequence[int] = REPEATS
) -> Network:
    """ShuffleNetV2 at `width` 0.5, 1.0, 1.5 or 2.0, for input of any size; dropout 0.2 at 2.0 only. `repeats`: blocks a stage.

    `act`: an activation spec, or its name; `meta_acon` by name has the published reduction, 8 at 0.5x and 16 elsewhere.
    (N, 3, H, W) -> (N, num_classes). Not torchvision's graph: the projection keeps its input's channels.
    Raises SpecError for another width, or repeats that cannot be.
    Source: Ma et al. 2018; nmaac/acon ShuffleNetV2_ACON and ShuffleNet_MetaACON.
    """
    if width not in CHANNELS:
        raise SpecError(f"shufflenet_v2: expected a width in {sorted(CHANNELS)}, found {width}")
    check_stage_depths("shufflenet_v2", "repeats", repeats, len(REPEATS))
    act = resolve_activation("shufflenet_v2", act, num_classes, reduction=8 if width == 0.5 else 16)
    *stages, last = CHANNELS[width]
    blocks: list[Node] = []
    channels = STEM
    for count, outputs in zip(repeats, stages, strict=True):
        blocks.append(downsampling_block(channels, outputs, act))
        blocks += [block(outputs, act) for _ in range(count - 1)]
        channels = outputs
    dropout = {"dropout": Dropout(0.2)} if width == 2.0 else {}
    network = sequential(
        first_conv=sequential(Conv2d(3, STEM, 3, 2, 1), BatchNorm(STEM), bind(act, STEM)),
        maxpool=MaxPool2d(3, 2, 1),
        features=sequential(*blocks),
        conv_last=sequential(Conv2d(channels, last, 1), BatchNorm(last), bind(act, last)),
        globalpool=GlobalAvgPool(),
        **dropout,
        flatten=Flatten(),
        classifier=sequential(Linear(last, num_classes)),
    )
    ends = [sum(repeats[: index + 1]) - 1 for index in range(len(repeats))]
    return Network(
        name=f"acon/shufflenet_v2_x{width:.1f}".replace(".", "_"),
        activation=act,
        num_classes=num_classes,
        graph=replace(network, init_rules=INIT_RULES),
        stages={
            "stem": "maxpool",
            **{f"stage{i + 2}": f"features.{end}" for i, end in enumerate(ends)},
            "conv_last": "conv_last",
        },
        head="classifier.0",
        input=INPUT,
        source="Ma et al. 2018 (ShuffleNetV2), Ma et al. 2021 (ACON); nmaac/acon at 99fd679",
    )


def branch_main(inputs: int, outputs: int, middle: int, stride: int, act: Node) -> Graph:
    """Pointwise, norm, activation; depthwise, norm; pointwise, norm, activation."""
    return sequential(
        Conv2d(inputs, middle, 1),
        BatchNorm(middle),
        bind(act, middle),
        Conv2d(middle, middle, 3, stride, 1, groups=middle),
        BatchNorm(middle),
        Conv2d(middle, outputs, 1),
        BatchNorm(outputs),
        bind(act, outputs),
    )


def block(channels: int, act: Node) -> Graph:
    """Stride 1: the even channels pass, the odd ones go through the main branch. (N, C, H, W) -> the same."""
    half = channels // 2
    return graph(
        "x",
        ["even, odd = split(x)", "main = branch_main(odd)", "y = concat(even, main)"],
        "y",
        {"branch_main": branch_main(half, half, half, 1, act), "split": Split(2, interleaved=True), "concat": Concat()},
    )


def downsampling_block(inputs: int, outputs: int, act: Node) -> Graph:
    """Stride 2: projection and main branch both see all of x. (N, inputs, H, W) -> (N, outputs, H / 2, W / 2)."""
    branch_proj = sequential(
        Conv2d(inputs, inputs, 3, 2, 1, groups=inputs),
        BatchNorm(inputs),
        Conv2d(inputs, inputs, 1),
        BatchNorm(inputs),
        bind(act, inputs),
    )
    main = branch_main(inputs, outputs - inputs, outputs // 2, 2, act)
    return graph(
        "x",
        ["proj = branch_proj(x)", "main = branch_main(x)", "y = concat(proj, main)"],
        "y",
        {"branch_main": main, "branch_proj": branch_proj, "concat": Concat()},
    )
