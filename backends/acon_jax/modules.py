"""What Flax lacks or defines otherwise, as nnx modules, channels last: BatchNorm, values joined and split, the graph runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_jax import functional as F
from acon_jax.layout import layout


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
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
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
        # In two passes: the mean of squares less the squared mean loses all digits where the mean is large.
        var = jnp.square(x - mean).mean(axes)
        for running, batch in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
            moved = self.decay * running[...].astype(x.dtype) + (1 - self.decay) * jax.lax.stop_gradient(batch)
            running[...] = moved.astype(running.dtype)
        return mean, var

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What `nnx.view` calls."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


class Linear(nnx.Linear):
    """Flax's own, over the last axis that the spec means: with channels last, that is the last axis of space."""

    def __call__(self, x: Array) -> Array:
        if x.ndim == 2:
            return super().__call__(x)
        return jnp.swapaxes(super().__call__(jnp.swapaxes(x, -1, -2)), -1, -2)


class MaxPool2d(nnx.Module):
    """The largest of each window; padding never wins."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def __call__(self, x: Array) -> Array:
        return nnx.max_pool(x, self.kernel, self.stride, tuple((size, size) for size in self.padding))


class GlobalAvgPool(nnx.Module):
    """(N, ..., C) -> (N, 1, 1, C): the mean over space, of any rank and size."""

    def __call__(self, x: Array) -> Array:
        return x.mean(range(1, x.ndim - 1))[:, None, None, :]


class Flatten(nnx.Module):
    """(N, H, W, C) -> (N, C H W), in the order C, H, W that the weights behind it were trained with."""

    def __call__(self, x: Array) -> Array:
        return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)


class Concat(nnx.Module):
    """Values joined along the channels."""

    def __call__(self, *values: Array) -> Array:
        return jnp.concatenate(values, -1)


class Split(nnx.Module):
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""

    def __init__(self, parts: int, interleaved: bool) -> None:
        self.parts, self.interleaved = parts, interleaved

    def __call__(self, x: Array) -> tuple[Array, ...]:
        if self.interleaved:
            return tuple(x[..., part :: self.parts] for part in range(self.parts))
        return tuple(jnp.split(x, self.parts, -1))


class Shuffle(nnx.Module):
    """The channels as `groups` runs, dealt out in turn."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(self, x: Array) -> Array:
        runs = x.reshape(*x.shape[:-1], self.groups, -1)
        return jnp.swapaxes(runs, -1, -2).reshape(x.shape)


class Elementwise(nnx.Module):
    """A function of each element alone."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function

    def __call__(self, x: Array) -> Array:
        return self.function(x)


class Acon(nnx.Module):
    """The activation `acon(x, p1, p2, beta)`, without parameters of its own."""

    def __call__(self, x: Array, p1: Array, p2: Array, beta: Array) -> Array:
        return F.acon(x, p1, p2, beta)


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
            setattr(self, name, nnx.Param(slots[name].to_native(jnp.zeros(param.shape, dtype))))
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
