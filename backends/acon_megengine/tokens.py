"""The primitives of the vision transformers: tokens (N, C, L), images (N, C, H, W).

Reshapes have -1 for the batch, so that a trace holds for batches of any size.
"""

from __future__ import annotations

import math
from functools import lru_cache

import megengine.functional as F
import numpy as np
from megengine import Tensor
from numpy.typing import NDArray

from acon_core import spec
from acon_megengine.gradient import Gate, Rule, Terms, add_bias


def _transpose(x: Tensor) -> Tensor:
    """Transpose (A, B, C) -> (A, C, B)."""
    return F.transpose(x, (0, 2, 1))


def _pad(x: Tensor, height: int, width: int) -> Tensor:
    """Pad with zeros below and to the right, up to a height and a width."""
    rows, columns = x._tuple_shape[2:]
    if (rows, columns) == (height, width):
        return x
    around = ((0, 0), (0, 0), (0, height - rows), (0, width - columns))
    # MegEngine's own gradient fails for an empty batch.
    return Rule(lambda x: F.nn.pad(x, around), lambda g, x: (g[:, :, :rows, :columns],))(x)


def image_size(x: Tensor, height: int, width: int) -> Tensor:
    """Return a copy of the image (see `pointwise.identity`); `Function` has checked its size."""
    return F.copy(x)


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Pad (N, C, H, W) with zeros below and to the right, to the next multiple of `size` pixels."""
    return _pad(x, *(extent + -extent % size for extent in x._tuple_shape[2:]))


def flatten_space(x: Tensor) -> Tensor:
    """Reshape (N, C, H, W) -> (N, C, H W)."""
    _, channels, height, width = x._tuple_shape
    return F.reshape(x, (-1, channels, height * width))


def prepend_token(x: Tensor, token: Tensor) -> Tensor:
    """Prepend a token (1, 1, C) to tokens (N, C, L): (N, C, 1 + L)."""

    def value(x: Tensor, token: Tensor) -> Tensor:
        return F.concat([F.zeros_like(x[:, :, :1]) + token, x], 2)

    return Rule(value, lambda g, x, token: (g[:, :, 1:], g[:, :, :1]))(x, _transpose(token))


def add_position(x: Tensor, position: Tensor) -> Tensor:
    """Add positions (1, L, C) to tokens (N, C, L)."""
    return add_bias(x, _transpose(position))


def select_token(x: Tensor, index: int) -> Tensor:
    """Select one token: (N, C, L) -> (N, C)."""
    return x[:, :, index]


def space_to_depth(x: Tensor) -> Tensor:
    """Stack 2x2 squares: y[:, (2 j + i) C + c, h, w] = x[:, c, 2 h + i, 2 w + j].

    (N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up.
    """
    even = pad_to_multiple(x, 2)
    return F.concat([even[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)


def attention(qkv: Tensor, heads: int, bias: Gate = 0.0, mask: NDArray[np.float32] | None = None) -> Tensor:
    """Compute self-attention, (N, 3 C, L) -> (N, C, L); channels are q, k, v, each head by head.

    `bias` (1, heads, L, L) is added before the softmax, and `mask` (windows, L, L) to each window
    of each image. The backward pass keeps `qkv` and `bias`, but no weights (N, heads, L, L).
    """
    _, channels, length = qkv._tuple_shape
    width = channels // (3 * heads)
    scale = 1.0 / math.sqrt(width)

    def parts(qkv: Tensor, bias: Gate) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v, each (N, heads, C / heads, L), and the weights (N, heads, L, L)."""
        by_head = F.reshape(qkv, (-1, 3, heads, width, length))
        q, k, v = by_head[:, 0], by_head[:, 1], by_head[:, 2]
        logits = F.matmul(q * scale, k, transpose_a=True) + bias
        if mask is not None:
            by_window = F.reshape(logits, (-1, len(mask), heads, length, length)) + Tensor(mask[:, None])
            logits = F.reshape(by_window, (-1, heads, length, length))
        return q, k, v, F.softmax(logits, -1)

    def value(qkv: Tensor, bias: Gate) -> Tensor:
        _, _, v, weights = parts(qkv, bias)
        return F.reshape(F.matmul(v, weights, transpose_b=True), (-1, channels // 3, length))

    def pullback(g: Tensor, qkv: Tensor, bias: Gate) -> Terms:
        q, k, v, weights = parts(qkv, bias)
        g = F.reshape(g, (-1, heads, width, length))
        dweights = F.matmul(g, v, transpose_a=True)
        dlogits = weights * (dweights - F.sum(dweights * weights, -1, keepdims=True))
        dq, dk = F.matmul(k * scale, dlogits, transpose_b=True), F.matmul(q * scale, dlogits)
        dqkv = F.stack([dq, dk, F.matmul(g, weights)], 1)
        return F.reshape(dqkv, (-1, channels, length)), dlogits

    return Rule(value, pullback)(qkv, bias)


@lru_cache(maxsize=64)
def _index(window: int) -> NDArray[np.int32]:
    return spec.relative_position_index(window).astype(np.int32)


@lru_cache(maxsize=64)
def _mask(window: int, shift: int, height: int, width: int) -> NDArray[np.float32] | None:
    return spec.shifted_window_mask(spec.Windowed(window, shift), (1, 1, height, width))


def window_attention(windows: Tensor, table: Tensor, image: Tensor, window: int, shift: int, heads: int) -> Tensor:
    """Compute self-attention inside each window, with a relative position bias from a table."""
    bias = F.expand_dims(F.transpose(table[Tensor(_index(window))], (2, 0, 1)), 0)
    return attention(windows, heads, bias, _mask(window, shift, *image._tuple_shape[2:]))


def _roll(x: Tensor, shift: int) -> Tensor:
    """Roll an image by `shift` pixels up and left."""
    if shift == 0:
        return x
    x = F.concat([x[:, :, shift:], x[:, :, :shift]], 2)
    return F.concat([x[:, :, :, shift:], x[:, :, :, :shift]], 3)


def window_partition(x: Tensor, window: int, shift: int) -> Tensor:
    """Roll an image by -shift and cut it: (N, C, H, W) -> (N windows, C, window^2)."""
    c = x._tuple_shape[1]
    down, across = spec.Windowed(window, shift).grid(x._tuple_shape)
    rolled = _roll(_pad(x, down * window, across * window), shift)
    tiles = F.transpose(F.reshape(rolled, (-1, c, down, window, across, window)), (0, 2, 4, 1, 3, 5))
    return F.reshape(tiles, (-1, c, window * window))


def window_reverse(windows: Tensor, image: Tensor, window: int, shift: int) -> Tensor:
    """Undo `window_partition`; `image` (N, any, H, W) gives the size of the result."""
    c, (height, width) = windows._tuple_shape[1], image._tuple_shape[2:]
    down, across = spec.Windowed(window, shift).grid(image._tuple_shape)
    tiles = F.transpose(F.reshape(windows, (-1, down, across, c, window, window)), (0, 3, 1, 4, 2, 5))
    return _roll(F.reshape(tiles, (-1, c, down * window, across * window)), -shift)[:, :, :height, :width]
