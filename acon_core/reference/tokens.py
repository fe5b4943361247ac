"""Rules of the primitives of vision transformers, forward and backward."""

from __future__ import annotations

import numpy as np

from acon_core.reference.core import Array, Context, Gradients, Values, evaluate, gradients
from acon_core.spec import tokens as t
from acon_core.spec.param import Shape


@evaluate.register(t.ImageSize)
def _image_size(node: t.ImageSize, context: Context, x: Array) -> Values:
    node.out_shapes(x.shape)
    return (x,), lambda cotangents: gradients(cotangents[0])


@evaluate.register(t.PadToMultiple)
def _pad_to_multiple(node: t.PadToMultiple, context: Context, x: Array) -> Values:
    height, width = x.shape[2:]
    y = np.zeros(node.out_shapes(x.shape)[0])
    y[:, :, :height, :width] = x
    return (y,), lambda cotangents: gradients(cotangents[0][:, :, :height, :width])


@evaluate.register(t.FlattenSpace)
def _flatten_space(node: t.FlattenSpace, context: Context, x: Array) -> Values:
    return (x.reshape(node.out_shapes(x.shape)[0]),), lambda cotangents: gradients(cotangents[0].reshape(x.shape))


@evaluate.register(t.PrependToken)
def _prepend_token(node: t.PrependToken, context: Context, x: Array, token: Array) -> Values:
    node.out_shapes(x.shape, token.shape)
    first = np.broadcast_to(token.swapaxes(1, 2), (x.shape[0], x.shape[1], 1))

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0]
        terms = g[:, :, 0]
        return Gradients(
            (g[:, :, 1:], terms.sum(0)[None, None]), (np.abs(g[:, :, 1:]), np.abs(terms).sum(0)[None, None]), {}, {}
        )

    return (np.concatenate([first, x], 2),), vjp


@evaluate.register(t.AddPosition)
def _add_position(node: t.AddPosition, context: Context, x: Array, position: Array) -> Values:
    node.out_shapes(x.shape, position.shape)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0]
        dposition, dposition_scale = (each.sum(0, keepdims=True).swapaxes(1, 2) for each in (g, np.abs(g)))
        return Gradients((g, dposition), (np.abs(g), dposition_scale), {}, {})

    return (x + position.swapaxes(1, 2),), vjp


@evaluate.register(t.SelectToken)
def _select_token(node: t.SelectToken, context: Context, x: Array) -> Values:
    node.out_shapes(x.shape)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        dx = np.zeros(x.shape)
        dx[:, :, node.index] = cotangents[0]
        return gradients(dx)

    return (x[:, :, node.index],), vjp


@evaluate.register(t.SpaceToDepth)
def _space_to_depth(node: t.SpaceToDepth, context: Context, x: Array) -> Values:
    n, c, height, width = x.shape
    shape = node.out_shapes(x.shape)[0]
    padded = np.zeros((n, c, 2 * shape[2], 2 * shape[3]))
    padded[:, :, :height, :width] = x
    # (n, c, row, i, column, j) -> (n, j, i, c, row, column)
    y = padded.reshape(n, c, shape[2], 2, shape[3], 2).transpose(0, 5, 3, 1, 2, 4).reshape(shape)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        parts = cotangents[0].reshape(n, 2, 2, c, *shape[2:]).transpose(0, 3, 4, 2, 5, 1)
        return gradients(parts.reshape(padded.shape)[:, :, :height, :width])

    return (y,), vjp


