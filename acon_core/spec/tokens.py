"""The layers of vision transformers. Tokens are (N, C, L); windows are batches of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Pair, Primitive, check
from acon_core.spec.sizes import OPEN, divides, fits, quotient, total, volume

__all__ = [
    "AddPosition", "Attention", "FlattenSpace", "ImageSize", "PadToMultiple", "PrependToken", "SelectToken",
    "SpaceToDepth", "WindowAttention", "WindowPartition", "WindowReverse", "Windowed", "relative_position_index",
    "shifted_window_mask",
]  # fmt: skip

# Added before the softmax to pairs of tokens that are not neighbours in the image, as published.
MASKED_LOGIT = -100.0


@dataclass(frozen=True)
class ImageSize(Primitive):
    """Pass an image of exactly this size; raise SpecError for another. (N, C, H, W) -> the same.

    Parameters
    ----------
    height, width : int
        In pixels. Layers after it learned positions or weights for this size.
    """

    height: int
    width: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        expected = f"(N, C, {self.height}, {self.width}), the one size that this network is made for"
        check(len(x) == 4 and fits(x[2:], (self.height, self.width)), self, expected, x)
        return shapes


@dataclass(frozen=True)
class PadToMultiple(Primitive):
    """Pad an image with zeros below and to the right. (N, C, H, W) -> (N, C, H', W').

    Parameters
    ----------
    size : int
        H' and W' are the next multiples of it.
    """

    size: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((*x[:2], *(self.size * quotient(extent, self.size) for extent in x[2:])),)


@dataclass(frozen=True)
class FlattenSpace(Primitive):
    """An image as tokens, row by row. (N, C, H, W) -> (N, C, H W)."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((*x[:2], volume(x[2:])),)


@dataclass(frozen=True)
class PrependToken(Primitive):
    """Prepend a learned token. Tokens (N, C, L), token (1, 1, C) -> (N, C, 1 + L).

    References
    ----------
    Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", equation 1.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        alike = len(shapes) == 2 and len(shapes[0]) == 3 and fits(shapes[1], (1, 1, shapes[0][1]))
        check(alike, self, "(N, C, L) and (1, 1, C)", shapes)
        return ((*shapes[0][:2], total((shapes[0][2], 1))),)


@dataclass(frozen=True)
class AddPosition(Primitive):
    """Add learned positions. Tokens (N, C, L), positions (1, L, C) -> (N, C, L).

    References
    ----------
    Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", equation 1.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        alike = len(shapes) == 2 and len(shapes[0]) == 3 and fits(shapes[1], (1, shapes[0][2], shapes[0][1]))
        check(alike, self, "(N, C, L) and (1, L, C): as many tokens as there are positions", shapes)
        return shapes[:1]


@dataclass(frozen=True)
class SelectToken(Primitive):
    """One token of each sample. (N, C, L) -> (N, C).

    Parameters
    ----------
    index : int
        Index of the token.
    """

    index: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 3 and (x[2] == OPEN or 0 <= self.index < x[2]), self, f"(N, C, L) with a token {self.index}", x)
        return (x[:2],)


@dataclass(frozen=True)
class SpaceToDepth(Primitive):
    """Each 2x2 square of pixels as one pixel. (N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up.

    Notes
    -----
    y[:, (2 j + i) C + c, h, w] = x[:, c, 2 h + i, 2 w + j]. An odd height or width is padded with a
    line of zeros.

    References
    ----------
    Liu et al. 2021, "Swin Transformer", section 3.1 (patch merging).
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((x[0], volume((4, x[1])), quotient(x[2], 2), quotient(x[3], 2)),)


def check_heads(node: Primitive, heads: int) -> None:
    """Raise SpecError for fewer than one head."""
    if heads < 1:
        raise SpecError(f"{type(node).__name__}: expected at least one head, found {heads}")


def _attention_macs(node: Primitive, shapes: tuple[Shape, ...]) -> int:
    (shape,) = node.out_shapes(*shapes)
    return 2 * math.prod(shape) * shape[2]


@dataclass(frozen=True)
class Attention(Primitive):
    """Multi-head self-attention: y = softmax(q^T k / sqrt(d)) v. (N, 3 C, L) -> (N, C, L).

    Parameters
    ----------
    heads : int
        Number of heads. It divides C; d = C / heads.

    Notes
    -----
    The input's channels are q, k and v in this order, each head by head.

    References
    ----------
    Vaswani et al. 2017, "Attention Is All You Need", equation 1.
    """

    heads: int

    def __post_init__(self) -> None:
        check_heads(self, self.heads)

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 3 and divides(3 * self.heads, x[1]), self, f"(N, 3 C, L), C divisible by {self.heads} heads", x)
        return ((x[0], quotient(x[1], 3), x[2]),)

    def macs(self, *shapes: Shape) -> int:
        """Two products of all tokens with all tokens."""
        return _attention_macs(self, shapes)


@dataclass(frozen=True)
class Windowed(Primitive):
    """A layer on square windows of an image that is rolled up and left first.

    Parameters
    ----------
    window : int
        Side of a window in pixels. Other heights and widths are padded with zeros below and to the
        right.
    shift : int, default 0
        Number of pixels by which the image is rolled; less than `window`.
    """

    window: int
    shift: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < self.window:
            raise SpecError(
                f"{type(self).__name__}: expected a shift from 0 to below the window {self.window}, found {self.shift}"
            )

    def grid(self, x: Shape) -> Pair:
        """Return the number of windows of an image (N, C, H, W), down and across."""
        check(len(x) == 4, self, "an image (N, C, H, W)", x)
        return -(-x[2] // self.window), -(-x[3] // self.window)

    def windows(self, x: Shape, channels: int) -> Shape:
        """Return the shape of all windows of an image with this number of channels."""
        tiles = (quotient(extent, self.window) for extent in x[2:])
        check(len(x) == 4, self, "an image (N, C, H, W)", x)
        return (volume((x[0], *tiles)), channels, self.window**2)


@dataclass(frozen=True)
class WindowPartition(Windowed):
    """Divide an image into windows of tokens. (N, C, H, W) -> (N windows, C, window^2).

    Parameters
    ----------
    window : int
        Side of a window, in pixels.
    shift : int
        Pixels that the image is rolled by first.

    Notes
    -----
    The order is image, window, pixel, each row by row. Parameters as in `Windowed`.

    References
    ----------
    Liu et al. 2021, "Swin Transformer", section 3.2.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        return (self.windows(x, x[1]) if len(x) == 4 else self.grid(x),)


