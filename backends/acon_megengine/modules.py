"""What MegEngine lacks, defines otherwise or gets wrong, as modules: biases, BatchNorm, shuffle, split, the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Parameter, Tensor
from megengine.autodiff import Function

from acon_core import spec
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_megengine.functional import acon, sum_to


def _flat_space(x: Tensor) -> Tensor:
    """(N, C, ...) of any rank as (N, C, S)."""
    return F.flatten(F.expand_dims(x, -1), 2)


class _Shift(Function):
    """x + bias, with the gradient of the bias that `sum_to` has right; one call an instance."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        self.bias = bias
        return x + bias

    def backward(self, g: Tensor) -> tuple[Tensor, Tensor]:
        return g, sum_to(g, self.bias)


class _Normalise(Function):
    """weight (x - mean) inverse + bias, likewise; `mean` and `inverse`, the statistics, take no gradient."""

    def forward(self, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        self.saved = (x, mean, inverse, weight, bias)
        return (x - mean) * (weight * inverse) + bias

    def backward(self, g: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, weight, bias = self.saved
        dweight = sum_to(g * ((x - mean) * inverse), weight)
        return g * (weight * inverse), None, None, dweight, sum_to(g, bias)


class Conv2d(M.Conv2d):
    """MegEngine's own, with a gradient of the bias that is right in every run (see `sum_to`)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.calc_conv(x, self.weight, None)
        return y if self.bias is None else _Shift()(y, self.bias)


class BatchNorm(M.BatchNorm2d):
    """MegEngine's own in training; for any rank, and with the error that all four frameworks share for one value per channel.

    There MegEngine's would put 0 out and make `running_var` NaN for good. In evaluation, gradients are right in every run
    (see `sum_to`).
    """

    path = ""

    def forward(self, x: Tensor) -> Tensor:
        from_batch = self.training and not self.freeze
        if from_batch and math.prod(x._tuple_shape) == x._tuple_shape[1]:
            raise OneValuePerChannelError.at(self.path, x._tuple_shape)
        if x.ndim != 4:
            return self.forward(F.expand_dims(_flat_space(x), -1)).reshape(x.shape)
        if self.training or self.freeze:
            return super().forward(x)
        inverse = (self.running_var + self.eps) ** -0.5
        return _Normalise()(x, self.running_mean, inverse, self.weight, self.bias)


class Acon(M.Module):
    """The activation `acon(x, p1, p2, beta)`, without parameters of its own."""

    def forward(self, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        return acon(x, p1, p2, beta)


class GlobalAvgPool(M.Module):
    """(N, C, ...) -> (N, C, 1, 1): the mean over space, of any rank and size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.expand_dims(F.mean(_flat_space(x), 2, keepdims=True), -1)


class Flatten(M.Module):
    """(N, C, H, W) -> (N, C H W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, 1)


class Concat(M.Module):
    """Values joined along the channels."""

    def forward(self, *values: Tensor) -> Tensor:
        return F.concat(values, 1)


class Split(M.Module):
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""

    def __init__(self, parts: int, interleaved: bool) -> None:
        super().__init__()
        self.parts, self.interleaved = parts, interleaved

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.interleaved:
            return tuple(x[:, part :: self.parts] for part in range(self.parts))
        return tuple(F.split(x, self.parts, 1))

    def _module_info_string(self) -> str:
        return f"{self.parts}, interleaved={self.interleaved}"


class Shuffle(M.Module):
    """Channel shuffle: y[:, j groups + g] = x[:, g C / groups + j]."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(F.stack(F.split(x, self.groups, 1), 2), 1, 2)

    def _module_info_string(self) -> str:
        return f"{self.groups}"


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
            setattr(self, name, Parameter(np.zeros(param.shape, np.float32)))
        for name, child in self.graph.children.items():
            setattr(self, name, make(name, child))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        graph = self.graph
        values: dict[str, Tensor] = dict(zip(graph.inputs, inputs, strict=True))
        values.update({name: getattr(self, name) for name in graph.params})
        for step in graph.steps:
            made = getattr(self, step.child)(*(values[name] for name in step.inputs))
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=True))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def __getitem__(self, index: int) -> M.Module:
        return getattr(self, list(self.graph.children)[index])
