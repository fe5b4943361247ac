"""What Flax lacks or defines otherwise, channels last: BatchNorm, values joined, split and moved, the graph runner.

A layer is compiled as one, in a function that all layers of its kind share: eagerly, JAX would compile each operation alone,
and again for every shape, forward and back, which takes a network minutes. 16 bits are widened before: a conversion that is
compiled along with what follows changes how that is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_core.random import Stream
from acon_jax.arrays import canonical_shape, filled, on_device
from acon_jax.checkpoint.layout import layout
from acon_jax.pointwise import widened


@partial(jax.jit, static_argnames="eps")
def _normalised(x: Array, mean: Array, var: Array, scale: Array, bias: Array, *, eps: float) -> Array:
    return (x - mean) / jnp.sqrt(var + eps) * scale + bias


@partial(jax.jit, static_argnames=("eps", "decay"))
def _batch_normalised(
    x: Array, running: tuple[Array, Array], scale: Array, bias: Array, *, eps: float, decay: float
) -> tuple[Array, tuple[Array, Array]]:
    """y, and the running mean and variance moved by the batch's, the variance by the unbiased one."""
    count, axes = x.size // x.shape[-1], tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    # In two passes: the mean of squares less the squared mean loses all digits where the mean is large. What the sum of
    # the first was rounded by, the second finds out.
    centred = x - mean
    rounding = centred.mean(axes)
    mean, var = mean + rounding, jnp.square(centred).mean(axes) - jnp.square(rounding)
    batch = jax.lax.stop_gradient((mean, var * (count / max(count - 1, 1))))
    moved = [decay * old + (1 - decay) * new for old, new in zip(running, batch, strict=True)]
    # Not x less the corrected mean, which has been rounded where it stands far from zero.
    return (centred - rounding) / jnp.sqrt(var + eps) * scale + bias, (moved[0], moved[1])


class BatchNorm(nnx.Module):
    """Batch normalisation as PyTorch has it, for any rank: nnx's own moves the running variance by the biased one.

    `scale`, `bias` (Param), `mean`, `var` (BatchStat): (C,). (N, ..., C) -> the same; 16-bit inputs are computed in float32.
    `train()` and `eval()` set `use_running_average`. Raises OneValuePerChannelError in training, also when traced.
    """

    def __init__(self, channels: int, eps: float, decay: float, *, dtype: DTypeLike, path: str = "") -> None:
        self.scale = nnx.Param(filled(1.0, (channels,), dtype))
        self.bias = nnx.Param(filled(0.0, (channels,), dtype))
        self.mean = nnx.BatchStat(filled(0.0, (channels,), dtype))
        self.var = nnx.BatchStat(filled(1.0, (channels,), dtype))
        self.eps, self.decay, self.path = eps, decay, path
        self.use_running_average = False

    def __call__(self, x: Array) -> Array:
        wide, mean, var, scale, bias = map(widened, (x, self.mean[...], self.var[...], self.scale[...], self.bias[...]))
        if self.use_running_average:
            return _normalised(wide, mean, var, scale, bias, eps=self.eps).astype(x.dtype)
        if x.size == x.shape[-1]:
            raise OneValuePerChannelError.at(self.path, x.shape)
        y, moved = _batch_normalised(wide, (mean, var), scale, bias, eps=self.eps, decay=self.decay)
        self.mean[...], self.var[...] = (new.astype(old.dtype) for new, old in zip(moved, (self.mean, self.var), strict=True))
        return y.astype(x.dtype)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What `nnx.view` calls."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


@partial(jax.jit, static_argnames="eps")
def _layer_normalised(x: Array, scale: Array, bias: Array, *, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    centred = centred - centred.mean(-1, keepdims=True)  # what the mean was rounded by
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + eps) * scale + bias


class LayerNorm(nnx.Module):
    """Normalisation over the channels of each position: nnx's own loses digits where the mean is large beside the spread.

    `scale`, `bias` (Param): (C,). (N, ..., C) -> the same; 16-bit inputs are computed in float32.
    """

    def __init__(self, channels: int, eps: float, *, dtype: DTypeLike) -> None:
        self.scale = nnx.Param(filled(1.0, (channels,), dtype))
        self.bias = nnx.Param(filled(0.0, (channels,), dtype))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        return _layer_normalised(*map(widened, (x, self.scale[...], self.bias[...])), eps=self.eps).astype(x.dtype)


