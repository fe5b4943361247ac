"""What MegEngine lacks or defines differently, as modules and functions; and the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import mul
from typing import Any

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Parameter, Tensor

from acon_core import spec
from acon_core.building import BuildContext
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_megengine.functional import acon
from acon_megengine.gradient import Rule, Terms, add_bias, is_floating, to_rank


def _mean(x: Tensor, axes: Sequence[int]) -> Tensor:
    # One axis at a time: over several axes, MegEngine adds in one long sum.
    return reduce(partial(F.mean, keepdims=True), reversed(axes), x)


def _statistics(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance over the axes."""
    mean = _mean(x, axes)
    away = x - mean
    return mean, _mean(away * away, axes)


def _normalise(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, axes: Sequence[int]
) -> Tensor:
    """Compute weight (x - mean) / sqrt(variance + eps) + bias.

    The statistics are those of x over `axes`, or constants if there are no axes.
    """

    def value(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return (x - mean) * (weight * (variance + eps) ** -0.5) + bias

    def pullback(g: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> Terms:
        if axes:  # computed again from x, so that a second derivative sees them
            mean, variance = _statistics(x, axes)
        inverse = (variance + eps) ** -0.5
        normal, to_normal = (x - mean) * inverse, g * weight
        through = _mean(to_normal, axes) + normal * _mean(to_normal * normal, axes) if axes else 0.0
        return (to_normal - through) * inverse, None, None, g * normal, g

    return Rule(value, pullback)(x, mean, variance, weight, bias)


def convolved(layer: M.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of a layer without its bias."""
    convolve = partial(layer.calc_conv, bias=None)
    if x._tuple_shape[0]:
        return convolve(x, weight)
    # MegEngine's own gradient of an empty batch ends the process.
    return Rule(convolve, lambda g, *arguments: [F.zeros_like(each) for each in arguments])(x, weight)


class Conv2d(M.Conv2d):
    """MegEngine's convolution, with correct gradients for bias (`sum_to`) and empty batches."""

    def forward(self, x: Tensor) -> Tensor:
        y = convolved(self, x, self.weight)
        return y if self.bias is None else add_bias(y, self.bias)


def over_channels(function: Callable[[Tensor], Tensor], x: Tensor, in_features: int, out_features: int) -> Tensor:
    """Apply a function of rows (N, C) over axis 1 of (N, C, ...)."""
    if x.ndim == 2:
        return function(x)
    # One matrix product over all positions: one a sample would sum the weight's gradient over the
    # batch.
    _, _, *space = spec.Linear(in_features, out_features).out_shapes(x._tuple_shape)[0]
    rows = F.reshape(move_axis(x, 1, -1), (-1, in_features))
    return move_axis(F.reshape(function(rows), (-1, *space, out_features)), -1, 1)


class Linear(M.Linear):
    """MegEngine's linear layer over axis 1 of (N, C, ...), with a correct gradient for the bias."""

    def forward(self, x: Tensor) -> Tensor:
        return over_channels(self._rows, x, self.in_features, self.out_features)

    def _rows(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        return y if self.bias is None else add_bias(y, to_rank(self.bias, y, 1))


class BatchNorm(M.BatchNorm2d):
    """Batch norm for any rank, with MegEngine's parameters and correct gradients (see `sum_to`).

    In training it raises the error that all backends share for one value per channel, where
    MegEngine's returns 0 and sets `running_var` to NaN for good. MegEngine's CPU kernel adds all
    values of a channel in one long float32 sum: of three million, as in RepAct III, the result is
    off by 1e-3 (1.13.0). This one is not, and takes half the time.
    """

    path = ""

    def forward(self, x: Tensor) -> Tensor:
        from_batch = self.training and not self.freeze
        if from_batch and math.prod(x._tuple_shape) == x._tuple_shape[1]:
            raise OneValuePerChannelError.at(self.path, x._tuple_shape)
        axes = [axis for axis in range(x.ndim) if axis != 1] if from_batch else []
        weight, bias = (each.detach() if self.freeze else each for each in (self.weight, self.bias))
        if from_batch:
            mean, variance = _statistics(x.detach().astype("float32"), axes)
            if 0 not in x._tuple_shape:  # the mean of an empty batch is NaN, and would stay
                self._move(mean, variance, reduce(mul, (x.shape[axis] for axis in axes)))
        else:
            mean, variance = (to_rank(each, x, 1) for each in (self.running_mean, self.running_var))
        return _normalise(x, mean, variance, to_rank(weight, x, 1), to_rank(bias, x, 1), self.eps, axes)

    def _move(self, mean: Tensor, variance: Tensor, count: Tensor | int) -> None:
        """Update the running statistics, the variance with the unbiased one of `count` values."""
        for running, batch in ((self.running_mean, mean), (self.running_var, variance * (count / (count - 1)))):
            running[...] = self.momentum * running + (1.0 - self.momentum) * F.reshape(batch, running.shape)


class LayerNorm(M.Module):
    """Layer norm over the channels of each position of (N, C, ...)."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = Parameter(np.ones(channels, np.float32)), Parameter(np.zeros(channels, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = _statistics(x.detach().astype("float32"), [1])
        return _normalise(x, mean, variance, to_rank(self.weight, x, 1), to_rank(self.bias, x, 1), self.eps, [1])


class Dropout(M.Dropout):
    """MegEngine's dropout; its gradient fails for an empty batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x._tuple_shape[0] else x


class DropPath(M.Module):
    """Stochastic depth: in training, zero a sample with probability `rate`, scale up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = F.dropout(F.ones_like(x.detach()[(slice(None), *[slice(1)] * (x.ndim - 1))]), self.rate)
        return x * kept


class Function(M.Module):
    """A function without parameters, as the module of its node. The node checks the shapes."""

    def __init__(self, node: spec.Node, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.spec, self.function, self.options = node, function, options

    def forward(self, *values: Tensor) -> Any:
        if not is_floating(values[0]):
            raise spec.dtype_error(self.spec, values[0].dtype)
        self.spec.out_shapes(*(value._tuple_shape for value in values))
        return self.function(*values, **self.options)

    def _module_info_string(self) -> str:
        return str(self.spec)


class Acon(Function):
    """`acon(x, p1, p2, beta)` with the slopes that its node fixes; the other gates are inputs."""

    def __init__(self, node: spec.Acon) -> None:
        super().__init__(node, acon)
        self.fixed = [value for value in (node.p1, node.p2) if value is not None]

    def _module_info_string(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in (("p1", self.spec.p1), ("p2", self.spec.p2)) if value is not None)

    def forward(self, x: Tensor, *gates: Tensor) -> Tensor:
        self.spec.out_shapes(*(value._tuple_shape for value in (x, *gates)))
        return acon(x, *self.fixed, *gates)


def flatten(x: Tensor) -> Tensor:
    """Reshape (N, C, ...) -> (N, C ...). MegEngine's own kills the process for an empty batch."""
    return F.flatten(x, 1) if x._tuple_shape[0] else F.reshape(x, (0, math.prod(x._tuple_shape[1:])))


def _as_image(x: Tensor) -> Tensor:
    """Reshape (N, C, 1, ...) of any rank -> (N, C, 1, 1)."""
    if x.ndim < 4:
        return F.expand_dims(x, list(range(x.ndim, 4)))
    return F.squeeze(x, list(range(4, x.ndim))) if x.ndim > 4 else x


def global_avg_pool(x: Tensor) -> Tensor:
    """Average over space: (N, C, ...) -> (N, C, 1, 1)."""
    return _as_image(_mean(x, range(2, x.ndim)))


def reduce_sample(x: Tensor, how: str) -> Tensor:
    """Sum or average over each sample: (N, C, ...) -> (N, 1, 1, 1)."""
    # One axis at a time, as in `_mean`.
    return _as_image(reduce(partial(F.sum if how == "sum" else F.mean, keepdims=True), range(1, x.ndim), x))


def add(x: Tensor, other: Tensor) -> Tensor:
    """Add two values of one shape."""
    return x + other


def channel_scale(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply (N, C, ...) by (N, C, 1, 1)."""
    return Rule(mul, lambda g, x, factor: (g * factor, g * x))(x, to_rank(factor, x, 1))


def concat(*values: Tensor) -> Tensor:
    """Concatenate along the channels."""
    return F.concat(values, 1)


def split(x: Tensor, parts: int, interleaved: bool) -> tuple[Tensor, ...]:
    """Split the channels into equal parts: every `parts`-th if interleaved, else blocks."""
    return tuple(x[:, part::parts] for part in range(parts)) if interleaved else tuple(F.split(x, parts, 1))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Move channel g C / groups + j to j groups + g, for any rank."""
    return F.flatten(F.stack(F.split(x, groups, 1), 2), 1, 2)


def move_axis(x: Tensor, source: int, destination: int) -> Tensor:
    """Move one axis; the others keep their order."""
    order = [axis for axis in range(x.ndim) if axis != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return F.transpose(x, order)


def flatten_to_one_channel(x: Tensor) -> Tensor:
    """Reshape (N, C, ...) -> (N, 1, C ...)."""
    return F.expand_dims(flatten(x), 1)


def reshape_like(x: Tensor, like: Tensor) -> Tensor:
    """Reshape x to the shape of `like`."""
    return F.reshape(x, like.shape)


class Graph(M.Module):
    """Run a spec graph line by line; children have their published names.

    `spec` is its node; `make` builds a child from its node and context. `graph[i]` is child i, in
    the published order, which `children()` does not keep. Raises SpecError for the name of an
    attribute of modules.
    """

    def __init__(self, node: spec.Node, make: Callable[[spec.Node, BuildContext], M.Module], context: BuildContext) -> None:
        super().__init__()
        self.spec, self.graph = node, spec.graph_of(node)
        for name in (*self.graph.params, *self.graph.children):
            if hasattr(self, name):
                raise SpecError(
                    f"{spec.join(context.path, name)}: a MegEngine module has an attribute {name!r}; rename the child"
                )
        for name, param in self.graph.params.items():
            if param.integer:  # MegEngine has no int64: the layout derives it from the spec
                continue
            # A Tensor that is not a Parameter is a buffer: in the state, but not trained.
            kind = Parameter if param.kind == "weight" else Tensor
            setattr(self, name, kind(np.zeros(param.shape, np.float32)))
        for name, child in self.graph.children.items():
            setattr(self, name, make(child, context.child(name)))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not is_floating(inputs[0]):
            raise spec.dtype_error(self.spec, inputs[0].dtype)
        graph = self.graph
        values: dict[str, Tensor] = dict(zip(graph.inputs, inputs, strict=True))
        values.update({name: getattr(self, name) for name, param in graph.params.items() if not param.integer})
        for step in graph.steps:
            results = getattr(self, step.child)(*(values[name] for name in step.inputs))
            values.update(zip(step.outputs, results if len(step.outputs) > 1 else (results,), strict=True))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if graph.single_output and len(outputs) == 1 else outputs

    def __getitem__(self, index: int) -> M.Module:
        return getattr(self, list(self.graph.children)[index])

    def __setitem__(self, index: int, module: M.Module) -> None:
        setattr(self, list(self.graph.children)[index], module)
