"""What Paddle lacks or defines differently, as layers and functions; and the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.jit import not_to_static

from acon_core import spec
from acon_core.building import BuildContext
from acon_core.errors import OneValuePerChannelError
from acon_paddle import functional as F
from acon_paddle.arrays import constant
from acon_paddle.gradient import ensure, is_floating, keep_trace, upcast_half


@not_to_static
def _merged(x: Tensor, first: int) -> Tensor:
    """Merge the axes from `first` on. `flatten` does the same, without a second derivative."""
    kept, merged = x.shape[:first], x.shape[first:]
    # -1 is a size that to_static leaves open, and 0 keeps it. An empty batch has neither.
    return x.reshape([0 if size == -1 else size for size in kept] + [-1 if -1 in merged else math.prod(merged)])


def _mean_over_space(x: Tensor) -> Tensor:
    """Average (N, C, ...) -> (N, C).

    In float64: in float32, Paddle's sum rounds so much that means that differ by little, which the
    generator of Meta-ACON normalises, lose two digits.
    """
    return _merged(x, 2).astype("float64").mean(2).astype(x.dtype) if x.ndim > 2 else x


def _mean_over_channels(x: Tensor) -> Tensor:
    """Average (N, C, ...) -> (N, 1, ...)."""
    return x.astype("float64").mean(1, keepdim=True).astype(x.dtype)


def _mean(x: Tensor) -> Tensor:
    """Average (N, C, ...) -> (C,)."""
    return _mean_over_space(x).mean(0)


class Linear(nn.Linear):
    """Paddle's linear layer over axis 1 of (N, C, ...)."""

    @not_to_static
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return super().forward(x)
        return super().forward(x.moveaxis(1, -1)).moveaxis(-1, 1)


