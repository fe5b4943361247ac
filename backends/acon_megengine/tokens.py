"""The functions of the vision transformers' nodes on MegEngine tensors. Tokens are (N, C, L), windows are batches of tokens.

Shapes are told with -1 for the batch, so that a trace holds for batches of any size.
"""

from __future__ import annotations

import math
from functools import lru_cache

import megengine.functional as F
import numpy as np
from megengine import Tensor
from numpy.typing import NDArray

from acon_core import spec
from acon_megengine.gradient import custom, shift_by


def _turned(x: Tensor) -> Tensor:
    """(A, B, C) -> (A, C, B)."""
    return F.transpose(x, (0, 2, 1))


def _grown(x: Tensor, height: int, width: int) -> Tensor:
    """An image with zeros below and to the right, up to a height and width."""
    rows, columns = x._tuple_shape[2:]
    if (rows, columns) == (height, width):
        return x
    around = ((0, 0), (0, 0), (0, height - rows), (0, width - columns))
    # MegEngine's own way back is an error for an empty batch.
    return custom(lambda x: F.nn.pad(x, around), lambda g, x: (g[:, :, :rows, :columns],), x)


def image_size(x: Tensor, height: int, width: int) -> Tensor:
    """A copy of the image, whose size is its module's to check: MegEngine has no gradient for an input put out as it is."""
    return F.copy(x)


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """(N, C, H, W) with zeros below and to the right, up to the next multiple of `size`."""
    return _grown(x, *(extent + -extent % size for extent in x._tuple_shape[2:]))


def flatten_space(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H W)."""
    _, channels, height, width = x._tuple_shape
    return F.reshape(x, (-1, channels, height * width))


def prepend_token(x: Tensor, token: Tensor) -> Tensor:
    """Tokens (N, C, L) and one more (1, 1, C) before those of every sample -> (N, C, 1 + L)."""

    def value(x: Tensor, token: Tensor) -> Tensor:
        return F.concat([F.zeros_like(x[:, :, :1]) + token, x], 2)

    return custom(value, lambda g, x, token: (g[:, :, 1:], g[:, :, :1]), x, _turned(token))


def add_position(x: Tensor, position: Tensor) -> Tensor:
    """Tokens (N, C, L) + positions (1, L, C)."""
    return shift_by(x, _turned(position))


def select_token(x: Tensor, index: int) -> Tensor:
    """(N, C, L) -> (N, C): one token of each sample."""
    return x[:, :, index]


def space_to_channels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up: the left column of each square first, top before bottom."""
    even = pad_to_multiple(x, 2)
    return F.concat([even[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)


def _attend(qkv: Tensor, heads: int, bias: Tensor | float, far: NDArray[np.float32] | None = None) -> Tensor:
    """Softmax attention with `bias` (1, heads, L, L) added, and `far` (windows, L, L) to each window of each image.

    (N, 3 C, L) -> (N, C, L). For the backward pass it keeps `qkv` and `bias` alone, and no weights (N, heads, L, L).
    """
    _, channels, length = qkv._tuple_shape
    width = channels // (3 * heads)
    scale = 1.0 / math.sqrt(width)

    def parts(qkv: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, each (N, heads, C / heads, L), and the weights (N, heads, L, L)."""
        told = F.reshape(qkv, (-1, 3, heads, width, length))
        q, k, v = told[:, 0], told[:, 1], told[:, 2]
        logits = F.matmul(q * scale, k, transpose_a=True) + bias
        if far is not None:
            by_window = F.reshape(logits, (-1, len(far), heads, length, length)) + Tensor(far[:, None])
            logits = F.reshape(by_window, (-1, heads, length, length))
        return q, k, v, F.softmax(logits, -1)

    def value(qkv: Tensor, bias: Tensor | float) -> Tensor:
        _, _, v, weights = parts(qkv, bias)
        return F.reshape(F.matmul(v, weights, transpose_b=True), (-1, channels // 3, length))

    def gradient(g: Tensor, qkv: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor]:
        q, k, v, weights = parts(qkv, bias)
        g = F.reshape(g, (-1, heads, width, length))
        dweights = F.matmul(g, v, transpose_a=True)
        dlogits = weights * (dweights - F.sum(dweights * weights, -1, keepdims=True))
        dq, dk = F.matmul(k * scale, dlogits, transpose_b=True), F.matmul(q * scale, dlogits)
        told = F.stack([dq, dk, F.matmul(g, weights)], 1)
        return F.reshape(told, (-1, channels, length)), dlogits

    return custom(value, gradient, qkv, bias)


def attention(x: Tensor, heads: int) -> Tensor:
    """Self-attention: queries, keys and values (N, 3 C, L) -> (N, C, L)."""
    return _attend(x, heads, 0.0)


@lru_cache(maxsize=64)
def _index(window: int) -> NDArray[np.int32]:
    return spec.relative_position_index(window).astype(np.int32)


@lru_cache(maxsize=64)
def _apart(window: int, shift: int, height: int, width: int) -> NDArray[np.float32] | None:
    return spec.shifted_window_mask(spec.Windowed(window, shift), (1, 1, height, width))


def window_attention(x: Tensor, table: Tensor, image: Tensor, window: int, shift: int, heads: int) -> Tensor:
    """Self-attention inside of each window of `image`, with the table's biases: (N windows, 3 C, window^2) -> (..., C, ...)."""
    bias = F.expand_dims(F.transpose(table[Tensor(_index(window))], (2, 0, 1)), 0)
    return _attend(x, heads, bias, _apart(window, shift, *image._tuple_shape[2:]))


def _moved(x: Tensor, by: int) -> Tensor:
    """An image moved up and left by so many pixels, around the edges; down and right where `by` is negative."""
    if by == 0:
        return x
    x = F.concat([x[:, :, by:], x[:, :, :by]], 2)
    return F.concat([x[:, :, :, by:], x[:, :, :, :by]], 3)


def window_partition(x: Tensor, window: int, shift: int) -> Tensor:
    """(N, C, H, W) -> windows of tokens (N windows, C, window^2)."""
    channels = x._tuple_shape[1]
    down, across = spec.Windowed(window, shift).grid(x._tuple_shape)
    moved = _moved(_grown(x, down * window, across * window), shift)
    squares = F.transpose(F.reshape(moved, (-1, channels, down, window, across, window)), (0, 2, 4, 1, 3, 5))
    return F.reshape(squares, (-1, channels, window * window))


def window_merge(x: Tensor, image: Tensor, window: int, shift: int) -> Tensor:
    """Windows (N windows, C, window^2) as the image (N, C, H, W) that `window_partition` took apart."""
    channels, (height, width) = x._tuple_shape[1], image._tuple_shape[2:]
    down, across = spec.Windowed(window, shift).grid(image._tuple_shape)
    squares = F.transpose(F.reshape(x, (-1, down, across, channels, window, window)), (0, 3, 1, 4, 2, 5))
    moved = F.reshape(squares, (-1, channels, down * window, across * window))
    return _moved(moved, -shift)[:, :, :height, :width]
