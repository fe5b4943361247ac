"""Swin Transformer of the RepAct code, with any activation in its MLPs.

Tokens stay images of shape (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.errors import SpecError
from acon_core.networks.network import REPACT_SOURCE, Network, check_stage_depths, resolve_activation
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Normal, Param, Values
from acon_core.spec.primitives import Conv2d, DropPath, GlobalAvgPool, LayerNorm, Linear
from acon_core.spec.rearrange import Add, Flatten
from acon_core.spec.repact import RepAct
from acon_core.spec.tokens import (
    ImageSize,
    PadToMultiple,
    SpaceToDepth,
    WindowAttention,
    WindowPartition,
    WindowReverse,
    relative_position_index,
)

PATCH = 4
WINDOW = 7
WIDTH = 96
# At multiples of this size, the windows of every stage fit without padding. At other sizes,
# implementations pad differently.
WINDOW_MULTIPLE = PATCH * 8 * WINDOW
DEPTHS = (2, 2, 6, 2)
HEADS = (3, 6, 12, 24)
DROP_PATH = 0.1

# The released code uses trunc_normal_(std=0.02, a=-2, b=2). The bounds are 100 standard deviations
# away, so a normal distribution is equivalent.
NARROW = Normal(0.02)

INIT_RULES = (InitRule(Linear, "weight", NARROW), InitRule(Linear, "bias", Constant(0.0)))


def swin_tiny(
    act: Node | str = RepAct(), num_classes: int = 1000, depths: Sequence[int] = DEPTHS, image_size: int | None = None
) -> Network:
    """Return Swin-T: 4x4 patches, windows of 7x7 patches, shifted by 3 in every second block.

    Parameters
    ----------
    act : Node or str
        Activation between the two linear layers of each block's MLP: one per block.
    num_classes : int
    depths : sequence of 4 int
        Blocks per stage.
    image_size : int, optional
        The only accepted height and width in pixels, a multiple of 224. A stage that one window
        covers then has no shifted windows, as in the paper. By default, images of any size are
        accepted, and such a stage has shifted windows too, as in the RepAct code.

    Notes
    -----
    (N, 3, H, W) -> (N, num_classes).

    Stochastic depth rises linearly from 0 at the first block to 0.1 at the last.

    An image whose height or width is not a multiple of 4 is padded with zeros below and to the
    right to the next multiple. The published code differs: it also adds a whole patch along an axis
    that is a multiple of 4 if the other is not.

    References
    ----------
    Liu et al. 2021, "Swin Transformer"; 2771096196/RepAct, swinTransformer.py.
    """
    check_stage_depths("swin_tiny", "depths", depths, len(HEADS))
    if image_size is not None and (image_size < WINDOW_MULTIPLE or image_size % WINDOW_MULTIPLE):
        raise SpecError(f"swin_tiny: expected an image_size that is a multiple of {WINDOW_MULTIPLE}, found {image_size}")
    act = resolve_activation("swin_tiny", act, num_classes)
    stages = []
    for index, (depth, heads) in enumerate(zip(depths, HEADS, strict=True)):
        before = sum(depths[:index])
        rates = [DROP_PATH * place / max(sum(depths) - 1, 1) for place in range(before, before + depth)]
        width = WIDTH * 2**index
        merging = {"downsample": patch_merging(width)} if index + 1 < len(HEADS) else {}
        covered = image_size is not None and image_size // (PATCH * 2**index) <= WINDOW
        shift = 0 if covered else WINDOW // 2
        blocks = sequential(*(block(width, heads, shift * (i % 2), rate, act) for i, rate in enumerate(rates)))
        stages.append(sequential(blocks=blocks, **merging))
    last = WIDTH * 2 ** (len(HEADS) - 1)
    checked = {"image_size": ImageSize(image_size, image_size)} if image_size else {}
    network = sequential(
        **checked,
        patch_embed=sequential(pad=PadToMultiple(PATCH), proj=Conv2d(3, WIDTH, PATCH, PATCH), norm=LayerNorm(WIDTH)),
        layers=sequential(*stages),
        norm=LayerNorm(last),
        avgpool=GlobalAvgPool(),
        flatten=Flatten(),
        head=Linear(last, num_classes),
    )
    return Network(
        name="repact/swin_tiny_patch4_window7_224",
        activation=act,
        num_classes=num_classes,
        graph=replace(network, init_rules=INIT_RULES),
        stages={"stem": "patch_embed", **{f"stage{index + 1}": f"layers.{index}.blocks" for index in range(len(stages))}},
        head="head",
        input=IMAGENET_INPUT.at(image_size) if image_size else IMAGENET_INPUT,
        source=f"Liu et al. 2021 (Swin), {REPACT_SOURCE}",
    )


def block(width: int, heads: int, shift: int, rate: float, act: Node) -> Graph:
    """Return a pre-norm block of attention and an MLP, each with stochastic depth at `rate`."""
    children: dict[str, Node] = {
        "norm1": LayerNorm(width),
        "attn": attention(width, heads, shift),
        "drop_path1": DropPath(rate),
        "add1": Add(),
        "norm2": LayerNorm(width),
        "mlp": sequential(fc1=Linear(width, 4 * width), act=bind(act, 4 * width), fc2=Linear(4 * width, width)),
        "drop_path2": DropPath(rate),
        "add2": Add(),
    }
    program = [
        "a = norm1(x)", "b = attn(a)", "c = drop_path1(b)", "attended = add1(x, c)",
        "d = norm2(attended)", "e = mlp(d)", "f = drop_path2(e)", "y = add2(attended, f)",
    ]  # fmt: skip
    return graph("x", program, "y", children)


def attention(width: int, heads: int, shift: int) -> Graph:
    """Attend within windows, with a learned bias for each relative position.

    `relative_position_index` follows from the window size, but the published state contains it.
    """
    index = relative_position_index(WINDOW)
    params = {
        "relative_position_bias_table": Param(((2 * WINDOW - 1) ** 2, heads), NARROW),
        "relative_position_index": Param(index.shape, Values(tuple(index.ravel().tolist())), kind="derived", dtype="int64"),
    }
    children: dict[str, Node] = {
        "qkv": Linear(width, 3 * width),
        "proj": Linear(width, width),
        "partition": WindowPartition(WINDOW, shift),
        "attend": WindowAttention(WINDOW, shift, heads),
        "merge": WindowReverse(WINDOW, shift),
    }
    program = [
        "windows = partition(x)", "t = qkv(windows)", "a = attend(t, relative_position_bias_table, x)", "p = proj(a)",
        "y = merge(p, x)",
    ]  # fmt: skip
    return graph("x", program, "y", children, params)


def patch_merging(width: int) -> Graph:
    """Merge 2x2 patches into one with twice the channels; sizes are rounded up."""
    children: dict[str, Node] = {
        "reduction": Linear(4 * width, 2 * width, bias=False),
        "norm": LayerNorm(4 * width),
        "squares": SpaceToDepth(),
    }
    return graph("x", ["s = squares(x)", "n = norm(s)", "y = reduction(n)"], "y", children)
