"""Vision Transformer of the RepAct code. Its MLPs take any activation that accepts tokens."""

from __future__ import annotations

import math

from acon_core.errors import SpecError
from acon_core.networks.network import REPACT_SOURCE, Network, resolve_activation
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

PATCH = 16
WIDTH = 768
DEPTH = 12
HEADS = 12
EPS = 1e-6

# The released code uses truncated normal distributions with bounds of -2 and 2. The bounds are at
# least 100 standard deviations away, so a normal distribution is equivalent.
INIT_RULES = (
    InitRule(Linear, "weight", Normal(0.01)),
    InitRule(Linear, "bias", Constant(0.0)),
    InitRule(Conv2d, "weight", KaimingNormal("out")),
    InitRule(Conv2d, "bias", Constant(0.0)),
)


def vit_base(act: Node | str = RepAct(), num_classes: int = 1000, image_size: int = 224, depth: int = DEPTH) -> Network:
    """Return ViT-B/16: 16x16 patches, a class token, learned position embeddings, no dropout.

    Parameters
    ----------
    act : Node or str
        Activation between the two linear layers of each block's MLP: one per block. FReLU and
        ACON-FReLU need images and raise SpecError.
    num_classes : int
    image_size : int
        Height and width in pixels, a multiple of 16. It determines the number of position
        embeddings.
    depth : int
        Number of blocks.

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
    if image_size < PATCH or image_size % PATCH:
        raise SpecError(f"vit_base: expected an image_size that is a multiple of {PATCH}, found {image_size}")
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
        "cls_token": Param((1, 1, WIDTH), embedding_init),
        "pos_embed": Param((1, 1 + (image_size // PATCH) ** 2, WIDTH), embedding_init),
    }
    children: dict[str, Node] = {
        "patch_embed": sequential(proj=Conv2d(3, WIDTH, PATCH, PATCH)),
        "blocks": sequential(*(block(act) for _ in range(depth))),
        "norm": LayerNorm(WIDTH, EPS),
        "head": Linear(WIDTH, num_classes),
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


def block(act: Node) -> Graph:
    """Return a pre-norm block: x + attention(norm(x)), then x + MLP(norm(x)). Keeps (N, C, L)."""
    children: dict[str, Node] = {
        "norm1": LayerNorm(WIDTH, EPS),
        "attn": sequential(qkv=Linear(WIDTH, 3 * WIDTH), attend=Attention(HEADS), proj=Linear(WIDTH, WIDTH)),
        "add1": Add(),
        "norm2": LayerNorm(WIDTH, EPS),
        "mlp": sequential(fc1=Linear(WIDTH, 4 * WIDTH), act=bind(act, 4 * WIDTH), fc2=Linear(4 * WIDTH, WIDTH)),
        "add2": Add(),
    }
    program = [
        "a = norm1(x)", "b = attn(a)", "attended = add1(x, b)", "c = norm2(attended)", "d = mlp(c)", "y = add2(attended, d)",
    ]  # fmt: skip
    return graph("x", program, "y", children)
