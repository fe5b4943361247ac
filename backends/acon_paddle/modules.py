"""What Paddle lacks or defines otherwise, as layers: norms, dropout, changes of shape, functions, the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.jit import not_to_static

from acon_core import spec
from acon_core.errors import OneValuePerChannelError
from acon_paddle import functional as F
from acon_paddle.arrays import constant, ensure, keep_trace


def _mean_over_space(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C). Added up in float64: in float32, Paddle's sum rounds so much that the means of a batch that
    differ by little, which is what a Meta-ACON generator normalises, lose two digits."""
    return x.flatten(2).astype("float64").mean(2).astype(x.dtype) if x.ndim > 2 else x


def _mean_over_channels(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, 1, ...)."""
    return x.astype("float64").mean(1, keepdim=True).astype(x.dtype)


def _mean(x: Tensor) -> Tensor:
    """(N, C, ...) -> (C,)."""
    return _mean_over_space(x).mean(0)


class BatchNorm(nn.Layer):
    """Batch normalisation of any rank >= 2: y = weight (x - mean) / sqrt(var + eps) + bias.

    `weight`, `bias`, and the buffers `_mean`, `_variance`: (C,). Training: the batch's mean and biased variance; then
    running = decay running + (1 - decay) batch, with the **unbiased** variance, where Paddle's own layer takes the biased
    one. Evaluation: the running values. `path`: where it stands in a network, for errors. (N, C, ...) -> the same.
    Raises OneValuePerChannelError in training when N times the space is 1, where Paddle's own layer returns x; under
    to_static with sizes left open, `_variance` becomes NaN instead.
    """

    def __init__(
        self, channels: int, eps: float = 1e-5, decay: float = 0.9, *, dtype: str | None = None, path: str = ""
    ) -> None:
        super().__init__()
        dtype = dtype or paddle.get_default_dtype()
        self.channels, self.eps, self.decay, self.path = channels, eps, decay, path
        self.weight = self.create_parameter([channels], dtype=dtype, default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([channels], dtype=dtype, is_bias=True)
        self.register_buffer("_mean", paddle.zeros([channels], dtype))
        self.register_buffer("_variance", paddle.ones([channels], dtype))

    @not_to_static
    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.ndim - 2)
        mean, variance = self._mean, self._variance
        if self.training:
            mean = _mean(x)
        centred = x - mean.reshape(shape)
        if self.training:
            variance = _mean(centred * centred)
            self._update(x, mean, variance)
        scale = self.weight / paddle.sqrt(variance + constant(self.eps, x))
        return centred * scale.reshape(shape) + self.bias.reshape(shape)

    def _update(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        if min(x.shape) > 0 and math.prod(x.shape) == self.channels:  # -1: a size that to_static leaves open
            keep_trace()
            raise OneValuePerChannelError.at(self.path, x.shape)
        # Not `detach`: it shares memory, which to_static then uses again, and the statistics are wrong without a word.
        with paddle.no_grad():
            count = (paddle.numel(x) // self.channels).astype(x.dtype)
            paddle.assign(paddle.lerp(self._mean, mean, 1 - self.decay), self._mean)
            paddle.assign(paddle.lerp(self._variance, variance * (count / (count - 1)), 1 - self.decay), self._variance)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, decay={self.decay}"


class LayerNorm(nn.Layer):
    """Normalisation over the channels of each position: y = weight (x - mean) / sqrt(var + eps) + bias, of any rank >= 2.

    `weight`, `bias`: (C,). Paddle's own layer takes the last axes, and keeps eps as float32. (N, C, ...) -> the same.
    """

    def __init__(self, channels: int, eps: float = 1e-5, *, dtype: str | None = None) -> None:
        super().__init__()
        dtype = dtype or paddle.get_default_dtype()
        self.channels, self.eps = channels, eps
        self.weight = self.create_parameter([channels], dtype=dtype, default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([channels], dtype=dtype, is_bias=True)

    @not_to_static
    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.ndim - 2)
        centred = x - _mean_over_channels(x)
        centred = centred - _mean_over_channels(centred)  # what rounding left of a large mean
        deviation = paddle.sqrt(_mean_over_channels(centred * centred) + constant(self.eps, x))
        return centred / deviation * self.weight.reshape(shape) + self.bias.reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class Function(nn.Layer):
    """A function of one value or more, with options, as a layer without parameters."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        # to_static counts the named arguments: `*values` alone would be none.
        return self.function(x, *more, **self.options)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{name}={value}" for name, value in self.options.items())])


@not_to_static
def _check_shapes(node: spec.Node, *values: Tensor) -> None:
    """A trace that leaves sizes open (-1) is of values that ran before, or fails in Paddle's own way."""
    shapes = [tuple(value.shape) for value in values]
    if not any(-1 in shape for shape in shapes):
        ensure(node.out_shapes, *shapes)


class Shaped(nn.Layer):
    """A function of a node and of values, whose shapes the node checks first: none broadcasts unasked."""

    def __init__(self, function: Callable[..., Tensor], node: spec.Node) -> None:
        super().__init__()
        self.function, self.spec = function, node

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        _check_shapes(self.spec, x, *more)
        return self.function(self.spec, x, *more)

    def extra_repr(self) -> str:
        return str(self.spec)