def _heads(qkv: Array, heads: int) -> Array:
    """Split (N, 3 C, L) into q, k and v of shape (N, heads, C / heads, L)."""
    n, channels, length = qkv.shape
    return qkv.reshape(n, 3, heads, channels // (3 * heads), length).swapaxes(0, 1)


def _attend(qkv: Array, heads: int, bias: Array | float) -> Values:
    """Compute softmax attention with `bias` (N or 1, heads, L, L) added to the logits.

    The VJP gives the gradients of qkv and of the logits, which are those of the bias before its
    sum over N.
    """
    q, k, v = _heads(qkv, heads)
    scale = 1.0 / np.sqrt(q.shape[2])
    logits = scale * (q.swapaxes(2, 3) @ k) + bias
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = v @ weights.swapaxes(2, 3)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0].reshape(y.shape)

        def back(dlogits: Array, q: Array, k: Array, g: Array) -> Array:
            """Compute the gradients, or from absolute values their scales."""
            dq, dk, dv = scale * k @ dlogits.swapaxes(2, 3), scale * q @ dlogits, g @ weights
            return np.stack([dq, dk, dv], 1).reshape(qkv.shape)

        dweights = g.swapaxes(2, 3) @ v
        mean = (dweights * weights).sum(-1, keepdims=True)
        dlogits = weights * (dweights - mean)
        dweights_scale = np.abs(g).swapaxes(2, 3) @ np.abs(v)
        dlogits_scale = weights * (dweights_scale + (dweights_scale * weights).sum(-1, keepdims=True))
        dqkv_scale = back(dlogits_scale, *map(np.abs, (q, k, g)))
        return Gradients((back(dlogits, q, k, g), dlogits), (dqkv_scale, dlogits_scale), {}, {})

    return (y.reshape(y.shape[0], -1, y.shape[3]),), vjp


@evaluate.register(t.Attention)
def _attention(node: t.Attention, context: Context, qkv: Array) -> Values:
    node.out_shapes(qkv.shape)
    values, attend_vjp = _attend(qkv, node.heads, 0.0)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        back = attend_vjp(cotangents)
        return Gradients(back.inputs[:1], back.input_scales[:1], {}, {})

    return values, vjp


@evaluate.register(t.WindowAttention)
def _window_attention(node: t.WindowAttention, context: Context, qkv: Array, table: Array, image: Array) -> Values:
    node.out_shapes(qkv.shape, table.shape, image.shape)
    index = t.relative_position_index(node.window)
    bias = table[index].transpose(2, 0, 1)[None]
    mask = t.shifted_window_mask(node, image.shape)
    if mask is not None:
        bias = bias + np.tile(mask[:, None], (image.shape[0], 1, 1, 1))
    values, attend_vjp = _attend(qkv, node.heads, bias)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        back = attend_vjp(cotangents)

        def to_table(dbias: Array) -> Array:
            """Sum over the windows and over the pairs that share an entry of the table."""
            dtable = np.zeros(table.shape)
            np.add.at(dtable, index, dbias.sum(0).transpose(1, 2, 0))
            return dtable

        zero = np.zeros(image.shape)
        return Gradients(
            (back.inputs[0], to_table(back.inputs[1]), zero),
            (back.input_scales[0], to_table(back.input_scales[1]), zero),
            {},
            {},
        )

    return values, vjp


def _partition(image: Array, node: t.Windowed) -> Array:
    """Cut a padded and shifted image into windows (N windows, C, window x window)."""
    n, c, height, width = image.shape
    (down, across), m = node.grid(image.shape), node.window
    padded = np.zeros((n, c, down * m, across * m))
    padded[:, :, :height, :width] = image
    moved = np.roll(padded, (-node.shift, -node.shift), (2, 3))
    return moved.reshape(n, c, down, m, across, m).transpose(0, 2, 4, 1, 3, 5).reshape(-1, c, m * m)


def _merge(windows: Array, image: Shape, node: t.Windowed) -> Array:
    """Put windows back together to an image: the transpose of `_partition`."""
    n, _, height, width = image
    (down, across), m = node.grid(image), node.window
    c = windows.shape[1]
    moved = windows.reshape(n, down, across, c, m, m).transpose(0, 3, 1, 4, 2, 5).reshape(n, c, down * m, across * m)
    return np.roll(moved, (node.shift, node.shift), (2, 3))[:, :, :height, :width]


@evaluate.register(t.WindowPartition)
def _window_partition(node: t.WindowPartition, context: Context, x: Array) -> Values:
    node.out_shapes(x.shape)
    return (_partition(x, node),), lambda cotangents: gradients(_merge(cotangents[0], x.shape, node))


@evaluate.register(t.WindowReverse)
def _window_reverse(node: t.WindowReverse, context: Context, windows: Array, image: Array) -> Values:
    node.out_shapes(windows.shape, image.shape)
    y = _merge(windows, image.shape, node)
    return (y,), lambda cotangents: gradients(_partition(cotangents[0], node), np.zeros(image.shape))
