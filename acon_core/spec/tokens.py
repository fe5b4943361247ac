"""The leaves of the vision transformers. Tokens are (N, C, L), channels second as everywhere; windows are batches of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Pair, Primitive, check

__all__ = [
    "AddPosition", "Attention", "FlattenSpace", "ImageSize", "PadToMultiple", "PrependToken", "SelectToken",
    "SpaceToDepth", "WindowAttention", "WindowPartition", "WindowReverse", "Windowed", "relative_position_index",
    "shifted_window_mask",
]  # fmt: skip

# What a pair of tokens that no window of the image holds together gets added before the softmax, as published.
MASKED_LOGIT = -100.0


@dataclass(frozen=True)
class ImageSize(Primitive):
    """An image of exactly that size: x. Before what learnt its positions or its weights at that size alone.

    (N, C, height, width) -> the same. Raises SpecError for another size.
    """

    height: int
    width: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        expected = f"(N, C, {self.height}, {self.width}), the one size that this network is made for"
        check(len(x) == 4 and x[2:] == (self.height, self.width), self, expected, x)
        return shapes


@dataclass(frozen=True)
class PadToMultiple(Primitive):
    """Zeros below and to the right, up to the next multiple of `size` pixels. (N, C, H, W) -> (N, C, H', W')."""

    size: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((*x[:2], *(extent + -extent % self.size for extent in x[2:])),)


@dataclass(frozen=True)
class FlattenSpace(Primitive):
    """An image as tokens, row by row. (N, C, H, W) -> (N, C, H W)."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((*x[:2], x[2] * x[3]),)


@dataclass(frozen=True)
class PrependToken(Primitive):
    """A learnt token before the others. Tokens (N, C, L) and the token (1, 1, C) -> (N, C, 1 + L). Source: ViT, equation 1."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        fits = len(shapes) == 2 and len(shapes[0]) == 3 and shapes[1] == (1, 1, shapes[0][1])
        check(fits, self, "(N, C, L) and (1, 1, C)", shapes)
        return ((*shapes[0][:2], shapes[0][2] + 1),)


@dataclass(frozen=True)
class AddPosition(Primitive):
    """Learnt positions added to tokens. (N, C, L) and positions (1, L, C) -> (N, C, L). Source: ViT, equation 1."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        fits = len(shapes) == 2 and len(shapes[0]) == 3 and shapes[1] == (1, shapes[0][2], shapes[0][1])
        check(fits, self, "(N, C, L) and (1, L, C): as many tokens as there are positions", shapes)
        return shapes[:1]


@dataclass(frozen=True)
class SelectToken(Primitive):
    """One token of each sample. (N, C, L) -> (N, C)."""

    index: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 3 and 0 <= self.index < x[2], self, f"(N, C, L) with a token {self.index}", x)
        return (x[:2],)


@dataclass(frozen=True)
class SpaceToDepth(Primitive):
    """Each 2x2 square of pixels as one of four times the channels: the square's left column first, top before bottom.

    y[:, (2 j + i) C + c, h, w] = x[:, c, 2 h + i, 2 w + j]; an odd height or width gets a line of zeros.
    (N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up. Source: Liu et al. 2021 (Swin), patch merging.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((x[0], 4 * x[1], (x[2] + 1) // 2, (x[3] + 1) // 2),)


def check_heads(node: Primitive, heads: int) -> None:
    """Raise SpecError for attention without a head."""
    if heads < 1:
        raise SpecError(f"{type(node).__name__}: expected at least one head, found {heads}")


def _attention_macs(node: Primitive, shapes: tuple[Shape, ...]) -> int:
    (shape,) = node.out_shapes(*shapes)
    return 2 * math.prod(shape) * shape[2]


@dataclass(frozen=True)
class Attention(Primitive):
    """Self-attention, in each of `heads` heads: y[:, i] = sum over tokens j of softmax(q^T k / sqrt(d))[i, j] v[:, j].

    q, k, v have d = C / heads channels. The channels of its input are q, k, v in turn, each head by head.
    (N, 3 C, L) -> (N, C, L).
    Raises SpecError for channels that 3 heads do not divide. Source: Vaswani et al. 2017, equation 1; ViT's fused qkv.
    """

    heads: int

    def __post_init__(self) -> None:
        check_heads(self, self.heads)

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 3 and x[1] % (3 * self.heads) == 0, self, f"(N, 3 C, L), C divisible by {self.heads} heads", x)
        return ((x[0], x[1] // 3, x[2]),)

    def macs(self, *shapes: Shape) -> int:
        """Two products of all tokens with all tokens."""
        return _attention_macs(self, shapes)


@dataclass(frozen=True)
class Windowed(Primitive):
    """What works on windows: squares of `window` pixels, of the image moved by `shift` pixels up and left, around the edges.

    Heights and widths that `window` does not divide get zeros below and to the right first.
    """

    window: int
    shift: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < self.window:
            raise SpecError(
                f"{type(self).__name__}: expected a shift from 0 to below the window {self.window}, found {self.shift}"
            )

    def grid(self, x: Shape) -> Pair:
        """How many windows an image (N, C, H, W) has, down and across."""
        check(len(x) == 4, self, "an image (N, C, H, W)", x)
        return -(-x[2] // self.window), -(-x[3] // self.window)

    def windows(self, x: Shape, channels: int) -> Shape:
        """The shape of all windows of an image, with so many channels."""
        return (x[0] * math.prod(self.grid(x)), channels, self.window**2)


@dataclass(frozen=True)
class WindowPartition(Windowed):
    """An image in windows of tokens: image by image, window by window, pixel by pixel, row by row each time.

    (N, C, H, W) -> (N windows, C, window^2). Source: Liu et al. 2021 (Swin), section 3.2.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        return (self.windows(x, x[1]) if len(x) == 4 else self.grid(x),)