class Acon(nn.Layer):
    """`acon`, with `p1` and `p2` fixed where they are numbers; the gates that are not come after x."""

    def __init__(self, p1: float | None = None, p2: float | None = None) -> None:
        super().__init__()
        self.p1, self.p2 = p1, p2

    def forward(self, x: Tensor, *gates: Tensor) -> Tensor:
        numbers = [number for number in (self.p1, self.p2) if number is not None]
        return F.acon(x, *numbers, *gates)

    def extra_repr(self) -> str:
        return f"p1={self.p1}, p2={self.p2}"


class Linear(nn.Linear):
    """Paddle's own, over the channels of any rank. (N, in, ...) -> (N, out, ...)."""

    @not_to_static
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return super().forward(x)
        return super().forward(x.moveaxis(1, -1)).moveaxis(-1, 1)


class Dropout(nn.Dropout):
    """Paddle's own, divided by 1 - rate in the dtype of x: Paddle keeps the factor as float32. With axis 0, a whole sample."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return nn.functional.dropout(x, self.p, self.axis, mode="downscale_in_infer") / constant(1 - self.p, x)


@not_to_static
def global_avg_pool(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C, 1, 1): the mean over space, of any rank and size."""
    return _mean_over_space(x).unsqueeze([2, 3])


@not_to_static
def reduce_sample(x: Tensor, how: str) -> Tensor:
    """(N, C, ...) -> (N, 1, 1, 1): the sum or the mean of all of a sample."""
    flat = x.flatten(1).astype("float64")
    return (flat.sum(1) if how == "sum" else flat.mean(1)).astype(x.dtype).unsqueeze([1, 2, 3])


def add(node: spec.Add, x: Tensor, y: Tensor) -> Tensor:
    """The sum of two values of one shape."""
    return x + y


@not_to_static
def rescale(node: spec.ChannelScale, x: Tensor, factor: Tensor) -> Tensor:
    """x times a factor (N, C, 1, 1), of any rank."""
    return x * factor.flatten(2).reshape([*factor.shape[:2], *[1] * (x.ndim - 2)])


def concat(*values: Tensor) -> Tensor:
    """Values joined along the channels."""
    return paddle.concat(values, 1)


def as_one_channel(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, 1, all the rest)."""
    return x.flatten(1).unsqueeze(1)


@not_to_static
def shape_like(value: Tensor, like: Tensor) -> Tensor:
    """The first value in the shape of the second."""
    return value.reshape(paddle.shape(like))


class Split(nn.Layer):
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""

    def __init__(self, parts: int, interleaved: bool) -> None:
        super().__init__()
        self.parts, self.interleaved = parts, interleaved

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.interleaved:
            return tuple(x[:, part :: self.parts] for part in range(self.parts))
        return tuple(x.split(self.parts, 1))

    def extra_repr(self) -> str:
        return f"{self.parts}, interleaved={self.interleaved}"


class ChannelShuffle(nn.Layer):
    """Channel shuffle of any rank: channel g C / groups + j goes to j groups + g."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return paddle.stack(x.split(self.groups, 1), 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return str(self.groups)


@not_to_static
def _named(names: tuple[str, ...], values: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """A function, since to_static rewrites Graph.forward and knows no strict zip."""
    return dict(zip(names, values, strict=True))


@not_to_static
def _check_input(node: spec.Node, x: Tensor) -> None:
    """A function, since to_static makes a tensor of the shape where a size is left open."""
    ensure(spec.check_input, node, tuple(x.shape))


class Graph(nn.Layer):
    """Runs a spec graph: children under their published names, the program line by line.

    `spec` is the node that it stands for; `make` builds a child from its name and node. `graph[i]` is child i, as in
    `nn.Sequential`.
    """

    def __init__(self, node: spec.Graph | spec.Layer, make: Callable[[str, spec.Node], nn.Layer], dtype: str) -> None:
        super().__init__()
        self.spec = node
        self.graph = node.graph if isinstance(node, spec.Layer) else node
        for name, param in self.graph.params.items():
            if param.kind == "weight":
                self.add_parameter(name, self.create_parameter(list(param.shape), dtype=dtype))
            else:
                self.register_buffer(name, paddle.zeros(param.shape, "int64" if param.integer else dtype))
        for name, child in self.graph.children.items():
            self.add_sublayer(name, make(name, child))

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        # to_static counts the named arguments: `*inputs` alone would be none.
        _check_input(self.spec, x)
        graph = self.graph
        values = _named(graph.inputs, (x, *more))
        values.update({name: getattr(self, name) for name in graph.params})
        for step in graph.steps:
            made = self._sub_layers[step.child](*(values[name] for name in step.inputs))
            values.update(_named(step.outputs, made if len(step.outputs) > 1 else (made,)))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if graph.single_output and len(outputs) == 1 else outputs

    def __getitem__(self, index: int) -> nn.Layer:
        return list(self.children())[index]