@partial(jax.jit, static_argnums=3)
def _convolved(x: Array, kernel: Array, bias: Array | None, options: tuple[Any, ...]) -> Array:
    strides, padding, dilation, groups = options
    y = jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip
    return y if bias is None else y + bias


class Conv(nnx.Conv):
    """Flax's own, of images, compiled as one."""

    def __call__(self, x: Array) -> Array:
        options = self.strides, self.padding, self.kernel_dilation, self.feature_group_count
        return _convolved(*_promoted(self, x), options)


@jax.jit
def _transformed(x: Array, kernel: Array, bias: Array | None) -> Array:
    return x @ kernel if bias is None else x @ kernel + bias


class Linear(nnx.Linear):
    """Flax's own, compiled as one: over the last axis, where the channels are, of any rank."""

    def __call__(self, x: Array) -> Array:
        return _transformed(*_promoted(self, x))


def _promoted(layer: nnx.Conv | nnx.Linear, x: Array) -> tuple[Array, Array, Array | None]:
    """The input, kernel and bias in the one dtype that Flax computes in.

    Flax converts them also where all have it already, which eagerly is a program for each shape.
    """
    arrays = x, layer.kernel[...], None if layer.bias is None else layer.bias[...]
    if all(array is None or array.dtype == (layer.dtype or x.dtype) for array in arrays):
        return arrays
    return layer.promote_dtype(arrays, dtype=layer.dtype)


class DropPath(nnx.Dropout):
    """Flax's dropout with one draw a sample: in training, each is zero with probability `rate`, else divided by 1 - rate."""

    def __call__(self, x: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        kept = super().__call__(jnp.ones((x.shape[0], *(1,) * (x.ndim - 1)), x.dtype), rngs=rngs) > 0
        return x if self.deterministic else jnp.where(kept, x / (1.0 - self.rate), 0)


def max_pool(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """The largest of each window; padding never wins."""
    return nnx.max_pool(x, kernel, stride, tuple((size, size) for size in padding))


def global_avg_pool(x: Array) -> Array:
    """(N, ..., C) -> (N, 1, 1, C): the mean over space, of any rank and size."""
    return x.mean(range(1, x.ndim - 1))[:, None, None, :]


def flatten(x: Array) -> Array:
    """(N, H, W, C) -> (N, C H W), in the order C, H, W that the weights behind it were trained with."""
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], math.prod(x.shape[1:]))


def add(x: Array, other: Array) -> Array:
    """The sum of two values of one shape."""
    spec.Add().out_shapes(canonical_shape(x.shape), canonical_shape(other.shape))
    return x + other


def rescale(x: Array, factor: Array) -> Array:
    """x (N, ..., C) times a factor (N, 1, 1, C)."""
    spec.ChannelScale().out_shapes(canonical_shape(x.shape), canonical_shape(factor.shape))
    return x * factor.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


def concat(*values: Array) -> Array:
    """Values joined along the channels."""
    return jnp.concatenate(values, -1)


def split(x: Array, parts: int, interleaved: bool) -> tuple[Array, ...]:
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""
    if interleaved:
        return tuple(x[..., part::parts] for part in range(parts))
    return tuple(jnp.split(x, parts, -1))


def shuffle(x: Array, groups: int) -> Array:
    """The channels as `groups` runs, dealt out in turn."""
    runs = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return jnp.swapaxes(runs, -1, -2).reshape(x.shape)


def reduce_sample(x: Array, how: str) -> Array:
    """(N, ..., C) -> (N, 1, 1, 1): the sum or the mean of each sample."""
    axes = range(1, x.ndim)
    return (x.sum(axes) if how == "sum" else x.mean(axes))[:, None, None, None]


def move_axis(x: Array, source: int, destination: int) -> Array:
    """`moveaxis` of what the spec sees, whose channels are at axis 1 and not last."""
    return jnp.moveaxis(jnp.moveaxis(jnp.moveaxis(x, -1, 1), source, destination), 1, -1)


