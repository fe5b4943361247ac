"""What Flax lacks or defines differently, as modules and functions; and the graph runner.

Channels are last. Each layer is compiled as one, in a function that all layers of its kind share:
eagerly, JAX would compile each operation alone and again for every shape, forward and backward,
which takes minutes for a network. 16 bits are upcast before that: compiled with the rest, the
conversion would change how results are rounded.
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
from acon_core.building import BuildContext
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_core.random import Stream
from acon_jax.arrays import canonical_shape, filled, on_device
from acon_jax.checkpoint.layout import layout
from acon_jax.functional import acon
from acon_jax.gradient import is_floating, upcast_half


class _NoKeys:
    """Stand in for the random streams of Flax's layers: zeros need no key, and a key takes time."""

    def params(self) -> None:
        """Return no key."""


def _zeros(key: None, shape: spec.Shape, dtype: DTypeLike) -> Array:
    return filled(0.0, shape, dtype)


# Options of Flax's own layers that make their parameters zeros.
ZEROS: dict[str, Any] = {"kernel_init": _zeros, "bias_init": _zeros, "rngs": _NoKeys()}


def beside(vector: Array, x: Array) -> Array:
    """Reshape (C,) to the rank of (N, ..., C), which `jax_numpy_rank_promotion` may require."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


@partial(jax.jit, static_argnums=3)
def _convolved(x: Array, kernel: Array, bias: Array | None, options: tuple[Any, ...]) -> Array:
    strides, padding, dilation, groups = options
    y = jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip
    return y if bias is None else y + beside(bias, y)


class Conv2d(nnx.Conv):
    """Flax's convolution of images, compiled as one."""

    def __call__(self, x: Array) -> Array:
        options = self.strides, self.padding, self.kernel_dilation, self.feature_group_count
        return _convolved(*_promoted(self, x), options)


@jax.jit
def _transformed(x: Array, kernel: Array, bias: Array | None) -> Array:
    y = x @ kernel
    return y if bias is None else y + beside(bias, y)


class Linear(nnx.Linear):
    """Flax's linear layer over the last axis, compiled as one."""

    def __call__(self, x: Array) -> Array:
        return _transformed(*_promoted(self, x))


def _promoted(layer: nnx.Conv | nnx.Linear, x: Array) -> tuple[Array, Array, Array | None]:
    """Convert input, kernel and bias to the dtype that Flax computes in.

    Flax converts also what has that dtype already, which eagerly is a program per shape.
    """
    arrays = x, layer.kernel[...], None if layer.bias is None else layer.bias[...]
    if all(array is None or array.dtype == (layer.dtype or x.dtype) for array in arrays):
        return arrays
    return layer.promote_dtype(arrays, dtype=layer.dtype)


@partial(jax.jit, static_argnames="eps")
def _normalised(x: Array, mean: Array, var: Array, scale: Array, bias: Array, *, eps: float) -> Array:
    mean, var, scale, bias = (beside(each, x) for each in (mean, var, scale, bias))
    return (x - mean) / jnp.sqrt(var + eps) * scale + bias


@partial(jax.jit, static_argnames=("eps", "decay"))
def _batch_normalised(
    x: Array, running: tuple[Array, Array], scale: Array, bias: Array, *, eps: float, decay: float
) -> tuple[Array, tuple[Array, Array]]:
    """Return y, and the running mean and (unbiased) variance after an update."""
    count, axes = x.size // x.shape[-1], tuple(range(x.ndim - 1))
    mean = x.mean(axes, keepdims=True)
    # In two passes: the mean of squares minus the squared mean loses all digits where the mean is
    # large. The second pass corrects the rounding of the first.
    centred = x - mean
    rounding = centred.mean(axes, keepdims=True)
    mean, var = mean + rounding, jnp.square(centred).mean(axes, keepdims=True) - jnp.square(rounding)
    batch = jax.lax.stop_gradient((mean, var * (count / max(count - 1, 1))))
    moved = [decay * old + (1 - decay) * new.reshape(old.shape) for old, new in zip(running, batch, strict=True)]
    # Not x minus the corrected mean, which is rounded where it is far from zero.
    y = (centred - rounding) / jnp.sqrt(var + eps) * beside(scale, x) + beside(bias, x)
    return y, (moved[0], moved[1])


