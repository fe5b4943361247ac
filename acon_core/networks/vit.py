"""Vision Transformer of the RepAct code. Its MLPs take any activation that accepts tokens."""

from __future__ import annotations

import math

from acon_core.errors import SpecError
from acon_core.networks.network import REPACT_SOURCE, Network, check_sizes, resolve_activation
from acon_core.networks.preprocessing import IMAGENET_INPUT
from acon_core.spec.activation_base import ChannelwiseActivation, bind
from acon_core.spec.activations import activation_name
from acon_core.spec.graph import Graph, InitRule, graph, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, KaimingNormal, Normal, Param
from acon_core.spec.primitives import Conv2d, LayerNorm, Linear
from acon_core.spec.rearrange import Add
from acon_core.spec.repact import RepAct
from acon_core.spec.tokens import AddPosition, Attention, FlattenSpace, ImageSize, PrependToken, SelectToken

DEPTH = 12
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published widths
EPS = 1e-6

# The released code uses truncated normal distributions with bounds of -2 and 2. The bounds are at
# least 100 standard deviations away, so a normal distribution is equivalent.
INIT_RULES = (
    InitRule(Linear, "weight", Normal(0.01)),
    InitRule(Linear, "bias", Constant(0.0)),
    InitRule(Conv2d, "weight", KaimingNormal("out")),
    InitRule(Conv2d, "bias", Constant(0.0)),
)


def vit_base(
    act: Node | str = RepAct(),
    num_classes: int = 1000,
    image_size: int = 224,
    depth: int = DEPTH,
    patch_size: int = 16,
    embed_dim: int = 768,
    num_heads: int | None = None,
) -> Network:
    """Return ViT-B/16: 16x16 patches, a class token, learned position embeddings, no dropout.

    Its options make the other sizes. ViT-B/32: ``patch_size=32``; ViT-L/16: ``depth=24,
    embed_dim=1024``.

    Parameters
    ----------
    act : Node or str
        Activation between the two linear layers of each block's MLP: one per block. FReLU and
        ACON-FReLU need images and raise SpecError.
    num_classes : int
    image_size : int
        Height and width in pixels, a multiple of `patch_size`. It determines the number of position
        embeddings.
    depth : int
        Number of blocks.
    patch_size : int
        Side of a patch in pixels.
    embed_dim : int
        Number of channels.
    num_heads : int, optional
        Number of attention heads, which divides `embed_dim`. The tensors do not depend on it. The
        default is that of the published network of this width (12 for 768, 16 for 1024 and 1280),
        else one for each 64 channels.

    Notes
    -----
    (N, 3, image_size, image_size) -> (N, num_classes). Images of any other size raise SpecError,
    even with the same number of patches, because the position embeddings are learned for this size.

    The stage outputs are the tokens after each quarter of the blocks, or after each block if there
    are fewer than four blocks.

    References
    ----------
    Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; 2771096196/RepAct, vitModel.py.
    """
    check_sizes("vit_base", patch_size=patch_size, embed_dim=embed_dim)
    if image_size < patch_size or image_size % patch_size:
        raise SpecError(f"vit_base: expected an image_size that is a multiple of {patch_size}, found {image_size}")
    heads = HEADS.get(embed_dim, max(embed_dim // 64, 1)) if num_heads is None else num_heads
    if heads < 1 or embed_dim % heads:
        raise SpecError(f"vit_base: {heads} heads do not divide embed_dim {embed_dim}; pass num_heads")
    if depth < 1:
        raise SpecError(f"vit_base: expected at least one block, found depth {depth}")
    act = resolve_activation("vit_base", act, num_classes)
    if isinstance(act, ChannelwiseActivation) and act.rank not in (None, 3):
        raise SpecError(
            f"vit_base: {activation_name(act)} needs images (N, C, H, W), but tokens are (N, C, L); use another activation, "
            "or a network whose values are images, such as repact/swin_tiny_patch4_window7_224"
        )
    embedding_init = Normal(0.02)
    num_stages = min(4, depth)
    params = {
        "cls_token": Param((1, 1, embed_dim), embedding_init),
        "pos_embed": Param((1, 1 + (image_size // patch_size) ** 2, embed_dim), embedding_init),
    }
    children: dict[str, Node] = {
        "patch_embed": sequential(proj=Conv2d(3, embed_dim, patch_size, patch_size)),
        "blocks": sequential(*(block(embed_dim, heads, act) for _ in range(depth))),
        "norm": LayerNorm(embed_dim, EPS),
        "head": Linear(embed_dim, num_classes),
        "image_size": ImageSize(image_size, image_size),
        "flatten": FlattenSpace(),
        "prepend": PrependToken(),
        "position": AddPosition(),
        "select": SelectToken(0),
    }
    program = [
        "image = image_size(x)", "patches = patch_embed(image)", "tokens = flatten(patches)",
        "with_class = prepend(tokens, cls_token)", "placed = position(with_class, pos_embed)", "blocks = blocks(placed)",
        "norm = norm(blocks)", "first = select(norm)", "head = head(first)",
    ]  # fmt: skip
    return Network(
        name="repact/vit_base_patch16_224",
        activation=act,
        num_classes=num_classes,
        graph=graph("x", program, "head", children, params, INIT_RULES),
        stages={f"stage{stage}": f"blocks.{math.ceil(depth * stage / num_stages) - 1}" for stage in range(1, num_stages + 1)},
        head="head",
        input=IMAGENET_INPUT.at(image_size),
        source=f"Dosovitskiy et al. 2021 (ViT), {REPACT_SOURCE}",
    )


def block(width: int, heads: int, act: Node) -> Graph:
    """Return a pre-norm block: x + attention(norm(x)), then x + MLP(norm(x)). Keeps (N, C, L)."""
    children: dict[str, Node] = {
        "norm1": LayerNorm(width, EPS),
        "attn": sequential(qkv=Linear(width, 3 * width), attend=Attention(heads), proj=Linear(width, width)),
        "add1": Add(),
        "norm2": LayerNorm(width, EPS),
        "mlp": sequential(fc1=Linear(width, 4 * width), act=bind(act, 4 * width), fc2=Linear(4 * width, width)),
        "add2": Add(),
    }
    program = [
        "a = norm1(x)", "b = attn(a)", "attended = add1(x, b)", "c = norm2(attended)", "d = mlp(c)", "y = add2(attended, d)",
    ]  # fmt: skip
    return graph("x", program, "y", children)
