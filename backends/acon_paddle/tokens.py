"""The leaves of the vision transformers on Paddle tensors: functions of a node and of values whose shapes are its own."""

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
from acon_paddle.arrays import constant, ensure


def _check_space(node: spec.Node, shape: Sequence[int]) -> None:
    if -1 in shape[2:]:
        raise SpecError(
            f"{type(node).__name__}: needs the height and width of its image, found shape {tuple(shape)}; "
            "give InputSpec both, the batch alone may be open"
        )


def _image(node: spec.Node, x: Tensor) -> list[int]:
    """The shape (N, C, H, W), N being -1 where to_static leaves it open. Raises SpecError where it leaves H or W open."""
    ensure(_check_space, node, x.shape)
    return list(x.shape)


@not_to_static
def image_size(node: spec.ImageSize, x: Tensor) -> Tensor:
    """The image, of the node's size also where to_static leaves the batch open; a height or width left open passes."""
    size = [told if found == -1 else found for found, told in zip(x.shape[2:4], (node.height, node.width), strict=False)]
    ensure(node.out_shapes, (*x.shape[:2], *size, *x.shape[4:]))
    return x


def _pad(x: Tensor, height: int, width: int) -> Tensor:
    """Zeros below and to the right, up to a height and a width."""
    below, right = height - x.shape[2], width - x.shape[3]
    return F.pad(x, [0, right, 0, below]) if below or right else x


@not_to_static
def pad_to_multiple(node: spec.PadToMultiple, x: Tensor) -> Tensor:
    """Zeros below and to the right, up to the next multiple."""
    _, _, height, width = _image(node, x)
    return _pad(x, height + -height % node.size, width + -width % node.size)


@not_to_static
def flatten_space(node: spec.FlattenSpace, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H W), row by row."""
    return x.flatten(2)


@not_to_static
def prepend_token(node: spec.PrependToken, x: Tensor, token: Tensor) -> Tensor:
    """A token (1, 1, C) before those of every sample."""
    first = token.transpose([0, 2, 1]).expand([paddle.shape(x)[0], -1, -1])
    return paddle.concat([first, x], 2)


@not_to_static
def add_position(node: spec.AddPosition, x: Tensor, position: Tensor) -> Tensor:
    """Positions (1, L, C) added to the tokens of every sample."""
    return x + position.transpose([0, 2, 1])


@not_to_static
def select_token(node: spec.SelectToken, x: Tensor) -> Tensor:
    """(N, C, L) -> (N, C)."""
    return x[:, :, node.index]


@not_to_static
def space_to_channels(node: spec.SpaceToDepth, x: Tensor) -> Tensor:
    """Each 2x2 square as one pixel: left column first, top before bottom."""
    _, c, height, width = _image(node, x)
    down, across = (height + 1) // 2, (width + 1) // 2
    squares = _pad(x, 2 * down, 2 * across).reshape([-1, c, down, 2, across, 2])
    return squares.transpose([0, 5, 3, 1, 2, 4]).reshape([-1, 4 * c, down, across])


def _attend(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Softmax attention in each head. `bias` (B, heads, L, L) is added for B samples in turn."""
    d = qkv.shape[1] // (3 * heads)
    q, k, v = qkv.unflatten(1, [3, heads, d]).unbind(1)
    logits = paddle.matmul(q * constant(1 / math.sqrt(d), q), k, transpose_x=True)
    if bias is not None:
        logits = (logits.reshape([-1, *bias.shape]) + bias).flatten(0, 1)
    return paddle.matmul(v, F.softmax(logits), transpose_y=True).flatten(1, 2)


@not_to_static
def attention(node: spec.Attention, qkv: Tensor) -> Tensor:
    """Self-attention, (N, 3 C, L) -> (N, C, L)."""
    return _attend(qkv, node.heads)


@lru_cache(maxsize=64)
def _index(window: int) -> NDArray[np.int64]:
    return spec.relative_position_index(window).reshape(-1)


@lru_cache(maxsize=64)
def _apart(node: spec.WindowAttention, height: int, width: int) -> NDArray[np.float32] | None:
    return spec.shifted_window_mask(node, (1, 1, height, width))


@not_to_static
def window_attention(node: spec.WindowAttention, windows: Tensor, table: Tensor, image: Tensor) -> Tensor:
    """Self-attention inside of each window, with the table's bias; where the image is shifted, neighbours alone attend."""
    _, _, height, width = _image(node, image)
    length = node.window**2
    rows = paddle.gather(table, paddle.to_tensor(_index(node.window)))
    bias = rows.reshape([1, length, length, node.heads]).transpose([0, 3, 1, 2])
    apart = _apart(node, height, width)
    if apart is not None:
        bias = bias + paddle.to_tensor(apart[:, None], windows.dtype)
    return _attend(windows, node.heads, bias)


def _moved(x: Tensor, pixels: int) -> Tensor:
    """The image moved down and right, around the edges."""
    return paddle.roll(x, [pixels, pixels], [2, 3]) if pixels else x


@not_to_static
def window_partition(node: spec.WindowPartition, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N windows, C, window^2)."""
    _, c, height, width = _image(node, x)
    (down, across), m = node.grid((1, c, height, width)), node.window
    moved = _moved(_pad(x, down * m, across * m), -node.shift)
    return moved.reshape([-1, c, down, m, across, m]).transpose([0, 2, 4, 1, 3, 5]).reshape([-1, c, m * m])


@not_to_static
def window_merge(node: spec.WindowReverse, windows: Tensor, image: Tensor) -> Tensor:
    """What `window_partition` took apart, put together."""
    _, _, height, width = _image(node, image)
    (down, across), m, c = node.grid((1, 1, height, width)), node.window, windows.shape[1]
    parts = windows.reshape([-1, down, across, c, m, m]).transpose([0, 3, 1, 4, 2, 5])
    return _moved(parts.reshape([-1, c, down * m, across * m]), node.shift)[:, :, :height, :width]
