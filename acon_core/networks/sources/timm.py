"""timm's Swin-T and ViT-B/16."""

from __future__ import annotations

from collections.abc import Sequence

from acon_core.networks.network import Network, as_published_by
from acon_core.networks.preprocessing import TIMM_SWIN_INPUT, TIMM_VIT_INPUT
from acon_core.networks.swin import DEPTHS, swin_tiny
from acon_core.networks.vit import DEPTH, vit_base
from acon_core.spec.node import Node
from acon_core.spec.pointwise import GELU

SOURCE = "timm 1.0.31"


def timm_swin_tiny(
    act: Node | str | None = None,
    num_classes: int = 1000,
    depths: Sequence[int] = DEPTHS,
    image_size: int | None = None,
    embed_dim: int = 96,
    num_heads: Sequence[int] | None = None,
    window_size: int = 7,
    patch_size: int = 4,
) -> Network:
    """Return timm's Swin-T with GELU, or with `act` in its MLPs.

    Arguments and parameter names are those of `swin_tiny`; `image_size` is by default the smallest,
    224 for windows of 7. The dialect `timm` maps the parameter names to timm's. Input and output:
    (N, 3, image_size, image_size) -> (N, num_classes).
    References: Liu et al. 2021, "Swin Transformer"; huggingface/pytorch-image-models,
    timm/models/swin_transformer.py.
    """
    size = patch_size * 2 ** (len(depths) - 1) * window_size if image_size is None else image_size
    sizes = (embed_dim, num_heads, window_size, patch_size)
    network = swin_tiny(GELU() if act is None else act, num_classes, depths, size, *sizes)
    return as_published_by("timm", network, act, f"Liu et al. 2021 (Swin); {SOURCE}", input=TIMM_SWIN_INPUT.at(size))


def timm_vit_base(
    act: Node | str | None = None,
    num_classes: int = 1000,
    image_size: int = 224,
    depth: int = DEPTH,
    patch_size: int = 16,
    embed_dim: int = 768,
    num_heads: int | None = None,
) -> Network:
    """Return timm's ViT-B/16 with GELU, or with `act` in its MLPs.

    Arguments and parameter names are those of `vit_base`; the dialect `timm` maps the parameter
    names to timm's. Input and output: (N, 3, image_size, image_size) -> (N, num_classes).
    References: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words";
    huggingface/pytorch-image-models, timm/models/vision_transformer.py.
    """
    sizes = (patch_size, embed_dim, num_heads)
    network = vit_base(GELU() if act is None else act, num_classes, image_size, depth, *sizes)
    source = f"Dosovitskiy et al. 2021 (ViT); {SOURCE}"
    return as_published_by("timm", network, act, source, input=TIMM_VIT_INPUT.at(image_size))