def as_one_channel(x: Array) -> Array:
    """(N, ..., C) -> (N, all of it, 1)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]), 1)


def shape_like(x: Array, like: Array) -> Array:
    """What `as_one_channel` made, in the shape of `like`."""
    return x.reshape(like.shape)


@partial(jax.jit, static_argnums=(0, 1))
def _applied(function: Callable[..., Any], node: spec.Primitive, *values: Array) -> Any:
    return function(*values, **vars(node))


class Primitive(nnx.Module):
    """A primitive without parameters: the function of its spec's type, called with the values and the spec's fields."""

    def __init__(self, node: spec.Primitive, function: Callable[..., Any]) -> None:
        # nnx.jit tells two modules apart by their attributes: these compare by value.
        self.spec, self._function = node, function

    def __call__(self, *values: Array) -> Any:
        return _applied(self._function, self.spec, *values)


class Derived(nnx.Variable):
    """What follows from the spec alone: saved and loaded with the rest, but no parameter."""


class Graph(nnx.Module):
    """Runs a spec graph: children under their published names, the program line by line.

    `spec` is the node that it stands for; `make` builds a child from its name and node. `graph[i]` is child i, as in
    PyTorch's `nn.Sequential`; a name that is no identifier is had by `getattr(graph, "0")`.
    A call takes `rngs`, where dropout below draws from in training (no module keeps a random stream, so that a model's
    state is its checkpoint), and `taps`, a dict into which every named value is put under its path from the root.
    """

    def __init__(
        self, node: spec.Graph | spec.Layer, make: Callable[[str, spec.Node], nnx.Module], dtype: DTypeLike, path: str = ""
    ) -> None:
        # An underscore keeps an attribute out of nnx's repr, and its name free for a child.
        self._spec, self._path = node, path
        graph = node.graph if isinstance(node, spec.Layer) else node
        self._bare = graph.single_output and len(graph.outputs) == 1
        # nnx.jit tells two modules apart by their attributes: the program must be one, in parts that compare by value.
        slots = layout.slots(node)
        held = tuple(name for name in graph.params if slots[name] is not None)
        self._program = graph.inputs, held, graph.steps, graph.outputs
        # JAX has no int64 unless told so: an index is not held, and follows from the spec where a line takes it.
        taken = {name for step in graph.steps for name in step.inputs}
        self._indices = tuple((name, graph.params[name]) for name in graph.params if name not in held and name in taken)
        for name in (*graph.params, *graph.children):
            if hasattr(self, name):
                raise SpecError(f"{spec.join(path, name)}: an nnx module cannot have a child of this name; rename it")
        for name, param in graph.params.items():
            slot = slots[name]
            if slot is None:
                continue
            if param.kind == "weight":
                setattr(self, name, nnx.Param(on_device(slot.to_native(np.zeros(param.shape, jnp.dtype(dtype))))))
            else:
                values = param.init.draw(param.shape, Stream(path)).astype(jnp.dtype(dtype))
                setattr(self, name, Derived(on_device(values)))
        for name, child in graph.children.items():
            setattr(self, name, make(name, child))

    def __call__(
        self, *inputs: Array, rngs: nnx.Rngs | None = None, taps: dict[str, Array] | None = None
    ) -> Array | tuple[Array, ...]:
        names, own, steps, outputs = self._program
        values: dict[str, Array] = dict(zip(names, inputs, strict=True))
        values.update({name: getattr(self, name)[...] for name in own})
        values.update({name: jnp.asarray(param.init.draw(param.shape, Stream(name)), int) for name, param in self._indices})
        for step in steps:
            made = call(getattr(self, step.child), *(values[name] for name in step.inputs), rngs=rngs, taps=taps)
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=True))
            if taps is not None:
                taps.update({spec.join(self._path, name): values[name] for name in step.outputs})
        results = tuple(values[name] for name in outputs)
        return results[0] if self._bare else results

    @property
    def spec(self) -> spec.Graph | spec.Layer:
        """The node that it stands for."""
        return self._spec

    def __getitem__(self, index: int) -> nnx.Module:
        return getattr(self, tuple(self._spec.children)[index])


def call(module: nnx.Module, *values: Array, rngs: nnx.Rngs | None, taps: dict[str, Array] | None) -> Any:
    """Run a module, with the random streams and the taps if it is one that takes them."""
    if isinstance(module, Graph):
        return module(*values, rngs=rngs, taps=taps)
    return module(*values, rngs=rngs) if isinstance(module, nnx.Dropout) else module(*values)
