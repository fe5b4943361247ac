"""Networks of torchvision, timm and PaddleClas to compare, and the values of their tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.random import Stream

PINNED = Path(__file__).parents[1] / "data" / "published.json"

# By registry name: options, and the height and width of the images.
RUN: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "torchvision/resnet18": ({}, (48, 64)),
    "torchvision/resnet50": ({"replace_stride_with_dilation": (False, True, True)}, (40, 72)),
    "torchvision/shufflenet_v2_x0_5": ({"repeats": (4, 1, 2)}, (48, 64)),
    "torchvision/mobilenet_v3_small": ({}, (48, 64)),
    "torchvision/mobilenet_v3_large": ({}, (48, 64)),
    "timm/swin_tiny_patch4_window7_224": ({"depths": (2, 1, 1, 2)}, (224, 224)),
    "timm/vit_base_patch16_224": ({"depth": 2, "image_size": 48}, (48, 48)),
    "paddleclas/resnet18": ({}, (48, 64)),
    "paddleclas/resnet50": ({}, (40, 72)),
}
# With their default options: names and shapes only.
WHOLE = [
    *(f"torchvision/resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"torchvision/shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    "torchvision/mobilenet_v3_small",
    "torchvision/mobilenet_v3_large",
    "timm/swin_tiny_patch4_window7_224",
    "timm/vit_base_patch16_224",
    *(f"paddleclas/resnet{depth}" for depth in (18, 34, 50, 101, 152)),
]
CLASSES = 7


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the number of tensors, and a hash of every name and shape."""
    lines = sorted(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return f"{len(lines)} {hashlib.sha256('|'.join(lines).encode()).hexdigest()}"


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return a value for every tensor, by its name: none equal, none zero, unusual statistics."""
    made = {}
    for name, shape in shapes.items():
        random = Stream("published", name)
        if name.endswith("num_batches_tracked"):
            made[name] = np.array(5)
        elif name.endswith(("bias", "mean")):
            made[name] = random.normal(shape, 0.3)
        elif len(shape) > 1:
            made[name] = random.normal(shape, 1 / math.sqrt(math.prod(shape[1:])))
        else:
            made[name] = random.uniform(shape, 0.5, 1.5)
    return made


def image(size: tuple[int, int]) -> np.ndarray:
    """Return one image in [-2, 2), float64."""
    return Stream("published", "image").uniform((1, 3, *size), -2.0, 2.0)
