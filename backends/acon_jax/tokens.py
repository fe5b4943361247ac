"""The primitives of the vision transformers: tokens (N, L, C), images (N, H, W, C).

A reshape splits or merges once: of more, JAX does not see how a sharded array is divided.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from acon_core import spec
from acon_jax.arrays import canonical_shape


def image_size(x: Array, height: int, width: int) -> Array:
    """Return the image after a check of its size."""
    spec.ImageSize(height, width).out_shapes(canonical_shape(x.shape))
    return x


def _pad(x: Array, size: int) -> Array:
    """Pad with zeros below and to the right, to the next multiple of `size` pixels."""
    return jnp.pad(x, ((0, 0), *((0, -extent % size) for extent in x.shape[1:3]), (0, 0)))


def pad_to_multiple(x: Array, size: int) -> Array:
    """Pad (N, H, W, C) with zeros below and to the right, to the next multiple of `size` pixels."""
    spec.PadToMultiple(size).out_shapes(canonical_shape(x.shape))
    return _pad(x, size)


def flatten_space(x: Array) -> Array:
    """Reshape (N, H, W, C) -> (N, H W, C)."""
    spec.FlattenSpace().out_shapes(canonical_shape(x.shape))
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


def prepend_token(x: Array, token: Array) -> Array:
    """Prepend a token (1, 1, C) to tokens (N, L, C): (N, 1 + L, C)."""
    spec.PrependToken().out_shapes(canonical_shape(x.shape), token.shape)
    # Added to zeros, the token is divided among devices as x is; broadcast, it would not be.
    return jnp.concatenate([token.astype(x.dtype) + jnp.zeros_like(x[:, :1]), x], 1)


def add_position(x: Array, position: Array) -> Array:
    """Add positions (1, L, C) to tokens (N, L, C)."""
    spec.AddPosition().out_shapes(canonical_shape(x.shape), position.shape)
    return x + position.astype(x.dtype)


def select_token(x: Array, index: int) -> Array:
    """Select one token: (N, L, C) -> (N, C)."""
    spec.SelectToken(index).out_shapes(canonical_shape(x.shape))
    return x[:, index]


def space_to_depth(x: Array) -> Array:
    """Stack 2x2 squares: y[n, h, w, (2 j + i) C + c] = x[n, 2 h + i, 2 w + j, c].

    (N, H, W, C) -> (N, H / 2, W / 2, 4 C), rounded up.
    """
    spec.SpaceToDepth().out_shapes(canonical_shape(x.shape))
    even = _pad(x, 2)
    n, height, width, c = even.shape
    rows = even.reshape(n, height // 2, 2, width, c)
    squares = rows.reshape(n, height // 2, 2, width // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
    return squares.reshape(n, height // 2, width // 2, 4 * c)


def attention(qkv: Array, heads: int, bias: Array | None = None) -> Array:
    """Compute self-attention, (N, L, 3 C) -> (N, L, C); channels are q, k, v, each head by head.

    `bias` (B, heads, L, L) is added before the softmax, to each B consecutive samples. JAX's own
    attention computes its softmax in float32 for float64 too.
    """
    spec.Attention(heads).out_shapes(canonical_shape(qkv.shape))
    n, length, channels = qkv.shape
    size = channels // (3 * heads)
    q, k, v = jnp.moveaxis(qkv.reshape(n, length, 3, heads, size), 2, 0)
    wide = jnp.promote_types(qkv.dtype, jnp.float32)
    logits = jnp.einsum("nihd,njhd->nhij", q, k, preferred_element_type=wide) / size**0.5
    if bias is not None:
        logits = (logits.reshape(n // len(bias), *bias.shape) + bias[None]).reshape(n, *bias.shape[1:])
    weights = jax.nn.softmax(logits)
    return jnp.einsum("nhij,njhd->nihd", weights.astype(v.dtype), v).reshape(n, length, channels // 3)


def window_attention(windows: Array, table: Array, image: Array, window: int, shift: int, heads: int) -> Array:
    """Compute self-attention inside each window, with a relative position bias from a table."""
    node = spec.WindowAttention(window, shift, heads)
    node.out_shapes(canonical_shape(windows.shape), table.shape, canonical_shape(image.shape))
    bias = jnp.moveaxis(table[spec.relative_position_index(window)], -1, 0)[None]
    mask = spec.shifted_window_mask(node, canonical_shape(image.shape))
    if mask is not None:
        bias = bias + mask[:, None].astype(bias.dtype)
    return attention(windows, heads, bias)


def window_partition(x: Array, window: int, shift: int) -> Array:
    """Roll an image by -shift and cut it: (N, H, W, C) -> (N windows, window^2, C)."""
    spec.WindowPartition(window, shift).out_shapes(canonical_shape(x.shape))
    rolled = jnp.roll(_pad(x, window), (-shift, -shift), (1, 2))
    n, height, width, c = rolled.shape
    down, across = height // window, width // window
    rows = rolled.reshape(n, down, window, width, c)
    tiles = rows.reshape(n, down, window, across, window, c).swapaxes(2, 3)
    return tiles.reshape(n, down, across, window * window, c).reshape(n * down * across, window * window, c)


def window_reverse(windows: Array, image: Array, window: int, shift: int) -> Array:
    """Undo `window_partition`; `image` (N, H, W, any) gives the size of the result."""
    node = spec.WindowReverse(window, shift)
    node.out_shapes(canonical_shape(windows.shape), canonical_shape(image.shape))
    down, across = node.grid(canonical_shape(image.shape))
    n, height, width, _ = image.shape
    c = windows.shape[-1]
    flat = windows.reshape(n, down, across, window * window, c)
    tiles = flat.reshape(n, down, across, window, window, c).swapaxes(2, 3)
    rolled = tiles.reshape(n, down * window, across, window, c).reshape(n, down * window, across * window, c)
    return jnp.roll(rolled, (shift, shift), (1, 2))[:, :height, :width]
