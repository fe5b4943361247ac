"""TFNet, the toy funnel network of the ACON code: pointwise convolutions, and ACON-FReLU to see and to shrink the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.errors import SpecError
from acon_core.networks.network import Network, Preprocessing, check_stage_depths, resolve_activation
from acon_core.spec.acon import AconFReLU
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Normal, NormalPerInput
from acon_core.spec.pointwise import ReLU
from acon_core.spec.primitives import Add, BatchNorm, Concat, Conv2d, Dropout, Flatten, GlobalAvgPool, Linear

REPEATS = (2, 3, 8, 3)
WIDTHS = (0.5, 1.0, 1.5, 2.0)
LAST = 1024

INIT_RULES = (
    InitRule(Conv2d, "weight", Normal(0.01), under="first"),
    InitRule(Conv2d, "weight", Normal(0.01), under="frelu"),
    InitRule(Conv2d, "weight", NormalPerInput()),
    InitRule(Conv2d, "bias", Constant(0.0)),
    InitRule(BatchNorm, "bias", Constant(0.0001)),
    InitRule(Linear, "weight", Normal(0.01)),
    InitRule(Linear, "bias", Constant(0.0)),
)

INPUT = Preprocessing(order="BGR", range=(0.0, 255.0), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=224, resize=256)


def tfnet(
    width: float = 0.5, act: Node | str = AconFReLU(), num_classes: int = 1000, repeats: Sequence[int] = REPEATS
) -> Network:
    """TFNet at `width` 0.5, 1.0, 1.5 or 2.0, for input of any size; dropout 0.2 above 0.5. The stem keeps ReLU.

    `act`: published is ACON-FReLU, whose depthwise convolutions are all that sees beyond a pixel after the stem. Another one
    is put in the 29 places that keep the image's size; the four that halve it keep ACON-FReLU, since nothing else there can.
    `repeats`: blocks a stage. (N, 3, H, W) -> (N, num_classes). Raises SpecError for another width, or repeats that cannot be.
    Source: Ma et al. 2021; nmaac/acon TFNet.
    """
    if width not in WIDTHS:
        raise SpecError(f"tfnet: expected a width in {list(WIDTHS)}, found {width}")
    check_stage_depths("tfnet", "repeats", repeats, len(REPEATS))
    act = resolve_activation("tfnet", act, num_classes)
    stem = channels = int(16 * width)
    blocks: list[Node] = []
    for count in repeats:
        blocks.append(downsampling_block(channels, act))
        channels *= 2
        blocks += [block(channels, act) for _ in range(count - 1)]
    dropout = {"dropout": Dropout(0.2)} if width > 0.5 else {}
    network = sequential(
        first_conv=sequential(Conv2d(3, stem, 3, 2, 1), BatchNorm(stem), ReLU()),
        features=sequential(*blocks),
        conv_last=sequential(Conv2d(channels, LAST, 1), BatchNorm(LAST), bind(act, LAST)),
        globalpool=GlobalAvgPool(),
        **dropout,
        flatten=Flatten(),
        classifier=sequential(Linear(LAST, num_classes)),
    )
    ends = [sum(repeats[: index + 1]) - 1 for index in range(len(repeats))]
    return Network(
        name=f"acon/tfnet_{width:.1f}".replace(".", "_"),
        activation=act,
        num_classes=num_classes,
        graph=replace(network, init_rules=INIT_RULES),
        stages={
            "stem": "first_conv",
            **{f"stage{index + 1}": f"features.{end}" for index, end in enumerate(ends)},
            "conv_last": "conv_last",
        },
        head="classifier.0",
        input=INPUT,
        source="Ma et al. 2021 (ACON); nmaac/acon at 99fd679",
    )


def branch_main(channels: int, act: Node) -> Graph:
    """Pointwise, norm, activation, pointwise, norm. (N, C, H, W) -> the same."""
    return sequential(
        Conv2d(channels, channels, 1),
        BatchNorm(channels),
        bind(act, channels),
        Conv2d(channels, channels, 1),
        BatchNorm(channels),
    )


def block(channels: int, act: Node) -> Graph:
    """The activation of x plus its branch. (N, C, H, W) -> the same."""
    children = {"branch_main": branch_main(channels, act), "acon": bind(act, channels), "add": Add()}
    return graph("x", ["main = branch_main(x)", "total = add(x, main)", "y = acon(total)"], "y", children)


def downsampling_block(channels: int, act: Node) -> Graph:
    """ACON-FReLU with stride 2 of x beside its branch. (N, C, H, W) -> (N, 2 C, H / 2, W / 2)."""
    children = {"branch_main": branch_main(channels, act), "acon": AconFReLU(2 * channels, stride=2), "concat": Concat()}
    return graph("x", ["main = branch_main(x)", "both = concat(x, main)", "y = acon(both)"], "y", children)
