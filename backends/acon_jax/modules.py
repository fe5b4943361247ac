"""What Flax lacks or defines otherwise, channels last: BatchNorm, values joined, split and moved, the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_core.random import Stream
from acon_jax.layout import layout
from acon_jax.pointwise import widened


class BatchNorm(nnx.Module):
    """Batch normalisation as PyTorch has it, for any rank: nnx's own moves the running variance by the biased one.

    `scale`, `bias` (Param), `mean`, `var` (BatchStat): (C,). (N, ..., C) -> the same; 16-bit inputs are computed in float32.
    `train()` and `eval()` set `use_running_average`. Raises OneValuePerChannelError in training, also when traced.
    """

    def __init__(self, channels: int, eps: float, decay: float, *, dtype: DTypeLike, path: str = "") -> None:
        self.scale = nnx.Param(jnp.ones(channels, dtype))
        self.bias = nnx.Param(jnp.zeros(channels, dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, dtype))
        self.var = nnx.BatchStat(jnp.ones(channels, dtype))
        self.eps, self.decay, self.path = eps, decay, path
        self.use_running_average = False

    def __call__(self, x: Array) -> Array:
        wide = widened(x)
        if self.use_running_average:
            mean, var = self.mean[...].astype(wide.dtype), self.var[...].astype(wide.dtype)
        else:
            mean, var = self._batch_statistics(wide)
        normal = (wide - mean) / jnp.sqrt(var + self.eps)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)

    def _batch_statistics(self, x: Array) -> tuple[Array, Array]:
        """The batch's mean and biased variance, which also move the running ones, the variance by the unbiased one."""
        count = x.size // x.shape[-1]
        if count == 1:
            raise OneValuePerChannelError.at(self.path, x.shape)
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)
        # In two passes: the mean of squares less the squared mean loses all digits where the mean is large. What the sum of
        # the first was rounded by, the second finds out.
        centred = x - mean
        rounding = centred.mean(axes)
        mean, var = mean + rounding, jnp.square(centred).mean(axes) - jnp.square(rounding)
        for running, batch in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
            moved = self.decay * running[...].astype(x.dtype) + (1 - self.decay) * jax.lax.stop_gradient(batch)
            running[...] = moved.astype(running.dtype)
        return mean, var

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What `nnx.view` calls."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


class LayerNorm(nnx.Module):
    """Normalisation over the channels of each position: nnx's own loses digits where the mean is large beside the spread.

    `scale`, `bias` (Param): (C,). (N, ..., C) -> the same; 16-bit inputs are computed in float32.
    """

    def __init__(self, channels: int, eps: float, *, dtype: DTypeLike) -> None:
        self.scale = nnx.Param(jnp.ones(channels, dtype))
        self.bias = nnx.Param(jnp.zeros(channels, dtype))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        wide = widened(x)
        centred = wide - wide.mean(-1, keepdims=True)
        centred = centred - centred.mean(-1, keepdims=True)  # what the mean was rounded by
        normal = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


class Linear(nnx.Linear):
    """Flax's own, over the last axis that the spec means: with channels last, that is the last axis of space."""

    def __call__(self, x: Array) -> Array:
        if x.ndim == 2:
            return super().__call__(x)
        return jnp.swapaxes(super().__call__(jnp.swapaxes(x, -1, -2)), -1, -2)


def max_pool(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """The largest of each window; padding never wins."""
    return nnx.max_pool(x, kernel, stride, tuple((size, size) for size in padding))


def global_avg_pool(x: Array) -> Array:
    """(N, ..., C) -> (N, 1, 1, C): the mean over space, of any rank and size."""
    return x.mean(range(1, x.ndim - 1))[:, None, None, :]


def flatten(x: Array) -> Array:
    """(N, H, W, C) -> (N, C H W), in the order C, H, W that the weights behind it were trained with."""
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], math.prod(x.shape[1:]))


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


class Primitive(nnx.Module):
    """A primitive without parameters: the function of its spec's type, called with the values and the spec's fields."""

    def __init__(self, node: spec.Primitive, function: Callable[..., Any]) -> None:
        # nnx.jit tells two modules apart by their attributes: these compare by value.
        self.spec, self._function = node, function

    def __call__(self, *values: Array) -> Any:
        return self._function(*values, **vars(self.spec))


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
        # nnx.jit tells two modules apart by their attributes: the program must be one, in parts that compare by value.
        self._program = graph.inputs, tuple(graph.params), graph.steps, graph.outputs
        for name in (*graph.params, *graph.children):
            if hasattr(self, name):
                raise SpecError(f"{spec.join(path, name)}: an nnx module cannot have a child of this name; rename it")
        slots = layout.slots(node)
        for name, param in graph.params.items():
            if param.kind == "weight":
                setattr(self, name, nnx.Param(slots[name].to_native(jnp.zeros(param.shape, dtype))))
            else:
                setattr(self, name, Derived(jnp.asarray(param.init.draw(param.shape, Stream(path)), dtype)))
        for name, child in graph.children.items():
            setattr(self, name, make(name, child))

    def __call__(
        self, *inputs: Array, rngs: nnx.Rngs | None = None, taps: dict[str, Array] | None = None
    ) -> Array | tuple[Array, ...]:
        names, own, steps, outputs = self._program
        values: dict[str, Array] = dict(zip(names, inputs, strict=True))
        values.update({name: getattr(self, name)[...] for name in own})
        for step in steps:
            made = call(getattr(self, step.child), *(values[name] for name in step.inputs), rngs=rngs, taps=taps)
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=True))
            if taps is not None:
                taps.update({spec.join(self._path, name): values[name] for name in step.outputs})
        results = tuple(values[name] for name in outputs)
        return results if len(results) > 1 else results[0]

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
