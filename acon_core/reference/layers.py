"""Rules of the primitives with weights, windows or a change of shape, forward and backward.

Written for clarity, not for speed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from acon_core.errors import OneValuePerChannelError, SpecError
from acon_core.reference.core import Array, Context, Gradients, Values, elementwise, evaluate, gradients
from acon_core.spec import primitives as p
from acon_core.spec import rearrange
from acon_core.spec.node import join
from acon_core.spec.param import Shape


def _windows(x: Array, kernel: p.Pair, stride: p.Pair, dilation: p.Pair) -> Array:
    """View padded x as windows (N, C, H', W', kernel height, kernel width)."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    view = sliding_window_view(x, reach, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _pad(x: Array, padding: p.Pair, value: float) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=value)


def _unwindow(parts: Array, padded: Shape, kernel: p.Pair, stride: p.Pair, padding: p.Pair, dilation: p.Pair) -> Array:
    """Sum overlapping windows (N, C, H', W', kh, kw) into an image: the transpose of `_windows`."""
    total = np.zeros(padded)
    height, width = parts.shape[2:4]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + stride[0] * (height - 1) + 1, stride[0])
            columns = slice(left, left + stride[1] * (width - 1) + 1, stride[1])
            total[:, :, rows, columns] += parts[:, :, :, :, i, j]
    return total[:, :, padding[0] : padded[2] - padding[0], padding[1] : padded[3] - padding[1]]


