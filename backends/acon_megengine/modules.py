"""What MegEngine lacks, defines otherwise or gets wrong, as modules: biases, norms, functions of a node, the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial, reduce
from operator import add, mul
from typing import Any

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Parameter, Tensor

from acon_core import spec
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_megengine import pointwise, tokens
from acon_megengine.functional import (
    acon,
    attention_slopes,
    branches,
    collapse_branches,
    dynamic_maximum,
    maximum,
    slopes,
    smooth_maximum,
)
from acon_megengine.gradient import custom, shift_by, to_rank


def _mean(x: Tensor, axes: Sequence[int]) -> Tensor:
    # One axis at a time: MegEngine adds along all that it is given in one long sum.
    return reduce(partial(F.mean, keepdims=True), reversed(axes), x)


def _statistics(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the axes."""
    mean = _mean(x, axes)
    away = x - mean
    return mean, _mean(away * away, axes)


def _normalise(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, axes: Sequence[int]
) -> Tensor:
    """weight (x - mean) / sqrt(variance + eps) + bias. The statistics are those of x over `axes`; without axes, constants."""

    def value(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return (x - mean) * (weight * (variance + eps) ** -0.5) + bias

    def gradient(
        g: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor | None, ...]:
        if axes:  # made from x anew, so that a gradient of this gradient sees them
            mean, variance = _statistics(x, axes)
        inverse = (variance + eps) ** -0.5
        normal, told = (x - mean) * inverse, g * weight
        through = _mean(told, axes) + normal * _mean(told * normal, axes) if axes else 0.0
        return (told - through) * inverse, None, None, g * normal, g

    return custom(value, gradient, x, mean, variance, weight, bias)


class Conv2d(M.Conv2d):
    """MegEngine's own, with a gradient of the bias that is right in every run (see `sum_to`), and one for an empty batch."""

    def forward(self, x: Tensor) -> Tensor:
        convolve = partial(self.calc_conv, bias=None)
        if x._tuple_shape[0]:
            y = convolve(x, self.weight)
        else:  # MegEngine's way back from nothing ends the process
            y = custom(convolve, lambda g, *given: [F.zeros_like(each) for each in given], x, self.weight)
        return y if self.bias is None else shift_by(y, self.bias)


class BatchNorm(M.BatchNorm2d):
    """MegEngine's parameters and state, for any rank, with the error that all four frameworks share for one value per channel.

    There MegEngine's would put 0 out and make `running_var` NaN for good. Its kernel for CPU also adds all values of a channel
    in one long float32 sum: of three million, as RepAct III has them, the result is off by 1e-3 (1.13.0). This one is not, and
    takes half the time. Gradients are right in every run (see `sum_to`).
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
            if 0 not in x._tuple_shape:  # the mean of nothing is NaN, and would stay
                self._move(mean, variance, reduce(mul, (x.shape[axis] for axis in axes)))
        else:
            mean, variance = (to_rank(each, x, 1) for each in (self.running_mean, self.running_var))
        return _normalise(x, mean, variance, to_rank(weight, x, 1), to_rank(bias, x, 1), self.eps, axes)

    def _move(self, mean: Tensor, variance: Tensor, count: Tensor | int) -> None:
        """The running statistics one step on; the variance of `count` values is made unbiased."""
        for running, batch in ((self.running_mean, mean), (self.running_var, variance * (count / (count - 1)))):
            running[...] = self.momentum * running + (1.0 - self.momentum) * F.reshape(batch, running.shape)


class Linear(M.Linear):
    """MegEngine's own over axis 1 of any rank, with a gradient of the bias that is right in every run (see `sum_to`)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return self._of_rows(x)
        # Every position a row, for one product of matrices: one a sample would sum the weight's gradient over the batch.
        _, _, *space = spec.Linear(self.in_features, self.out_features).out_shapes(x._tuple_shape)[0]
        rows = F.reshape(move_axis(x, 1, -1), (-1, self.in_features))
        return move_axis(F.reshape(self._of_rows(rows), (-1, *space, self.out_features)), -1, 1)

    def _of_rows(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        return y if self.bias is None else shift_by(y, to_rank(self.bias, y, 1))


class LayerNorm(M.Module):
    """Normalisation over the channels, axis 1, of each position."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = Parameter(np.ones(channels, np.float32)), Parameter(np.zeros(channels, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = _statistics(x.detach().astype("float32"), [1])
        return _normalise(x, mean, variance, to_rank(self.weight, x, 1), to_rank(self.bias, x, 1), self.eps, [1])


class Dropout(M.Dropout):
    """MegEngine's own, whose way back from an empty batch is an error."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x._tuple_shape[0] else x


class DropPath(M.Module):
    """Stochastic depth: in training, each sample is zero with probability `rate`, else divided by 1 - rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = F.dropout(F.ones_like(x.detach()[(slice(None), *[slice(1)] * (x.ndim - 1))]), self.rate)
        return x * kept


def flat(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, all the rest). MegEngine's flatten kills the process on an empty batch."""
    return F.flatten(x, 1) if x._tuple_shape[0] else F.reshape(x, (0, math.prod(x._tuple_shape[1:])))


def _as_image(x: Tensor) -> Tensor:
    """(N, C, 1, ...) of any rank -> (N, C, 1, 1)."""
    if x.ndim < 4:
        return F.expand_dims(x, list(range(x.ndim, 4)))
    return F.squeeze(x, list(range(4, x.ndim))) if x.ndim > 4 else x


def global_avg_pool(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C, 1, 1): the mean over space, of any rank and size."""
    return _as_image(_mean(x, range(2, x.ndim)))


def rescale(x: Tensor, factor: Tensor) -> Tensor:
    """(N, C, ...) times (N, C, 1, 1)."""
    return custom(mul, lambda g, x, factor: (g * factor, g * x), x, to_rank(factor, x, 1))


def concat(*values: Tensor) -> Tensor:
    """Values joined along the channels."""
    return F.concat(values, 1)


def split(x: Tensor, parts: int, interleaved: bool) -> tuple[Tensor, ...]:
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""
    return tuple(x[:, part::parts] for part in range(parts)) if interleaved else tuple(F.split(x, parts, 1))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle: y[:, j groups + g] = x[:, g C / groups + j]."""
    return F.flatten(F.stack(F.split(x, groups, 1), 2), 1, 2)


def reduce_sample(x: Tensor, how: str) -> Tensor:
    """(N, C, ...) -> (N, 1, 1, 1): the sum or the mean over all of a sample."""
    # One axis at a time, as in `_mean`.
    return _as_image(reduce(partial(F.sum if how == "sum" else F.mean, keepdims=True), range(1, x.ndim), x))


def move_axis(x: Tensor, source: int, destination: int) -> Tensor:
    """One axis moved to another place, the others in their order."""
    order = [axis for axis in range(x.ndim) if axis != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return F.transpose(x, order)


def as_one_channel(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, 1, all the rest)."""
    return F.expand_dims(flat(x), 1)


def shape_like(x: Tensor, like: Tensor) -> Tensor:
    """The first value in the shape of the second."""
    return F.reshape(x, like.shape)


def _acon(x: Tensor, *gates: Tensor, p1: float | None, p2: float | None) -> Tensor:
    """The fixed gates put where the spec has them, the taken ones in the other places."""
    taken = iter(gates)
    return acon(x, *(next(taken) if fixed is None else fixed for fixed in (p1, p2, None)))


def _branches(*values: Tensor, shift: bool) -> Tensor:
    """Whether a shift is among the values, their number tells."""
    return branches(*values)


FUNCTIONS: dict[type[spec.Node], Callable[..., Any]] = {
    spec.GlobalAvgPool: global_avg_pool,
    spec.Flatten: flat,
    spec.Add: add,
    spec.ChannelScale: rescale,
    spec.Concat: concat,
    spec.Split: split,
    spec.ChannelShuffle: shuffle,
    spec.ReduceSample: reduce_sample,
    spec.MoveAxis: move_axis,
    spec.FlattenToOneChannel: as_one_channel,
    spec.ReshapeLike: shape_like,
    **{kind: getattr(pointwise, name) for name, kind in spec.ACTIVATIONS.items() if issubclass(kind, spec.Elementwise)},
    spec.Acon: _acon,
    spec.SmoothMaximum: smooth_maximum,
    spec.Maximum: maximum,
    spec.PReLUFunction: slopes,
    spec.AReLUFunction: attention_slopes,
    spec.RepActCoefficients: collapse_branches,
    spec.RepActFunction: _branches,
    spec.DynamicMaximum: dynamic_maximum,
    spec.ImageSize: tokens.image_size,
    spec.PadToMultiple: tokens.pad_to_multiple,
    spec.FlattenSpace: tokens.flatten_space,
    spec.PrependToken: tokens.prepend_token,
    spec.AddPosition: tokens.add_position,
    spec.SelectToken: tokens.select_token,
    spec.SpaceToDepth: tokens.space_to_channels,
    spec.Attention: tokens.attention,
    spec.WindowPartition: tokens.window_partition,
    spec.WindowAttention: tokens.window_attention,
    spec.WindowReverse: tokens.window_merge,
}
"""What a node without parameters computes: `function(*values, **its fields)`."""


class Apply(M.Module):
    """A node without parameters, `spec`: its function of FUNCTIONS, with the node's fields as keywords."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.spec = node

    def forward(self, *values: Tensor) -> Any:
        node = self.spec
        node.out_shapes(*(value._tuple_shape for value in values))  # what would only broadcast is refused
        return FUNCTIONS[type(node)](*values, **{each.name: getattr(node, each.name) for each in fields(node)})

    def _module_info_string(self) -> str:
        return str(self.spec)


class Graph(M.Module):
    """Runs a spec graph: children under their published names, the program line by line.

    `spec` is the node that it stands for; `make` builds a child from its name and node. `graph[i]` is child i in the
    published order, which `children()` does not keep. Raises SpecError for a name that an attribute of modules has.
    """

    def __init__(self, node: spec.Graph | spec.Layer, make: Callable[[str, spec.Node], M.Module]) -> None:
        super().__init__()
        self.spec = node
        self.graph = node.graph if isinstance(node, spec.Layer) else node
        for name in (*self.graph.params, *self.graph.children):
            if hasattr(self, name):
                raise SpecError(f"Graph: {name!r} is an attribute of every MegEngine module; give the child another name")
        for name, param in self.graph.params.items():
            if param.integer:  # derived: MegEngine has no int64, and the layout makes it again from the spec
                continue
            # A tensor that is no Parameter is a buffer: in the state, and not trained.
            kind = Parameter if param.kind == "weight" else Tensor
            setattr(self, name, kind(np.zeros(param.shape, np.float32)))
        for name, child in self.graph.children.items():
            setattr(self, name, make(name, child))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        graph = self.graph
        values: dict[str, Tensor] = dict(zip(graph.inputs, inputs, strict=True))
        values.update({name: getattr(self, name) for name, param in graph.params.items() if not param.integer})
        for step in graph.steps:
            made = getattr(self, step.child)(*(values[name] for name in step.inputs))
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=True))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if graph.single_output and len(outputs) == 1 else outputs

    def __getitem__(self, index: int) -> M.Module:
        return getattr(self, list(self.graph.children)[index])
