"""What the vision transformers are made of, channels last: tokens are (N, L, C), images (N, H, W, C)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from acon_core import spec
from acon_jax.arrays import canonical_shape


def image_size(x: Array, height: int, width: int) -> Array:
    """(N, height, width, C), and no other size."""
    spec.ImageSize(height, width).out_shapes(canonical_shape(x.shape))
    return x


def _padded(x: Array, size: int) -> Array:
    """Zeros below and to the right, up to the next multiple of `size` pixels."""
    return jnp.pad(x, ((0, 0), *((0, -extent % size) for extent in x.shape[1:3]), (0, 0)))


def pad_to_multiple(x: Array, size: int) -> Array:
    """(N, H, W, C) with zeros below and to the right, up to the next multiple of `size` pixels."""
    spec.PadToMultiple(size).out_shapes(canonical_shape(x.shape))
    return _padded(x, size)


def flatten_space(x: Array) -> Array:
    """(N, H, W, C) -> (N, H W, C), row by row."""
    spec.FlattenSpace().out_shapes(canonical_shape(x.shape))
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


def prepend_token(x: Array, token: Array) -> Array:
    """Tokens (N, L, C) behind a learnt one (1, 1, C)."""
    spec.PrependToken().out_shapes(canonical_shape(x.shape), token.shape)
    return jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, x.shape[2])), x], 1)


def add_position(x: Array, position: Array) -> Array:
    """Tokens (N, L, C) plus learnt positions (1, L, C)."""
    spec.AddPosition().out_shapes(canonical_shape(x.shape), position.shape)
    return x + position.astype(x.dtype)


def select_token(x: Array, index: int) -> Array:
    """(N, L, C) -> (N, C)."""
    spec.SelectToken(index).out_shapes(canonical_shape(x.shape))
    return x[:, index]


def space_to_channels(x: Array) -> Array:
    """(N, H, W, C) -> (N, H / 2, W / 2, 4 C): each 2x2 square, its left column first, top before bottom."""
    spec.SpaceToDepth().out_shapes(canonical_shape(x.shape))
    even = _padded(x, 2)
    n, height, width, c = even.shape
    squares = even.reshape(n, height // 2, 2, width // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
    return squares.reshape(n, height // 2, width // 2, 4 * c)


def _attend(qkv: Array, heads: int, bias: Array | None) -> Array:
    """(N, L, 3 C) -> (N, L, C); `bias` (B, heads, L, L) is added for B samples in turn.

    JAX's own attention has its softmax in float32 for float64 too.
    """
    n, length, channels = qkv.shape
    size = channels // (3 * heads)
    q, k, v = jnp.moveaxis(qkv.reshape(n, length, 3, heads, size), 2, 0)
    wide = jnp.promote_types(qkv.dtype, jnp.float32)
    logits = jnp.einsum("nihd,njhd->nhij", q, k, preferred_element_type=wide) / size**0.5
    if bias is not None:
        logits = (logits.reshape(n // len(bias), *bias.shape) + bias).reshape(n, *bias.shape[1:])
    weights = jax.nn.softmax(logits)
    return jnp.einsum("nhij,njhd->nihd", weights.astype(v.dtype), v).reshape(n, length, channels // 3)


def attention(qkv: Array, heads: int) -> Array:
    """Self-attention of tokens (N, L, 3 C), whose channels are q, k and v, each head by head -> (N, L, C)."""
    spec.Attention(heads).out_shapes(canonical_shape(qkv.shape))
    return _attend(qkv, heads, None)


def window_attention(qkv: Array, table: Array, image: Array, window: int, shift: int, heads: int) -> Array:
    """Self-attention in each window, with a bias from the table ((2 window - 1)^2, heads), and apart what is no neighbour."""
    node = spec.WindowAttention(window, shift, heads)
    node.out_shapes(canonical_shape(qkv.shape), table.shape, canonical_shape(image.shape))
    bias = jnp.moveaxis(table[spec.relative_position_index(window)], -1, 0)[None]
    apart = spec.shifted_window_mask(node, canonical_shape(image.shape))
    if apart is not None:
        bias = bias + apart[:, None].astype(bias.dtype)
    return _attend(qkv, heads, bias)


def partition(x: Array, window: int, shift: int) -> Array:
    """(N, H, W, C) -> (N windows, window^2, C): the image moved up and left by `shift`, window by window."""
    spec.WindowPartition(window, shift).out_shapes(canonical_shape(x.shape))
    moved = jnp.roll(_padded(x, window), (-shift, -shift), (1, 2))
    n, height, width, c = moved.shape
    windows = moved.reshape(n, height // window, window, width // window, window, c).swapaxes(2, 3)
    return windows.reshape(-1, window * window, c)


def merge(windows: Array, image: Array, window: int, shift: int) -> Array:
    """What `partition` took apart, in the height and width of `image` (N, H, W, any)."""
    node = spec.WindowReverse(window, shift)
    node.out_shapes(canonical_shape(windows.shape), canonical_shape(image.shape))
    down, across = node.grid(canonical_shape(image.shape))
    n, height, width, _ = image.shape
    moved = windows.reshape(n, down, across, window, window, -1).swapaxes(2, 3)
    moved = moved.reshape(n, down * window, across * window, -1)
    return jnp.roll(moved, (shift, shift), (1, 2))[:, :height, :width]
