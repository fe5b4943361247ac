"""The primitives of the vision transformers: tokens (N, C, L), images (N, C, H, W)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import Tensor
from paddle.jit import not_to_static

from acon_core import spec
from acon_core.errors import SpecError
from acon_paddle.arrays import constant
from acon_paddle.gradient import ensure


def _check_space(name: str, shape: Sequence[int]) -> None:
    if -1 in shape[2:]:
        raise SpecError(
            f"{name}: expected an image of known height and width, found shape {tuple(shape)}; "
            "give both in InputSpec and leave only the batch open"
        )


def _space(name: str, x: Tensor) -> tuple[int, int]:
    """Return height and width. Raises SpecError where to_static leaves one of them open."""
    ensure(_check_space, name, x.shape)
    return x.shape[2], x.shape[3]


@not_to_static
def image_size(x: Tensor, height: int, width: int) -> Tensor:
    """Return the image after a check of its size, which to_static may leave open."""
    size = [known if found == -1 else found for found, known in zip(x.shape[2:4], (height, width), strict=False)]
    ensure(spec.ImageSize(height, width).out_shapes, (*x.shape[:2], *size, *x.shape[4:]))
    return x


def _pad(x: Tensor, height: int, width: int) -> Tensor:
    """Pad with zeros below and to the right, up to a height and a width."""
    below, right = height - x.shape[2], width - x.shape[3]
    return F.pad(x, [0, right, 0, below]) if below or right else x


@not_to_static
def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Pad (N, C, H, W) with zeros below and to the right, to the next multiple of `size` pixels."""
    height, width = _space("PadToMultiple", x)
    return _pad(x, height + -height % size, width + -width % size)


@not_to_static
def flatten_space(x: Tensor) -> Tensor:
    """Reshape (N, C, H, W) -> (N, C, H W)."""
    return x.flatten(2)


@not_to_static
def prepend_token(x: Tensor, token: Tensor) -> Tensor:
    """Prepend a token (1, 1, C) to tokens (N, C, L): (N, C, 1 + L)."""
    first = token.transpose([0, 2, 1]).expand([paddle.shape(x)[0], -1, -1])
    return paddle.concat([first, x], 2)


@not_to_static
def add_position(x: Tensor, position: Tensor) -> Tensor:
    """Add positions (1, L, C) to tokens (N, C, L)."""
    return x + position.transpose([0, 2, 1])


@not_to_static
def select_token(x: Tensor, index: int) -> Tensor:
    """Select one token: (N, C, L) -> (N, C)."""
    return x[:, :, index]


@not_to_static
def space_to_depth(x: Tensor) -> Tensor:
    """Stack 2x2 squares: y[:, (2 j + i) C + c, h, w] = x[:, c, 2 h + i, 2 w + j].

    (N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up.
    """
    height, width = _space("SpaceToDepth", x)
    c, down, across = x.shape[1], (height + 1) // 2, (width + 1) // 2
    squares = _pad(x, 2 * down, 2 * across).reshape([-1, c, down, 2, across, 2])
    return squares.transpose([0, 5, 3, 1, 2, 4]).reshape([-1, 4 * c, down, across])


@not_to_static
def attention(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Compute self-attention, (N, 3 C, L) -> (N, C, L); channels are q, k, v, each head by head.

    `bias` (B, heads, L, L) is added before the softmax, to each B consecutive samples.
    """
    d = qkv.shape[1] // (3 * heads)
    q, k, v = qkv.unflatten(1, [3, heads, d]).unbind(1)
    logits = paddle.matmul(q * constant(1 / math.sqrt(d), q), k, transpose_x=True)
    if bias is not None:
        logits = (logits.reshape([-1, *bias.shape]) + bias).flatten(0, 1)
    return paddle.matmul(v, F.softmax(logits), transpose_y=True).flatten(1, 2)


@lru_cache(maxsize=64)
def _index(window: int) -> NDArray[np.int64]:
    return spec.relative_position_index(window).reshape(-1)


@lru_cache(maxsize=64)
def _mask(window: int, shift: int, height: int, width: int) -> NDArray[np.float32] | None:
    return spec.shifted_window_mask(spec.Windowed(window, shift), (1, 1, height, width))


@not_to_static
def window_attention(windows: Tensor, table: Tensor, image: Tensor, window: int, shift: int, heads: int) -> Tensor:
    """Compute self-attention inside each window, with a relative position bias from a table."""
    length = window**2
    rows = paddle.gather(table, paddle.to_tensor(_index(window)))
    bias = rows.reshape([1, length, length, heads]).transpose([0, 3, 1, 2])
    mask = _mask(window, shift, *_space("WindowAttention", image))
    if mask is not None:
        bias = bias + paddle.to_tensor(mask[:, None], windows.dtype)
    return attention(windows, heads, bias)


def _roll(x: Tensor, shift: int) -> Tensor:
    """Roll an image by `shift` pixels down and right."""
    return paddle.roll(x, [shift, shift], [2, 3]) if shift else x


@not_to_static
def window_partition(x: Tensor, window: int, shift: int) -> Tensor:
    """Roll an image by -shift and cut it: (N, C, H, W) -> (N windows, C, window^2)."""
    c = x.shape[1]
    down, across = spec.Windowed(window, shift).grid((1, c, *_space("WindowPartition", x)))
    rolled = _roll(_pad(x, down * window, across * window), -shift)
    tiles = rolled.reshape([-1, c, down, window, across, window]).transpose([0, 2, 4, 1, 3, 5])
    return tiles.reshape([-1, c, window * window])


@not_to_static
def window_reverse(windows: Tensor, image: Tensor, window: int, shift: int) -> Tensor:
    """Undo `window_partition`; `image` (N, any, H, W) gives the size of the result."""
    c, (height, width) = windows.shape[1], _space("WindowReverse", image)
    down, across = spec.Windowed(window, shift).grid((1, 1, height, width))
    tiles = windows.reshape([-1, down, across, c, window, window]).transpose([0, 3, 1, 4, 2, 5])
    return _roll(tiles.reshape([-1, c, down * window, across * window]), shift)[:, :, :height, :width]