class _Norm(nn.Layer):
    """Parameters of a norm: `weight` and `bias`, (C,)."""

    def __init__(self, channels: int, eps: float, dtype: str | None) -> None:
        super().__init__()
        self.channels, self.eps, self.dtype = channels, eps, dtype or paddle.get_default_dtype()
        self.weight = self.create_parameter([channels], dtype=self.dtype, default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([channels], dtype=self.dtype, is_bias=True)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class BatchNorm(_Norm):
    """Batch norm for any rank; the running variance is unbiased, where Paddle's own is biased.

    Buffers `_mean`, `_variance`: (C,). `path` is its place in a network, for errors. 16-bit values
    are computed in float32, and the statistics keep their own dtype. In training it raises
    OneValuePerChannelError for one value per channel, where Paddle's own returns x; under to_static
    with sizes left open, `_variance` becomes NaN instead. An empty batch leaves them as they are.
    """

    def __init__(
        self, channels: int, eps: float = 1e-5, decay: float = 0.9, *, dtype: str | None = None, path: str = ""
    ) -> None:
        super().__init__(channels, eps, dtype)
        self.decay, self.path = decay, path
        self.register_buffer("_mean", paddle.zeros([channels], self.dtype))
        self.register_buffer("_variance", paddle.ones([channels], self.dtype))

    @not_to_static
    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.ndim - 2)
        from_batch = self.training and 0 not in x.shape
        wide, weight, bias, mean, variance = upcast_half(x, self.weight, self.bias, self._mean, self._variance)
        running = mean, variance
        if from_batch:
            mean = _mean(wide)
        centred = wide - mean.reshape(shape)
        if from_batch:
            variance = _mean(centred * centred)
            self._update(wide, running, mean, variance)
        scale = weight / paddle.sqrt(variance + constant(self.eps, wide))
        return (centred * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)

    def _update(self, x: Tensor, running: tuple[Tensor, Tensor], mean: Tensor, variance: Tensor) -> None:
        if min(x.shape) > 0 and math.prod(x.shape) == self.channels:  # -1 is a size that to_static leaves open
            keep_trace()
            raise OneValuePerChannelError.at(self.path, x.shape)
        # Not `detach`: to_static reuses the memory that it shares, and statistics are wrong.
        with paddle.no_grad():
            count = (paddle.numel(x) // self.channels).astype(x.dtype)
            batch = mean, variance * (count / (count - 1))
            for own, old, new in zip((self._mean, self._variance), running, batch, strict=True):
                moved = paddle.lerp(old, new, 1 - self.decay)
                if -1 in x.shape:
                    moved = paddle.where(count > 0, moved, old)
                paddle.assign(moved.astype(own.dtype), own)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, decay={self.decay}"


class LayerNorm(_Norm):
    """Layer norm over the channels of each position of (N, C, ...).

    Paddle's own takes the last axes, and keeps eps as float32.
    """

    def __init__(self, channels: int, eps: float = 1e-5, *, dtype: str | None = None) -> None:
        super().__init__(channels, eps, dtype)

    @not_to_static
    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.ndim - 2)
        wide, weight, bias = upcast_half(x, self.weight, self.bias)
        centred = wide - _mean_over_channels(wide)
        centred = centred - _mean_over_channels(centred)  # what remains of a large mean after rounding
        deviation = paddle.sqrt(_mean_over_channels(centred * centred) + constant(self.eps, wide))
        return (centred / deviation * weight.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


class Dropout(nn.Dropout):
    """Paddle's dropout, scaled in the dtype of x: Paddle keeps the factor as float32.

    With axis 0, it drops whole samples.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return nn.functional.dropout(x, self.p, self.axis, mode="downscale_in_infer") / constant(1 - self.p, x)


@not_to_static
def _check_shapes(node: spec.Node, *values: Tensor) -> None:
    """Check shapes, unless a trace leaves sizes open (-1): those values have run before."""
    if not is_floating(values[0]):
        keep_trace()
        raise spec.dtype_error(node, values[0].dtype)
    shapes = [tuple(value.shape) for value in values]
    if not any(-1 in shape for shape in shapes):
        ensure(node.out_shapes, *shapes)


class Function(nn.Layer):
    """A function without parameters, as the layer of its node. The node checks the shapes."""

    def __init__(self, node: spec.Node, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.spec, self.function, self.options = node, function, options

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        # to_static counts the named parameters: `*values` alone would be none.
        _check_shapes(self.spec, x, *more)
        return self.function(x, *more, **self.options)

    def extra_repr(self) -> str:
        return str(self.spec)


class Acon(Function):
    """`acon(x, p1, p2, beta)` with the slopes that its node fixes; the other gates are inputs."""

    def __init__(self, node: spec.Acon) -> None:
        super().__init__(node, F.acon)
        self.fixed = [value for value in (node.p1, node.p2) if value is not None]

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in (("p1", self.spec.p1), ("p2", self.spec.p2)) if value is not None)

    def forward(self, x: Tensor, *gates: Tensor) -> Tensor:
        return F.acon(x, *self.fixed, *gates)


@not_to_static
def global_avg_pool(x: Tensor) -> Tensor:
    """Average over space: (N, C, ...) -> (N, C, 1, 1)."""
    return _mean_over_space(x).unsqueeze([2, 3])


@not_to_static
def reduce_sample(x: Tensor, how: str) -> Tensor:
    """Sum or average over each sample: (N, C, ...) -> (N, 1, 1, 1)."""
    flat = _merged(x, 1).astype("float64")
    return (flat.sum(1) if how == "sum" else flat.mean(1)).astype(x.dtype).unsqueeze([1, 2, 3])


def add(x: Tensor, other: Tensor) -> Tensor:
    """Add two values of one shape."""
    return x + other


@not_to_static
def channel_scale(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply (N, C, ...) by (N, C, 1, 1)."""
    return x * factor.reshape([*factor.shape[:2], *[1] * (x.ndim - 2)])


def concat(*values: Tensor) -> Tensor:
    """Concatenate along the channels."""
    return paddle.concat(values, 1)


@not_to_static
def split(x: Tensor, parts: int, interleaved: bool) -> tuple[Tensor, ...]:
    """Split the channels into equal parts: every `parts`-th if interleaved, else blocks."""
    return tuple(x[:, part::parts] for part in range(parts)) if interleaved else tuple(x.split(parts, 1))


@not_to_static
def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Move channel g C / groups + j to j groups + g, for any rank."""
    return paddle.stack(x.split(groups, 1), 2).flatten(1, 2)


def move_axis(x: Tensor, source: int, destination: int) -> Tensor:
    """Move one axis; the others keep their order."""
    return paddle.moveaxis(x, source, destination)


def flatten_to_one_channel(x: Tensor) -> Tensor:
    """Reshape (N, C, ...) -> (N, 1, C ...)."""
    return _merged(x, 1).unsqueeze(1)


@not_to_static
def reshape_like(x: Tensor, like: Tensor) -> Tensor:
    """Reshape x to the shape of `like`."""
    return x.reshape(paddle.shape(like))


@not_to_static
def _named(names: tuple[str, ...], values: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Zip strictly, outside of Graph.forward: to_static rewrites that and knows no strict zip."""
    return dict(zip(names, values, strict=True))


@not_to_static
def _check_input(node: spec.Node, x: Tensor) -> None:
    """Check the input outside of Graph.forward, where to_static makes a tensor of an open shape."""
    if not is_floating(x):
        keep_trace()
        raise spec.dtype_error(node, x.dtype)
    ensure(spec.check_input, node, tuple(x.shape))


class Graph(nn.Layer):
    """Run a spec graph line by line; children have their published names.

    `spec` is its node; `make` builds a child from its node and context. `graph[i]` is child i, as
    in `nn.Sequential`.
    """

    def __init__(self, node: spec.Node, make: Callable[[spec.Node, BuildContext], nn.Layer], context: BuildContext) -> None:
        super().__init__()
        self.spec, self.graph = node, spec.graph_of(node)
        for name, param in self.graph.params.items():
            if param.kind == "weight":
                self.add_parameter(name, self.create_parameter(list(param.shape), dtype=context.dtype))
            else:
                self.register_buffer(name, paddle.zeros(param.shape, "int64" if param.integer else context.dtype))
        for name, child in self.graph.children.items():
            self.add_sublayer(name, make(child, context.child(name)))

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        # to_static counts the named parameters: `*inputs` alone would be none.
        _check_input(self.spec, x)
        graph = self.graph
        values = _named(graph.inputs, (x, *more))
        values.update({name: getattr(self, name) for name in graph.params})
        for step in graph.steps:
            results = self._sub_layers[step.child](*(values[name] for name in step.inputs))
            values.update(_named(step.outputs, results if len(step.outputs) > 1 else (results,)))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if graph.single_output and len(outputs) == 1 else outputs

    def __getitem__(self, index: int) -> nn.Layer:
        return getattr(self, list(self.graph.children)[index])

    def __setitem__(self, index: int, module: nn.Layer) -> None:
        setattr(self, list(self.graph.children)[index], module)
