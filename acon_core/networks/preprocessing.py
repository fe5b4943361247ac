"""How images are preprocessed for a trained network: the type, and the published values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from acon_core.errors import SpecError


@dataclass(frozen=True)
class Preprocessing:
    """How to turn an image into the input of a trained network.

    The image is resized so that its shorter side has `resize` pixels, then center-cropped to a
    square of `size` pixels. Pixel values in `range` are then normalised: ``(value - mean) / std``.

    Parameters
    ----------
    order : {"BGR", "RGB"}
        Order of the color channels.
    range : tuple of 2 float
        Smallest and largest pixel value before normalisation.
    mean, std : tuple of 3 float
        Mean and standard deviation of each channel, on the scale of `range` and in channel order
        `order`.
    size : int
        Height and width of the input in pixels.
    resize : int
        Length in pixels of the shorter side before the crop. At least `size`.

    Raises
    ------
    SpecError
        If a value has the wrong type or length or is out of range, or if `resize` is less than
        `size`.
    """

    order: Literal["BGR", "RGB"]
    range: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    resize: int

    def __post_init__(self) -> None:
        tuples = {"range": (self.range, 2), "mean": (self.mean, 3), "std": (self.std, 3)}
        for name, (values, count) in tuples.items():
            if type(values) is not tuple or len(values) != count or not all(type(v) in (int, float) for v in values):
                raise SpecError(f"input: {name} must be {count} numbers, found {values!r:.60}")
        if self.order not in ("BGR", "RGB"):
            raise SpecError(f"input: order must be BGR or RGB, found {self.order!r:.20}")
        if not all(map(math.isfinite, (*self.range, *self.mean, *self.std))):
            raise SpecError("input: range, mean and std must be finite")
        if not (self.range[0] < self.range[1] and min(self.std) > 0):
            raise SpecError(f"input: range {self.range} must ascend, and std {self.std} must be positive")
        if not all(type(v) is int and 0 < v <= 4096 for v in (self.size, self.resize)) or self.resize < self.size:
            raise SpecError(
                f"input: size {self.size!r:.20} and resize {self.resize!r:.20} must be pixels from 1 to 4096, "
                "with resize at least size"
            )

    def at(self, size: int) -> Preprocessing:
        """Return a copy for inputs of `size` pixels, with `resize` scaled in proportion."""
        return replace(self, size=size, resize=round(self.resize * size / self.size))

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest input value after normalisation."""
        low, high = ([(edge - m) / s for m, s in zip(self.mean, self.std, strict=True)] for edge in self.range)
        return min(low), max(high)

    def __str__(self) -> str:
        normalisation = (
            "not normalised" if self.mean == (0, 0, 0) and self.std == (1, 1, 1) else f"mean {self.mean}, std {self.std}"
        )
        crop = f"resize shorter side to {self.resize}, center-crop {self.size}"
        return f"{self.order}, {self.range[0]:g} to {self.range[1]:g}, {normalisation}, {crop}"


ACON_INPUT = Preprocessing("BGR", range=(0.0, 255.0), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=224, resize=256)
IMAGENET_INPUT = Preprocessing(
    "RGB", range=(0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, resize=256
)
TIMM_SWIN_INPUT = replace(IMAGENET_INPUT, resize=248)
# For the default weights of timm's ViT. Some other ViT weights in timm, such as DeiT and DINO, use
# the ImageNet mean and standard deviation.
TIMM_VIT_INPUT = Preprocessing("RGB", range=(0.0, 1.0), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=224, resize=248)