class BatchNorm(nnx.Module):
    """Batch norm for any rank; the running variance is unbiased, where that of nnx is biased.

    `scale`, `bias` (Param), `mean`, `var` (BatchStat): (C,). (N, ..., C) -> the same. `train()` and
    `eval()` set `use_running_average`. In training it raises OneValuePerChannelError, also when
    traced, and an empty batch leaves the statistics as they are.
    """

    def __init__(self, channels: int, eps: float, decay: float, *, dtype: DTypeLike, path: str = "") -> None:
        self.scale = nnx.Param(filled(1.0, (channels,), dtype))
        self.bias = nnx.Param(filled(0.0, (channels,), dtype))
        self.mean = nnx.BatchStat(filled(0.0, (channels,), dtype))
        self.var = nnx.BatchStat(filled(1.0, (channels,), dtype))
        self.eps, self.decay, self.path = eps, decay, path
        self.use_running_average = False

    def __call__(self, x: Array) -> Array:
        wide, mean, var, scale, bias = upcast_half(x, self.mean[...], self.var[...], self.scale[...], self.bias[...])
        if self.use_running_average or x.size == 0:
            return _normalised(wide, mean, var, scale, bias, eps=self.eps).astype(x.dtype)
        if x.size == x.shape[-1]:
            raise OneValuePerChannelError.at(self.path, x.shape)
        y, moved = _batch_normalised(wide, (mean, var), scale, bias, eps=self.eps, decay=self.decay)
        self.mean[...], self.var[...] = (new.astype(old.dtype) for new, old in zip(moved, (self.mean, self.var), strict=True))
        return y.astype(x.dtype)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Set the mode for `nnx.view`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


@partial(jax.jit, static_argnames="eps")
def _layer_normalised(x: Array, scale: Array, bias: Array, *, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    centred = centred - centred.mean(-1, keepdims=True)  # the rounding of the mean
    deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return centred / deviation * beside(scale, x) + beside(bias, x)


class LayerNorm(nnx.Module):
    """Layer norm over the channels of each position; nnx's loses digits where the mean is large.

    `scale`, `bias` (Param): (C,). (N, ..., C) -> the same.
    """

    def __init__(self, channels: int, eps: float, *, dtype: DTypeLike) -> None:
        self.scale = nnx.Param(filled(1.0, (channels,), dtype))
        self.bias = nnx.Param(filled(0.0, (channels,), dtype))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        return _layer_normalised(*upcast_half(x, self.scale[...], self.bias[...]), eps=self.eps).astype(x.dtype)


class DropPath(nnx.Dropout):
    """Stochastic depth: in training, zero a sample with probability `rate`, scale up the others."""

    def __call__(self, x: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        kept = super().__call__(jnp.ones((x.shape[0], *(1,) * (x.ndim - 1)), x.dtype), rngs=rngs) > 0
        return x if self.deterministic else jnp.where(kept, x / (1.0 - self.rate), 0)


@partial(jax.jit, static_argnums=(0, 1))
def _call(function: Callable[..., Any], options: tuple[tuple[str, Any], ...], *values: Array) -> Any:
    return function(*values, **dict(options))


class Function(nnx.Module):
    """A function without parameters, as the module of its node. The function checks the shapes."""

    def __init__(self, node: spec.Node, function: Callable[..., Any], **options: Any) -> None:
        # nnx.jit compares modules by their attributes: these compare by value.
        self.spec, self._function, self._options = node, function, tuple(options.items())

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function cannot be pickled; it follows from the node.
        return super().__getstate__() | {"_function": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from acon_jax.build import build  # which imports this module

        made = build(state["spec"], BuildContext(jnp.float32))
        super().__setstate__(state | {"_function": made._function})

    def __call__(self, *values: Array) -> Any:
        if not is_floating(values[0].dtype):
            raise spec.dtype_error(self.spec, values[0].dtype)
        return _call(self._function, self._options, *values)


def _acon(x: Array, *gates: Array, p1: float | None, p2: float | None) -> Array:
    return acon(x, *(fixed for fixed in (p1, p2) if fixed is not None), *gates)


class Acon(Function):
    """`acon(x, p1, p2, beta)` with the slopes that its node fixes; the other gates are inputs."""

    def __init__(self, node: spec.Acon) -> None:
        super().__init__(node, _acon, p1=node.p1, p2=node.p2)


def max_pool2d(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """Compute the maximum of each window; padding never wins."""
    return nnx.max_pool(x, kernel, stride, tuple((size, size) for size in padding))


def flatten(x: Array) -> Array:
    """Reshape (N, H, W, C) -> (N, C H W), in the order of channels first."""
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], math.prod(x.shape[1:]))


def global_avg_pool(x: Array) -> Array:
    """Average over space: (N, ..., C) -> (N, 1, 1, C)."""
    return x.mean(range(1, x.ndim - 1))[:, None, None, :]


def reduce_sample(x: Array, how: str) -> Array:
    """Sum or average over each sample: (N, ..., C) -> (N, 1, 1, 1)."""
    axes = range(1, x.ndim)
    return (x.sum(axes) if how == "sum" else x.mean(axes))[:, None, None, None]


def add(x: Array, other: Array) -> Array:
    """Add two values of one shape."""
    spec.Add().out_shapes(canonical_shape(x.shape), canonical_shape(other.shape))
    return x + other


def channel_scale(x: Array, factor: Array) -> Array:
    """Multiply (N, ..., C) by (N, 1, 1, C)."""
    spec.ChannelScale().out_shapes(canonical_shape(x.shape), canonical_shape(factor.shape))
    return x * factor.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


def concat(*values: Array) -> Array:
    """Concatenate along the channels."""
    return jnp.concatenate(values, -1)


def split(x: Array, parts: int, interleaved: bool) -> tuple[Array, ...]:
    """Split the channels into equal parts: every `parts`-th if interleaved, else blocks."""
    if interleaved:
        return tuple(x[..., part::parts] for part in range(parts))
    return tuple(jnp.split(x, parts, -1))


def channel_shuffle(x: Array, groups: int) -> Array:
    """Move channel g C / groups + j to j groups + g, for any rank."""
    runs = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return jnp.swapaxes(runs, -1, -2).reshape(x.shape)


def move_axis(x: Array, source: int, destination: int) -> Array:
    """Move one axis, counted as if the channels were at axis 1; the others keep their order."""
    return jnp.moveaxis(jnp.moveaxis(jnp.moveaxis(x, -1, 1), source, destination), 1, -1)


def flatten_to_one_channel(x: Array) -> Array:
    """Reshape (N, ..., C) -> (N, ... C, 1)."""
    # In two steps, as below: in one, JAX does not see where the axes of a sharded array go.
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))[..., None]