@dataclass(frozen=True)
class WindowReverse(Windowed):
    """What `WindowPartition` took apart, as the image that it was: moved back, and what was added to the edges cut off.

    Windows (N windows, C, window^2), and the image (N, any, H, W), whose values are not looked at -> (N, C, H, W).
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        windows, image = shapes
        check(windows == self.windows(image, windows[1]), self, f"the windows of an image {image}", windows)
        return ((image[0], windows[1], *image[2:]),)


@dataclass(frozen=True)
class WindowAttention(Windowed):
    """Self-attention inside of each window, as in `Attention`, with weights softmax(q^T k / sqrt(d) + bias + apart).

    `bias[i, j]` is `table[relative_position_index(window)[i, j]]`, a number a head. `apart` is -100 where a shifted window
    holds tokens i and j that are no neighbours in the image, else 0. Windows (N windows, 3 C, window^2), the table
    ((2 window - 1)^2, heads), and the image (N, any, H, W), whose values are not looked at -> (N windows, C, window^2).
    Source: Liu et al. 2021 (Swin), equation 4 and figure 4.
    """

    heads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self, self.heads)

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        windows, table, image = shapes
        check(windows[1] % (3 * self.heads) == 0, self, f"3 C channels, C divisible by {self.heads} heads", windows)
        check(windows == self.windows(image, windows[1]), self, f"the windows of an image {image}", windows)
        check(table == ((2 * self.window - 1) ** 2, self.heads), self, "a table ((2 window - 1)^2, heads)", table)
        return ((windows[0], windows[1] // 3, windows[2]),)

    def macs(self, *shapes: Shape) -> int:
        """Two products of all tokens of a window with all tokens of that window."""
        return _attention_macs(self, shapes)


def relative_position_index(window: int) -> NDArray[np.int64]:
    """(window^2, window^2): for tokens i and j of a window the row of the bias table, which counts how far j lies from i:
    (2 window - 1) (yi - yj + window - 1) + xi - xj + window - 1."""
    y, x = np.divmod(np.arange(window**2), window)
    rows, columns = y[:, None] - y[None, :], x[:, None] - x[None, :]
    index: NDArray[np.int64] = (2 * window - 1) * (rows + window - 1) + columns + window - 1
    return index


def shifted_window_mask(node: Windowed, image: Shape) -> NDArray[np.float32] | None:
    """(windows, window^2, window^2), -100 where two tokens of a window are no neighbours in the image; None where all are."""
    if node.shift == 0:
        return None
    places = []
    for count in node.grid(image):
        # Along one axis: 0, then 1 in the last window, then 2 where the other edge was moved in.
        place = np.zeros(count * node.window, np.int64)
        place[-node.window :] = 1
        place[-node.shift :] = 2
        places.append(place.reshape(count, node.window))
    regions = 3 * places[0][:, None, :, None] + places[1][None, :, None, :]
    tokens = regions.reshape(-1, node.window**2)
    return np.where(tokens[:, :, None] == tokens[:, None, :], 0.0, MASKED_LOGIT).astype(np.float32)