@evaluate.register(p.Conv2d)
def _conv2d(node: p.Conv2d, context: Context, x: Array) -> Values:
    weight = context.param("weight")
    groups, shape = node.groups, node.out_shapes(x.shape)[0]
    flat_weight = weight.reshape(groups, shape[1] // groups, math.prod(weight.shape[1:]))

    def columns() -> Array:
        view = _windows(_pad(x, node.padding, 0.0), node.kernel, node.stride, node.dilation)
        view = view.reshape(shape[0], groups, node.in_channels // groups, *view.shape[2:]).transpose(0, 1, 2, 5, 6, 3, 4)
        return view.reshape(shape[0], groups, flat_weight.shape[2], shape[2] * shape[3])

    y = np.matmul(flat_weight, columns()).reshape(shape)
    if node.bias:
        y = y + context.param("bias")[:, None, None]

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        padded = (*x.shape[:2], x.shape[2] + 2 * node.padding[0], x.shape[3] + 2 * node.padding[1])

        def back(g: Array, w: Array, cols: Array) -> tuple[Array, dict[str, Array]]:
            """Compute the gradients, or from absolute values their scales."""
            flat = g.reshape(shape[0], groups, shape[1] // groups, shape[2] * shape[3])
            parts = np.matmul(w.transpose(0, 2, 1), flat)
            parts = parts.reshape(shape[0], node.in_channels, *node.kernel, *shape[2:]).transpose(0, 1, 4, 5, 2, 3)
            dx = _unwindow(parts, padded, node.kernel, node.stride, node.padding, node.dilation)
            dweight = np.matmul(flat, cols.swapaxes(2, 3)).sum(0).reshape(weight.shape)
            return dx, {"weight": dweight, **({"bias": g.sum((0, 2, 3))} if node.bias else {})}

        cols = columns()
        dx, params = back(cotangents[0], flat_weight, cols)
        dx_scale, scales = back(np.abs(cotangents[0]), np.abs(flat_weight), np.abs(cols))
        return Gradients((dx,), (dx_scale,), params, scales)

    return (y,), vjp


@evaluate.register(p.BatchNorm)
def _batch_norm(node: p.BatchNorm, context: Context, x: Array) -> Values:
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    count = x.size // node.channels
    if context.train:
        if count == 1:
            raise OneValuePerChannelError.at(context.path, x.shape)
        mean, variance = x.mean(axes), x.var(axes)
        keep, take = node.decay, 1.0 - node.decay
        unbiased = variance * (count / max(count - 1, 1))
        for name, batch in (("running_mean", mean), ("running_var", unbiased)):
            context.statistics[join(context.path, name)] = keep * context.param(name) + take * batch
        counter = join(context.path, "num_batches_tracked")
        context.statistics[counter] = np.asarray(context.state[counter]) + 1
    else:
        mean, variance = context.param("running_mean"), context.param("running_var")
    inverse = 1.0 / np.sqrt(variance + node.eps)
    normal = (x - mean.reshape(shape)) * inverse.reshape(shape)
    weight = context.param("weight")

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0]
        dweight, dbias = (g * normal).sum(axes), g.sum(axes)
        factor = (weight * inverse).reshape(shape)
        dx, size = g, np.abs(g)
        if context.train:
            shift, tilt = dbias.reshape(shape) / count, normal * dweight.reshape(shape) / count
            dx, size = g - shift - tilt, size + np.abs(shift) + np.abs(tilt)
        scales = {"weight": np.abs(g * normal).sum(axes), "bias": np.abs(g).sum(axes)}
        return Gradients((factor * dx,), (np.abs(factor) * size,), {"weight": dweight, "bias": dbias}, scales)

    return (weight.reshape(shape) * normal + context.param("bias").reshape(shape),), vjp


@evaluate.register(p.Linear)
def _linear(node: p.Linear, context: Context, x: Array) -> Values:
    weight = context.param("weight")
    # Channels last, so that every position is a row of a matrix product.
    rows = np.moveaxis(x, 1, -1)
    y = rows @ weight.T
    if node.bias:
        y = y + context.param("bias")

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = np.moveaxis(cotangents[0], 1, -1)
        flat_g, flat = g.reshape(-1, node.out_features), rows.reshape(-1, node.in_features)
        params, scales = {"weight": flat_g.T @ flat}, {"weight": np.abs(flat_g).T @ np.abs(flat)}
        if node.bias:
            params["bias"], scales["bias"] = flat_g.sum(0), np.abs(flat_g).sum(0)
        dx, size = (np.moveaxis(each, -1, 1) for each in (g @ weight, np.abs(g) @ np.abs(weight)))
        return Gradients((dx,), (size,), params, scales)

    return (np.moveaxis(y, -1, 1),), vjp


@evaluate.register(p.MaxPool2d)
def _max_pool2d(node: p.MaxPool2d, context: Context, x: Array) -> Values:
    padded = _pad(x, node.padding, -np.inf)
    view = _windows(padded, node.kernel, node.stride, (1, 1))
    flat = view.reshape(*view.shape[:4], math.prod(view.shape[4:]))
    first = flat.argmax(-1)[..., None]

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        parts = np.zeros(flat.shape)
        np.put_along_axis(parts, first, cotangents[0][..., None], -1)
        return gradients(_unwindow(parts.reshape(view.shape), padded.shape, node.kernel, node.stride, node.padding, (1, 1)))

    return (np.take_along_axis(flat, first, -1)[..., 0],), vjp


@evaluate.register(p.GlobalAvgPool)
def _global_avg_pool(node: p.GlobalAvgPool, context: Context, x: Array) -> Values:
    space = tuple(range(2, x.ndim))
    y = x.mean(space).reshape(*x.shape[:2], 1, 1)

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0].reshape(*x.shape[:2], *(1,) * len(space))
        return gradients(np.broadcast_to(g, x.shape) * (x.shape[0] * x.shape[1] / max(x.size, 1)))

    return (y,), vjp


@evaluate.register(rearrange.Flatten)
def _flatten(node: rearrange.Flatten, context: Context, x: Array) -> Values:
    return (x.reshape(node.out_shapes(x.shape)[0]),), lambda cotangents: gradients(cotangents[0].reshape(x.shape))


@evaluate.register(p.Dropout, p.DropPath)
def _dropout(node: p.Dropout | p.DropPath, context: Context, x: Array) -> Values:
    if context.train and node.rate:
        raise SpecError(f"{context.path}: {node} is random in training; use deterministic(node), or evaluation mode")
    return elementwise(x, np.ones(()))


@evaluate.register(rearrange.Add)
def _add(node: rearrange.Add, context: Context, a: Array, b: Array) -> Values:
    node.out_shapes(a.shape, b.shape)
    return elementwise(a + b, np.ones(()), np.ones(()))


@evaluate.register(rearrange.ChannelScale)
def _channel_scale(node: rearrange.ChannelScale, context: Context, x: Array, factor: Array) -> Values:
    node.out_shapes(x.shape, factor.shape)
    spread = factor.reshape(*x.shape[:2], *(1,) * (x.ndim - 2))

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0]
        space = tuple(range(2, x.ndim))
        dfactor, size = (each.sum(space).reshape(factor.shape) for each in (g * x, np.abs(g * x)))
        return Gradients((g * spread, dfactor), (np.abs(g * spread), size), {}, {})

    return (x * spread,), vjp


