"""TFNet, the toy funnel network of the ACON code: pointwise convolutions and ACON-FReLU."""

from __future__ import annotations

from collections.abc import Sequence

from acon_core.errors import SpecError
from acon_core.networks.network import ACON_SOURCE, Network, check_stage_depths, resolve_activation
from acon_core.networks.shufflenet_v2 import INIT_RULES, assemble
from acon_core.spec.acon import AconFReLU
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Normal
from acon_core.spec.pointwise import ReLU
from acon_core.spec.primitives import BatchNorm, Conv2d
from acon_core.spec.rearrange import Add, Concat

REPEATS = (2, 3, 8, 3)
WIDTHS = (0.5, 1.0, 1.5, 2.0)
LAST_CHANNELS = 1024


def tfnet(
    width: float = 0.5, act: Node | str = AconFReLU(), num_classes: int = 1000, repeats: Sequence[int] = REPEATS
) -> Network:
    """Return TFNet. Widths of 1.0 and above have dropout of 0.2.

    Parameters
    ----------
    width : {0.5, 1.0, 1.5, 2.0}
        Width multiplier.
    act : Node or str
        Activation at 29 places, with the default `repeats`. The stem always has ReLU. The four
        downsampling blocks always end in ACON-FReLU, because its convolution and its pooling are
        the only layers that halve the image.
    num_classes : int
    repeats : sequence of 4 int
        Blocks per stage.

    Notes
    -----
    (N, 3, H, W) -> (N, num_classes), for images of any size.

    After the stem, the depthwise convolution of ACON-FReLU is the only layer whose receptive field
    is larger than one pixel. With another activation the network loses most of its spatial context.

    References
    ----------
    Ma et al. 2021, "Activate or Not", section 4; nmaac/acon, TFNet.
    """
    if width not in WIDTHS:
        raise SpecError(f"tfnet: expected a width in {list(WIDTHS)}, found {width}")
    check_stage_depths("tfnet", "repeats", repeats, len(REPEATS))
    act = resolve_activation("tfnet", act, num_classes)
    stem = channels = int(16 * width)
    stages: list[list[Node]] = []
    for count in repeats:
        first = downsampling_block(channels, act)
        channels *= 2
        stages.append([first, *(block(channels, act) for _ in range(count - 1))])
    return assemble(
        name=f"acon/tfnet_{width:.1f}".replace(".", "_"),
        act=act,
        num_classes=num_classes,
        stem={"first_conv": sequential(Conv2d(3, stem, 3, 2, 1), BatchNorm(stem), ReLU())},
        stages=stages,
        first_stage=1,
        widths=(channels, LAST_CHANNELS),
        dropout=width > 0.5,
        init_rules=(InitRule(Conv2d, "weight", Normal(0.01), under="frelu"), *INIT_RULES),
        source=ACON_SOURCE,
    )


def branch_main(channels: int, act: Node) -> Graph:
    """Apply pointwise convolution, norm, `act`, pointwise convolution, norm. Keeps the shape."""
    return sequential(
        Conv2d(channels, channels, 1),
        BatchNorm(channels),
        bind(act, channels),
        Conv2d(channels, channels, 1),
        BatchNorm(channels),
    )


def block(channels: int, act: Node) -> Graph:
    """Add the branch to x, then apply the activation. Keeps the shape."""
    children = {"branch_main": branch_main(channels, act), "acon": bind(act, channels), "add": Add()}
    return graph("x", ["main = branch_main(x)", "total = add(x, main)", "y = acon(total)"], "y", children)


def downsampling_block(channels: int, act: Node) -> Graph:
    """Concatenate x and its branch, then apply ACON-FReLU with stride 2.

    (N, C, H, W) -> (N, 2 C, H / 2, W / 2), with sizes rounded up.
    """
    children = {"branch_main": branch_main(channels, act), "acon": AconFReLU(2 * channels, stride=2), "concat": Concat()}
    return graph("x", ["main = branch_main(x)", "both = concat(x, main)", "y = acon(both)"], "y", children)
