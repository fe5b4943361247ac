"""ShuffleNetV2 with any activation, in its two published forms.

The form of the ACON code has convolutions with bias and splits channels into even and odd. The form
of the RepAct code is torchvision's: convolutions without bias, channels split into two halves, and
a channel shuffle after the concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from acon_core.errors import SpecError
from acon_core.networks.network import ACON_SOURCE, REPACT_SOURCE, Network, check_stage_depths, resolve_activation
from acon_core.networks.preprocessing import ACON_INPUT, IMAGENET_INPUT
from acon_core.spec.acon import AconC
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Normal, NormalPerInput
from acon_core.spec.primitives import BatchNorm, Conv2d, Dropout, GlobalAvgPool, Linear, MaxPool2d
from acon_core.spec.rearrange import ChannelShuffle, Concat, Flatten, Split
from acon_core.spec.repact import RepAct

REPEATS = (4, 8, 4)
STEM = 24
# Channels of the three stages and of the last convolution: Ma et al. 2018, table 5.
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REPACT_WIDTHS = (0.5, 1.0)

INIT_RULES = (
    InitRule(Conv2d, "weight", Normal(0.01), under="first"),
    InitRule(Conv2d, "weight", NormalPerInput()),
    InitRule(Conv2d, "bias", Constant(0.0)),
    InitRule(BatchNorm, "bias", Constant(0.0001)),
    InitRule(Linear, "weight", Normal(0.01)),
    InitRule(Linear, "bias", Constant(0.0)),
)


def shufflenet_v2(
    width: float = 0.5, act: Node | str = AconC(), num_classes: int = 1000, repeats: Sequence[int] = REPEATS
) -> Network:
    """Return the ShuffleNetV2 of the ACON code. Dropout of 0.2 at width 2.0 only.

    Parameters
    ----------
    width : {0.5, 1.0, 1.5, 2.0}
        Width multiplier.
    act : Node or str
        Activation in place of every ReLU. The name `meta_acon` means Meta-ACON with the published
        reduction: 8 at width 0.5, 16 at other widths.
    num_classes : int
    repeats : sequence of 3 int
        Blocks per stage.

    Notes
    -----
    (N, 3, H, W) -> (N, num_classes), for images of any size.

    This is not torchvision's graph: the projection of a downsampling block keeps its input
    channels.

    References
    ----------
    Ma et al. 2018, "ShuffleNet V2"; nmaac/acon, ShuffleNetV2_ACON and ShuffleNet_MetaACON.
    """
    if width not in CHANNELS:
        raise SpecError(f"shufflenet_v2: expected a width in {sorted(CHANNELS)}, found {width}")
    check_stage_depths("shufflenet_v2", "repeats", repeats, len(REPEATS))
    act = resolve_activation("shufflenet_v2", act, num_classes, reduction=8 if width == 0.5 else 16)
    *widths, last = CHANNELS[width]
    stages: list[list[Node]] = []
    channels = STEM
    for count, outputs in zip(repeats, widths, strict=True):
        stages.append([downsampling_block(channels, outputs, act), *(block(outputs, act) for _ in range(count - 1))])
        channels = outputs
    stem = sequential(Conv2d(3, STEM, 3, 2, 1), BatchNorm(STEM), bind(act, STEM))
    return assemble(
        name=f"acon/shufflenet_v2_x{width:.1f}".replace(".", "_"),
        act=act,
        num_classes=num_classes,
        stem={"first_conv": stem, "maxpool": MaxPool2d(3, 2, 1)},
        stages=stages,
        first_stage=2,
        widths=(channels, last),
        dropout=width == 2.0,
        init_rules=INIT_RULES,
        source=f"Ma et al. 2018 (ShuffleNetV2), {ACON_SOURCE}",
    )


def assemble(
    *,
    name: str,
    act: Node,
    num_classes: int,
    stem: Mapping[str, Node],
    stages: Sequence[Sequence[Node]],
    first_stage: int,
    widths: tuple[int, int],
    dropout: bool,
    init_rules: tuple[InitRule, ...],
    source: str,
) -> Network:
    """Return a network of a stem, stages, a last convolution and a classifier.

    Its layers have the names of the ACON code. `widths`: input and output channels of the last
    convolution.
    """
    channels, last = widths
    network = sequential(
        **stem,
        features=sequential(*(node for stage in stages for node in stage)),
        conv_last=sequential(Conv2d(channels, last, 1), BatchNorm(last), bind(act, last)),
        globalpool=GlobalAvgPool(),
        **({"dropout": Dropout(0.2)} if dropout else {}),
        flatten=Flatten(),
        classifier=sequential(Linear(last, num_classes)),
    )
    blocks = accumulate(len(stage) for stage in stages)
    return Network(
        name=name,
        activation=act,
        num_classes=num_classes,
        graph=replace(network, init_rules=init_rules),
        stages={
            "stem": list(stem)[-1],
            **{f"stage{index}": f"features.{count - 1}" for index, count in enumerate(blocks, first_stage)},
            "conv_last": "conv_last",
        },
        head="classifier.0",
        input=ACON_INPUT,
        source=source,
    )


def branch_main(inputs: int, outputs: int, middle: int, stride: int, act: Node) -> Graph:
    """Apply pointwise, depthwise, pointwise convolutions, with `act` after the pointwise ones."""
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
    """Keep the even channels and send the odd ones through the main branch."""
    half = channels // 2
    return graph(
        "x",
        ["even, odd = split(x)", "main = branch_main(odd)", "y = concat(even, main)"],
        "y",
        {"branch_main": branch_main(half, half, half, 1, act), "split": Split(2, interleaved=True), "concat": Concat()},
    )


def downsampling_block(inputs: int, outputs: int, act: Node) -> Graph:
    """Send x through both branches with stride 2: half the size, rounded up."""
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


def repact_shufflenet_v2(
    width: float = 0.5,
    act: Node | str = RepAct(),
    num_classes: int = 1000,
    repeats: Sequence[int] = REPEATS,
    channels: Sequence[int] | None = None,
) -> Network:
    """Return the ShuffleNetV2 of the RepAct code, which has torchvision's graph and names.

    Parameters
    ----------
    width : {0.5, 1.0}
        Width multiplier.
    act : Node or str
        Activation in place of all 37 ReLUs.
    num_classes : int
    repeats : sequence of 3 int
        Blocks per stage.
    channels : sequence of 5 int, optional
        Channels of the stem, the three stages and the last convolution; those of stages are even.
        The default is that of `width`.

    Notes
    -----
    (N, 3, H, W) -> (N, num_classes), for images of 32x32 or more.

    References
    ----------
    Ma et al. 2018, "ShuffleNet V2"; 2771096196/RepAct, shufflenetV2.py.
    """
    if width not in REPACT_WIDTHS:
        raise SpecError(f"repact_shufflenet_v2: expected a width in {list(REPACT_WIDTHS)}, found {width}")
    act = resolve_activation("repact_shufflenet_v2", act, num_classes)
    source = f"Ma et al. 2018 (ShuffleNetV2), {REPACT_SOURCE}"
    return torchvision_layout("repact", width, act, num_classes, repeats, channels, source)


def torchvision_layout(
    publisher: str,
    width: float,
    act: Node,
    num_classes: int,
    repeats: Sequence[int],
    all_channels: Sequence[int] | None,
    source: str,
) -> Network:
    """Return torchvision's graph with any activation. `publisher`: first part of the name."""
    stem, *widths, last = (STEM, *CHANNELS[width]) if all_channels is None else all_channels
    if len(widths) != len(REPEATS) or min(stem, last, *widths) < 1 or any(each % 2 for each in widths):
        raise SpecError(f"{publisher}/shufflenet_v2: expected 5 channels, those of stages even, found {all_channels}")
    check_stage_depths(f"{publisher}/shufflenet_v2", "repeats", repeats, len(widths))
    stages: dict[str, Node] = {}
    channels = stem
    for index, (count, outputs) in enumerate(zip(repeats, widths, strict=True)):
        first = shuffled_downsampling_block(channels, outputs, act)
        stages[f"stage{index + 2}"] = sequential(first, *(shuffled_block(outputs, act) for _ in range(count - 1)))
        channels = outputs
    return Network(
        name=f"{publisher}/shufflenet_v2_x{width:.1f}".replace(".", "_"),
        activation=act,
        num_classes=num_classes,
        graph=sequential(
            conv1=sequential(Conv2d(3, stem, 3, 2, 1, bias=False), BatchNorm(stem), bind(act, stem)),
            maxpool=MaxPool2d(3, 2, 1),
            **stages,
            conv5=sequential(Conv2d(channels, last, 1, bias=False), BatchNorm(last), bind(act, last)),
            pool=GlobalAvgPool(),
            flatten=Flatten(),
            fc=Linear(last, num_classes),
        ),
        stages={"stem": "maxpool", **{name: name for name in stages}, "conv_last": "conv5"},
        head="fc",
        input=IMAGENET_INPUT,
        source=source,
    )


def shuffled_branch(inputs: int, outputs: int, stride: int, act: Node) -> Graph:
    """Apply pointwise, depthwise, pointwise convolutions, with `act` after the pointwise ones."""
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


def shuffled_block(channels: int, act: Node) -> Graph:
    """Keep the first half of the channels and send the second through its branch."""
    half = channels // 2
    children: dict[str, Node] = {
        "branch2": shuffled_branch(half, half, 1, act),
        "split": Split(2, interleaved=False),
        "concat": Concat(),
        "shuffle": ChannelShuffle(2),
    }
    program = ["passed, other = split(x)", "made = branch2(other)", "both = concat(passed, made)", "y = shuffle(both)"]
    return graph("x", program, "y", children)


def shuffled_downsampling_block(inputs: int, outputs: int, act: Node) -> Graph:
    """Send x through both branches with stride 2: half the size, rounded up."""
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
        "branch2": shuffled_branch(inputs, half, 2, act),
        "concat": Concat(),
        "shuffle": ChannelShuffle(2),
    }
    program = ["passed = branch1(x)", "made = branch2(x)", "both = concat(passed, made)", "y = shuffle(both)"]
    return graph("x", program, "y", children)
