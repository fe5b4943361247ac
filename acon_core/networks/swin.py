"""Swin Transformer of the RepAct code, with any activation in its MLPs.

Tokens stay images of shape (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from acon_core.errors import SpecError
from acon_core.networks.network import REPACT_SOURCE, Network, check_sizes, check_stage_depths, resolve_activation
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

DEPTHS = (2, 2, 6, 2)
HEAD_WIDTH = 32
DROP_PATH = 0.1

# The released code uses trunc_normal_(std=0.02, a=-2, b=2). The bounds are 100 standard deviations
# away, so a normal distribution is equivalent.
NARROW = Normal(0.02)

INIT_RULES = (InitRule(Linear, "weight", NARROW), InitRule(Linear, "bias", Constant(0.0)))


def swin_tiny(
    act: Node | str = RepAct(),
    num_classes: int = 1000,
    depths: Sequence[int] = DEPTHS,
    image_size: int | None = None,
    embed_dim: int = 96,
    num_heads: Sequence[int] | None = None,
    window_size: int = 7,
    patch_size: int = 4,
) -> Network:
    """Return Swin-T: 4x4 patches, windows of 7x7 patches, shifted by 3 in every second block.

    Its options make the other sizes. Swin-S: ``depths=(2, 2, 18, 2)``; Swin-B: ``embed_dim=128`` as
    well.

    Parameters
    ----------
    act : Node or str
        Activation between the two linear layers of each block's MLP: one per block.
    num_classes : int
    depths : sequence of int
        Blocks per stage.
    image_size : int, optional
        The only accepted height and width in pixels, a multiple of 224, or of what the windows of
        the last stage cover. A stage that one window covers then has no shifted windows, as in the
        paper. By default, images of any size are accepted, and such a stage has shifted windows
        too, as in the RepAct code.
    embed_dim : int
        Channels of the first stage. Each stage doubles them.
    num_heads : sequence of int, optional
        Attention heads per stage. The default is one for each 32 channels, as in all published
        sizes.
    window_size : int
        Side of a window in patches. Windows are shifted by half of it, rounded down.
    patch_size : int
        Side of a patch in pixels.

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
    check_sizes("swin_tiny", embed_dim=embed_dim, window_size=window_size, patch_size=patch_size)
    heads_of = [embed_dim * 2**index // HEAD_WIDTH for index in range(len(depths))] if num_heads is None else num_heads
    check_stage_depths("swin_tiny", "depths", depths, len(heads_of) if num_heads else max(len(depths), 1))
    for index, heads in enumerate(heads_of):
        if heads < 1 or embed_dim * 2**index % heads:
            raise SpecError(f"swin_tiny: {heads} heads do not divide the {embed_dim * 2**index} channels of stage {index + 1}")
    # At multiples of this size, the windows of every stage fit without padding. At other sizes,
    # implementations pad differently.
    multiple = patch_size * 2 ** (len(depths) - 1) * window_size
    if image_size is not None and (image_size < multiple or image_size % multiple):
        raise SpecError(f"swin_tiny: expected an image_size that is a multiple of {multiple}, found {image_size}")
    act = resolve_activation("swin_tiny", act, num_classes)
    stages = []
    for index, (depth, heads) in enumerate(zip(depths, heads_of, strict=True)):
        before = sum(depths[:index])
        rates = [DROP_PATH * place / max(sum(depths) - 1, 1) for place in range(before, before + depth)]
        width = embed_dim * 2**index
        merging = {"downsample": patch_merging(width)} if index + 1 < len(depths) else {}
        covered = image_size is not None and image_size // (patch_size * 2**index) <= window_size
        shift = 0 if covered else window_size // 2
        blocks = sequential(*(block(width, heads, window_size, shift * (i % 2), rate, act) for i, rate in enumerate(rates)))
        stages.append(sequential(blocks=blocks, **merging))
    last = embed_dim * 2 ** (len(depths) - 1)
    checked = {"image_size": ImageSize(image_size, image_size)} if image_size else {}
    network = sequential(
        **checked,
        patch_embed=sequential(
            pad=PadToMultiple(patch_size), proj=Conv2d(3, embed_dim, patch_size, patch_size), norm=LayerNorm(embed_dim)
        ),
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


def block(width: int, heads: int, window: int, shift: int, rate: float, act: Node) -> Graph:
    """Return a pre-norm block of attention and an MLP, each with stochastic depth at `rate`."""
    children: dict[str, Node] = {
        "norm1": LayerNorm(width),
        "attn": attention(width, heads, window, shift),
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


def attention(width: int, heads: int, window: int, shift: int) -> Graph:
    """Attend within windows, with a learned bias for each relative position.

    `relative_position_index` follows from the window size, but the published state contains it.
    """
    params = {
        "relative_position_bias_table": Param(((2 * window - 1) ** 2, heads), NARROW),
        "relative_position_index": position_index(window),
    }
    children: dict[str, Node] = {
        "qkv": Linear(width, 3 * width),
        "proj": Linear(width, width),
        "partition": WindowPartition(window, shift),
        "attend": WindowAttention(window, shift, heads),
        "merge": WindowReverse(window, shift),
    }
    program = [
        "windows = partition(x)", "t = qkv(windows)", "a = attend(t, relative_position_bias_table, x)", "p = proj(a)",
        "y = merge(p, x)",
    ]  # fmt: skip
    return graph("x", program, "y", children, params)


@cache
def position_index(window: int) -> Param:
    """Return the parameter that says which row of the table a pair of pixels has."""
    index = relative_position_index(window)
    return Param(index.shape, Values(tuple(index.ravel().tolist())), kind="derived", dtype="int64")


def patch_merging(width: int) -> Graph:
    """Merge 2x2 patches into one with twice the channels; sizes are rounded up."""
    children: dict[str, Node] = {
        "reduction": Linear(4 * width, 2 * width, bias=False),
        "norm": LayerNorm(4 * width),
        "squares": SpaceToDepth(),
    }
    return graph("x", ["s = squares(x)", "n = norm(s)", "y = reduction(n)"], "y", children)