@dataclass(frozen=True)
class WindowReverse(Windowed):
    """Undo `WindowPartition`: join the windows, roll back, crop the padding.

    Parameters
    ----------
    window : int
        Side of a window, in pixels.
    shift : int
        Pixels that the image was rolled by.

    Notes
    -----
    Windows (N windows, C, window^2), image (N, any, H, W) -> (N, C, H, W). Only the image's shape
    is used. Parameters as in `Windowed`.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        windows, image = shapes
        check(fits(windows, self.windows(image, windows[1])), self, f"the windows of an image {image}", windows)
        return ((image[0], windows[1], *image[2:]),)


@dataclass(frozen=True)
class WindowAttention(Windowed):
    """`Attention` within each window, with a bias per relative position.

    Parameters
    ----------
    window, shift : int
        As in `Windowed`.
    heads : int, default 1
        Number of heads. It divides C.

    Notes
    -----
    The weights are softmax(q^T k / sqrt(d) + bias + mask), with bias[i, j] =
    table[relative_position_index(window)[i, j]] per head and the mask of `shifted_window_mask`.
    Windows (N windows, 3 C, window^2), table ((2 window - 1)^2, heads), image (N, any, H, W) -> (N
    windows, C, window^2). Only the image's shape is used.

    References
    ----------
    Liu et al. 2021, "Swin Transformer", equation 4 and figure 4.
    """

    heads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self, self.heads)

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        windows, table, image = shapes
        check(divides(3 * self.heads, windows[1]), self, f"3 C channels, C divisible by {self.heads} heads", windows)
        check(fits(windows, self.windows(image, windows[1])), self, f"the windows of an image {image}", windows)
        check(fits(table, ((2 * self.window - 1) ** 2, self.heads)), self, "a table ((2 window - 1)^2, heads)", table)
        return ((windows[0], quotient(windows[1], 3), windows[2]),)

    def macs(self, *shapes: Shape) -> int:
        """Two products of all tokens of a window with all tokens of that window."""
        return _attention_macs(self, shapes)


def relative_position_index(window: int) -> NDArray[np.int64]:
    """Return the row of the bias table for each pair of tokens of a window.

    Parameters
    ----------
    window : int
        Side of a window, in pixels.

    Returns
    -------
    (window^2, window^2) array of int64
        (2 window - 1) (yi - yj + window - 1) + xi - xj + window - 1 for tokens i and j.
    """
    y, x = np.divmod(np.arange(window**2), window)
    rows, columns = y[:, None] - y[None, :], x[:, None] - x[None, :]
    index: NDArray[np.int64] = (2 * window - 1) * (rows + window - 1) + columns + window - 1
    return index


def shifted_window_mask(node: Windowed, image: Shape) -> NDArray[np.float32] | None:
    """Return the mask of token pairs that a shifted window joins but that are not neighbours.

    Parameters
    ----------
    node : Windowed
        The layer.
    image : tuple of int
        The image's shape, (N, C, H, W).

    Returns
    -------
    (windows, window^2, window^2) array of float32, or None
        -100 for pairs of tokens from different regions, else 0. None without a shift.
    """
    if node.shift == 0:
        return None
    places = []
    for count in node.grid(image):
        # Regions along one axis: 0, then 1 in the last window, then 2 in its rolled part.
        place = np.zeros(count * node.window, np.int64)
        place[-node.window :] = 1
        place[-node.shift :] = 2
        places.append(place.reshape(count, node.window))
    regions = 3 * places[0][:, None, :, None] + places[1][None, :, None, :]
    tokens = regions.reshape(-1, node.window**2)
    return np.where(tokens[:, :, None] == tokens[:, None, :], 0.0, MASKED_LOGIT).astype(np.float32)