@evaluate.register(rearrange.Concat)
def _concat(node: rearrange.Concat, context: Context, *values: Array) -> Values:
    ends = np.cumsum([value.shape[1] for value in values])[:-1]
    return (np.concatenate(values, 1),), lambda cotangents: gradients(*np.split(cotangents[0], ends, 1))


@evaluate.register(rearrange.Split)
def _split(node: rearrange.Split, context: Context, x: Array) -> Values:
    size = x.shape[1] // node.parts
    slices = [slice(i, None, node.parts) if node.interleaved else slice(i * size, (i + 1) * size) for i in range(node.parts)]

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        dx = np.empty(x.shape)
        for part, g in zip(slices, cotangents, strict=True):
            dx[:, part] = g
        return gradients(dx)

    return tuple(x[:, part] for part in slices), vjp


@evaluate.register(rearrange.ChannelShuffle)
def _channel_shuffle(node: rearrange.ChannelShuffle, context: Context, x: Array) -> Values:
    order = np.arange(x.shape[1]).reshape(node.groups, -1).T.reshape(-1)
    return (x[:, order],), lambda cotangents: gradients(cotangents[0][:, np.argsort(order)])


@evaluate.register(p.LayerNorm)
def _layer_norm(node: p.LayerNorm, context: Context, x: Array) -> Values:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    axes = (0, *range(2, x.ndim))
    weight = context.param("weight").reshape(shape)
    centred = x - x.mean(1, keepdims=True)
    centred = centred - centred.mean(1, keepdims=True)  # removes what rounding left of a large mean
    inverse = 1.0 / np.sqrt(np.square(centred).mean(1, keepdims=True) + node.eps)
    normal = centred * inverse

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        g = cotangents[0]
        params = {"weight": (g * normal).sum(axes), "bias": g.sum(axes)}
        scales = {"weight": np.abs(g * normal).sum(axes), "bias": np.abs(g).sum(axes)}
        h = g * weight
        terms = (h, h.mean(1, keepdims=True), normal * (h * normal).mean(1, keepdims=True))
        dx = inverse * (terms[0] - terms[1] - terms[2])
        return Gradients((dx,), (inverse * sum(np.abs(term) for term in terms),), params, scales)

    return (weight * normal + context.param("bias").reshape(shape),), vjp


@evaluate.register(rearrange.ReduceSample)
def _reduce_sample(node: rearrange.ReduceSample, context: Context, x: Array) -> Values:
    factor = 1.0 if node.how == "sum" else x.shape[0] / max(x.size, 1)
    y = x.sum(tuple(range(1, x.ndim))).reshape(x.shape[0], 1, 1, 1) * factor

    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        return gradients(np.broadcast_to(cotangents[0].reshape(x.shape[0], *(1,) * (x.ndim - 1)) * factor, x.shape))

    return (y,), vjp


@evaluate.register(rearrange.MoveAxis)
def _move_axis(node: rearrange.MoveAxis, context: Context, x: Array) -> Values:
    def vjp(cotangents: tuple[Array, ...]) -> Gradients:
        return gradients(np.moveaxis(cotangents[0], node.destination, node.source))

    return (np.moveaxis(x, node.source, node.destination),), vjp


@evaluate.register(rearrange.FlattenToOneChannel)
def _flatten_to_one_channel(node: rearrange.FlattenToOneChannel, context: Context, x: Array) -> Values:
    return (x.reshape(node.out_shapes(x.shape)[0]),), lambda cotangents: gradients(cotangents[0].reshape(x.shape))


@evaluate.register(rearrange.ReshapeLike)
def _reshape_like(node: rearrange.ReshapeLike, context: Context, x: Array, like: Array) -> Values:
    return (x.reshape(like.shape),), lambda cotangents: gradients(cotangents[0].reshape(x.shape), np.zeros(like.shape))
