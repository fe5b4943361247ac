"""MobileNetV3 of the RepAct code: one activation, where the paper has ReLU and HardSwish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.errors import SpecError
from acon_core.networks.network import REPACT_SOURCE, Network, resolve_activation
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, KaimingNormal, Normal
from acon_core.spec.pointwise import HardSigmoid, HardSwish, ReLU
from acon_core.spec.primitives import BatchNorm, Conv2d, Dropout, GlobalAvgPool, Linear
from acon_core.spec.rearrange import Add, ChannelScale, Flatten
from acon_core.spec.repact import RepAct

STEM = 16
HIDDEN = {"small": 1024, "large": 1280}
# Kernel, expanded channels, channels, squeeze and excitation, stride: Howard et al. 2019, tables 1
# and 2.
BLOCKS = {
    "small": (
        (3, 16, 16, True, 2),
        (3, 72, 24, False, 2),
        (3, 88, 24, False, 1),
        (5, 96, 40, True, 2),
        (5, 240, 40, True, 1),
        (5, 240, 40, True, 1),
        (5, 120, 48, True, 1),
        (5, 144, 48, True, 1),
        (5, 288, 96, True, 2),
        (5, 576, 96, True, 1),
        (5, 576, 96, True, 1),
    ),
    "large": (
        (3, 16, 16, False, 1),
        (3, 64, 24, False, 2),
        (3, 72, 24, False, 1),
        (5, 72, 40, True, 2),
        (5, 120, 40, True, 1),
        (5, 120, 40, True, 1),
        (3, 240, 80, False, 2),
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
        (5, 672, 160, True, 2),
        (5, 960, 160, True, 1),
        (5, 960, 160, True, 1),
    ),
}

INIT_RULES = (
    InitRule(Conv2d, "weight", KaimingNormal("out")),
    InitRule(Conv2d, "bias", Constant(0.0)),
    InitRule(Linear, "weight", Normal(0.01)),
    InitRule(Linear, "bias", Constant(0.0)),
)


def mobilenet_v3(
    size: str = "small", act: Node | str = RepAct(), num_classes: int = 1000, reduced_tail: bool = False
) -> Network:
    """Return a MobileNetV3 with dropout of 0.2 before its last layer.

    Parameters
    ----------
    size : {"small", "large"}
        The variant.
    act : Node or str
        Activation of the stem, of each expansion and depthwise convolution and of the last
        convolution: 23 places in small, 31 in large. Squeeze-and-excitation keeps ReLU and the hard
        sigmoid, the classifier HardSwish.
    num_classes : int
    reduced_tail : bool
        Whether the last three blocks and the layers after them have half of their channels.

    Notes
    -----
    (N, 3, H, W) -> (N, num_classes), for images of any size.

    The batch norms have eps 0.001 and decay 0.99, except inside an activation.

    References
    ----------
    Howard et al. 2019, "Searching for MobileNetV3"; 2771096196/RepAct, mobilenetV3.py.
    """
    if size not in BLOCKS:
        raise SpecError(f"mobilenet_v3: expected a size in {', '.join(BLOCKS)}, found {size!r}")
    act = resolve_activation("mobilenet_v3", act, num_classes)
    source = f"Howard et al. 2019 (MobileNetV3), {REPACT_SOURCE}"
    network = mobilenet("repact", size, [act] * (len(BLOCKS[size]) + 2), num_classes, reduced_tail, source)
    return replace(network, activation=act)


def mobilenet(publisher: str, size: str, acts: Sequence[Node], num_classes: int, reduced_tail: bool, source: str) -> Network:
    """Return the network. `acts`: one each for the stem, every block and the last convolution."""
    divider = 2 if reduced_tail else 1
    *blocks, first, second, third = BLOCKS[size]
    kernel, expanded, outputs, squeezed, stride = first  # its expansion is that of the block before
    tail = [(kernel, expanded, outputs // divider, squeezed, stride)]
    for kernel, expanded, outputs, squeezed, stride in (second, third):
        tail.append((kernel, expanded // divider, outputs // divider, squeezed, stride))
    layers: list[Node] = [convolution(3, STEM, 3, acts[0], stride=2)]
    ends, channels = [0], STEM
    for act, (kernel, expanded, outputs, squeezed, stride) in zip(acts[1:-1], [*blocks, *tail], strict=True):
        # A stage ends before the next block that halves the image.
        ends[-1:] = [ends[-1], len(layers)] if stride == 2 else [len(layers)]
        layers.append(block(channels, expanded, outputs, kernel, stride, squeezed, act))
        channels = outputs
    last, hidden = 6 * channels, HIDDEN[size] // divider
    network = sequential(
        features=sequential(*layers, convolution(channels, last, 1, acts[-1])),
        avgpool=GlobalAvgPool(),
        flatten=Flatten(),
        classifier=sequential(Linear(last, hidden), HardSwish(), Dropout(0.2), Linear(hidden, num_classes)),
    )
    return Network(
        name=f"{publisher}/mobilenet_v3_{size}",
        num_classes=num_classes,
        graph=replace(network, init_rules=INIT_RULES),
        stages={
            **{f"stage{stage}" if stage else "stem": f"features.{end}" for stage, end in enumerate(ends)},
            "conv_last": f"features.{len(layers)}",
        },
        head="classifier.3",
        input=IMAGENET_INPUT,
        source=source,
    )


def convolution(inputs: int, outputs: int, kernel: int, act: Node | None, stride: int = 1, groups: int = 1) -> Graph:
    """Apply a convolution that keeps the size at stride 1, a norm, and `act` unless None."""
    activation = () if act is None else (bind(act, outputs),)
    return sequential(
        Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        BatchNorm(outputs, eps=0.001, decay=0.99),
        *activation,
    )


def block(inputs: int, expanded: int, outputs: int, kernel: int, stride: int, squeezed: bool, act: Node) -> Graph:
    """Expand, filter depthwise, squeeze, project; add x if the shapes agree."""
    layers: list[Node] = [] if expanded == inputs else [convolution(inputs, expanded, 1, act)]
    layers.append(convolution(expanded, expanded, kernel, act, stride, groups=expanded))
    if squeezed:
        layers.append(squeeze_and_excitation(expanded))
    inner = sequential(*layers, convolution(expanded, outputs, 1, None))
    if stride == 1 and inputs == outputs:
        return graph("x", ["made = block(x)", "y = add(made, x)"], "y", {"block": inner, "add": Add()})
    return sequential(block=inner)


def squeeze_and_excitation(channels: int) -> Graph:
    """Return x * hardsigmoid(fc2(relu(fc1(mean over space)))). Source: Hu et al. 2018."""
    hidden = divisible(channels // 4)
    children: dict[str, Node] = {
        "fc1": Conv2d(channels, hidden, 1),
        "fc2": Conv2d(hidden, channels, 1),
        "mean": GlobalAvgPool(),
        "relu": ReLU(),
        "gate": HardSigmoid(),
        "rescale": ChannelScale(),
    }
    program = ["m = mean(x)", "a = fc1(m)", "r = relu(a)", "b = fc2(r)", "factor = gate(b)", "y = rescale(x, factor)"]
    return graph("x", program, "y", children)


def divisible(channels: int) -> int:
    """Round to a multiple of 8, and up if rounding removed more than a tenth."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
