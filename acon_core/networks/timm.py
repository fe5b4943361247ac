"""Swin-T and ViT-B/16 as timm has them, for its weights: with GELU alone, and an input of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acon_core.networks.network import Network, Preprocessing
from acon_core.networks.swin import DEPTHS, swin_tiny
from acon_core.networks.vit import DEPTH, vit_base
from acon_core.spec.pointwise import GELU

SWIN_INPUT = Preprocessing("RGB", range=(0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, resize=248)
# Of the weights that timm takes where none are named; others of its ViTs, such as DeiT's and DINO's, have ImageNet's.
VIT_INPUT = Preprocessing("RGB", range=(0.0, 1.0), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=224, resize=248)
SOURCE = "timm 1.0.31"


def timm_swin_tiny(num_classes: int = 1000, depths: Sequence[int] = DEPTHS, image_size: int = 224) -> Network:
    """timm's Swin-T, with GELU, for images of one size. `depths`, `image_size`: as for `swin_tiny`.

    timm has other names, those of the dialect `timm`; here they are `swin_tiny`'s. (N, 3, image_size, image_size) ->
    (N, num_classes). Source: Liu et al. 2021; timm.models.swin_transformer.
    """
    made = swin_tiny(GELU(), num_classes, depths, image_size)
    return replace(
        made,
        name="timm/swin_tiny_patch4_window7_224",
        activation=None,
        input=SWIN_INPUT.at(image_size),
        source=f"Liu et al. 2021 (Swin); {SOURCE}",
    )


def timm_vit_base(num_classes: int = 1000, image_size: int = 224, depth: int = DEPTH) -> Network:
    """timm's ViT-B/16, with GELU. `image_size`, `depth`: as for `vit_base`, whose names it has.

    (N, 3, image_size, image_size) -> (N, num_classes). Source: Dosovitskiy et al. 2021; timm.models.vision_transformer.
    """
    made = vit_base(GELU(), num_classes, image_size, depth)
    return replace(
        made,
        name="timm/vit_base_patch16_224",
        activation=None,
        input=VIT_INPUT.at(image_size),
        source=f"Dosovitskiy et al. 2021 (ViT); {SOURCE}",
    )