def reshape_like(x: Array, like: Array) -> Array:
    """Reshape x to the shape of `like`."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:])).reshape(like.shape)


class Derived(nnx.Variable):
    """A value that follows from the spec: saved and loaded, but not a parameter."""


class Graph(nnx.Module):
    """Run a spec graph line by line; children have their published names.

    `spec` is its node; `make` builds a child from its node and context. `graph[i]` is child i, as
    in PyTorch's `nn.Sequential`; use `getattr(graph, "0")` for a name that is not an identifier.
    A call takes `rngs` for dropout in training (no module keeps a random stream, so that the state
    of a model is its checkpoint), and `taps`, a dict that gets every named value by its path.
    """

    def __init__(self, node: spec.Node, make: Callable[[spec.Node, BuildContext], nnx.Module], context: BuildContext) -> None:
        # An underscore keeps an attribute out of nnx's repr, and its name free for a child.
        self._spec, self._path = node, context.path
        graph, path, dtype = spec.graph_of(node), context.path, jnp.dtype(context.dtype)
        self._single_output = graph.single_output and len(graph.outputs) == 1
        # nnx.jit compares modules by their attributes: the parts of this one compare by value.
        slots = layout.slots(node)
        stored = tuple(name for name in graph.params if slots[name] is not None)
        self._program = graph.inputs, stored, graph.steps, graph.outputs
        # JAX has no int64 by default: an index is derived from the spec where a line uses it.
        used = {name for step in graph.steps for name in step.inputs}
        self._indices = tuple((name, graph.params[name]) for name in graph.params if name not in stored and name in used)
        for name in (*graph.params, *graph.children):
            if hasattr(self, name):
                raise SpecError(f"{spec.join(path, name)}: an nnx module cannot have a child of this name; rename it")
        for name, param in graph.params.items():
            slot = slots[name]
            if slot is None:
                continue
            if param.kind == "weight":
                setattr(self, name, nnx.Param(on_device(slot.to_native(np.zeros(param.shape, dtype)))))
            else:
                values = param.init.draw(param.shape, Stream(path)).astype(dtype)
                setattr(self, name, Derived(on_device(values)))
        for name, child in graph.children.items():
            setattr(self, name, make(child, context.child(name)))

    def __call__(
        self, *inputs: Array, rngs: nnx.Rngs | None = None, taps: dict[str, Array] | None = None
    ) -> Array | tuple[Array, ...]:
        if not is_floating(inputs[0].dtype):
            raise spec.dtype_error(self._spec, inputs[0].dtype)
        names, own, steps, outputs = self._program
        values: dict[str, Array] = dict(zip(names, inputs, strict=True))
        values.update({name: getattr(self, name)[...] for name in own})
        values.update({name: jnp.asarray(param.init.draw(param.shape, Stream(name)), int) for name, param in self._indices})
        for step in steps:
            results = call(getattr(self, step.child), *(values[name] for name in step.inputs), rngs=rngs, taps=taps)
            values.update(zip(step.outputs, results if len(step.outputs) > 1 else (results,), strict=True))
            if taps is not None:
                taps.update({spec.join(self._path, name): values[name] for name in step.outputs})
        selection = tuple(values[name] for name in outputs)
        return selection[0] if self._single_output else selection

    @property
    def spec(self) -> spec.Graph | spec.Layer:
        """The node of this module."""
        return self._spec

    def __getitem__(self, index: int) -> nnx.Module:
        return getattr(self, tuple(self._spec.children)[index])

    def __setitem__(self, index: int, module: nnx.Module) -> None:
        setattr(self, tuple(self._spec.children)[index], module)


def call(module: nnx.Module, *values: Array, rngs: nnx.Rngs | None, taps: dict[str, Array] | None) -> Any:
    """Run a module, with the random streams and the taps if it takes them."""
    if isinstance(module, Graph):
        return module(*values, rngs=rngs, taps=taps)
    return module(*values, rngs=rngs) if isinstance(module, nnx.Dropout) else module(*values)
