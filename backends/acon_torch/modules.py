"""What PyTorch lacks or defines differently, as modules and functions; and the graph runner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.fx import Proxy

from acon_core import spec
from acon_core.building import BuildContext
from acon_core.errors import OneValuePerChannelError
from acon_core.spec.sizes import OPEN
from acon_torch.functional import acon
from acon_torch.gradient import HALF, upcast_half
from acon_torch.tokens import WindowAttention
from acon_torch.tracing import call_as_leaf, record_function, sizes


class Conv2d(nn.Conv2d):
    """PyTorch's convolution in the dtype of its input: 16-bit weights may meet an upcast input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return self._conv_forward(input, self.weight.to(input.dtype), bias)


class Linear(nn.Linear):
    """PyTorch's linear layer over axis 1 of (N, C, ...), in the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return nn.functional.linear(input.movedim(1, -1), self.weight.to(input.dtype), bias).movedim(-1, 1)


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's batch norm for any rank; its own tensors may have another dtype than the input.

    It computes in the wider dtype; the result has that of the input, and statistics keep theirs. In
    training it raises the error that all backends share for one value per channel, and an empty
    batch leaves the statistics as they are.
    """

    path = ""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and 0 in sizes(input):
            return self._scale(input)
        kept = next((each.dtype for each in (self.running_mean, self.weight) if each is not None), input.dtype)
        # PyTorch takes 16-bit inputs beside float32, and no other mixture.
        if kept == input.dtype or (kept == torch.float32 and input.dtype in HALF):
            return super().forward(input)
        self._check_input_dim(input)
        dtype = torch.promote_types(kept, input.dtype)
        moved = self.training and self.track_running_stats and self.running_mean is not None
        used = moved or not self.training
        mean, var, weight, bias = (
            each if each is None else each.to(dtype)
            for each in (self.running_mean if used else None, self.running_var if used else None, self.weight, self.bias)
        )
        step = self.momentum
        if moved:
            self.num_batches_tracked.add_(1)
            step = 1.0 / float(self.num_batches_tracked) if step is None else step
        y = nn.functional.batch_norm(
            input.to(dtype), mean, var, weight, bias, self.training or mean is None, step or 0.0, self.eps
        )
        if moved:
            with torch.no_grad():
                self.running_mean.copy_(mean)
                self.running_var.copy_(var)
        return y.to(input.dtype)

    def _scale(self, empty: Tensor) -> Tensor:
        """Return an empty batch, with gradients of 0 for the parameters."""
        if self.weight is None:
            return empty.clone()
        weight, bias = (each.reshape(-1, *(1,) * (empty.ndim - 2)) for each in (self.weight, self.bias))
        return (empty * weight + bias).to(empty.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if not self.training:
            return
        # PyTorch decides on the same product, also where a tracer leaves sizes open.
        shape = input.shape if OPEN in sizes(input) else sizes(input)
        if shape[0] * math.prod(shape[2:]) == 1:
            raise OneValuePerChannelError.at(self.path, tuple(shape))


class LayerNorm(nn.LayerNorm):
    """PyTorch's layer norm over the channels of each position of (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        # PyTorch's kernel subtracts the mean from products: remove a common offset first.
        x, weight, bias = upcast_half(input, self.weight, self.bias)
        centred = (x - x.mean(1, keepdim=True)).movedim(1, -1)
        y = nn.functional.layer_norm(centred, self.normalized_shape, weight, bias, self.eps)
        return y.movedim(-1, 1).to(input.dtype)


class DropPath(nn.Module):
    """Stochastic depth: in training, zero a sample with probability `rate`, scale up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        dropped = torch.rand((x.shape[0], *(1,) * (x.ndim - 1)), device=x.device) < self.rate
        return torch.where(dropped, 0.0, x / (1.0 - self.rate))  # masked_fill would lose the memory order

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Function(nn.Module):
    """A function without parameters, as the module of its node. The node checks the shapes."""

    def __init__(self, node: spec.Node, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.spec, self.function, self.options = node, function, options

    def forward(self, input: Tensor, *more: Tensor) -> Any:
        values = (input, *more)
        if isinstance(values[0], Proxy):
            return record_function(self, self.function, values, self.options)
        if not values[0].is_floating_point():
            raise spec.dtype_error(self.spec, values[0].dtype)
        self.spec.out_shapes(*map(sizes, values))
        return self.function(*values, **self.options)

    def extra_repr(self) -> str:
        return str(self.spec)


class Acon(nn.Module):
    """`acon(x, p1, p2, beta)` with the slopes that its node fixes; the other gates are inputs."""

    def __init__(self, node: spec.Acon) -> None:
        super().__init__()
        self.spec = node
        self.fixed = tuple(value for value in (node.p1, node.p2) if value is not None)

    def forward(self, x: Tensor, *gates: Tensor) -> Tensor:
        return acon(x, *self.fixed, *gates)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in (("p1", self.spec.p1), ("p2", self.spec.p2)) if value is not None)


def global_avg_pool(x: Tensor) -> Tensor:
    """Average over space: (N, C, ...) -> (N, C, 1, 1)."""
    # In float64: compiled code adds in one pass, and a generator's norm amplifies rounding.
    return x.flatten(2).mean(2, dtype=torch.float64).to(x.dtype)[:, :, None, None] if x.ndim > 2 else x[:, :, None, None]


def reduce_sample(x: Tensor, how: str) -> Tensor:
    """Sum or average over each sample: (N, C, ...) -> (N, 1, 1, 1)."""
    flat = x.flatten(1)
    return (flat.mean(1) if how == "mean" else flat.sum(1))[:, None, None, None]


def add(x: Tensor, other: Tensor) -> Tensor:
    """Add two values of one shape."""
    return x + other


def channel_scale(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply (N, C, ...) by (N, C, 1, 1)."""
    return x * factor.reshape(*x.shape[:2], *(1,) * (x.ndim - 2))


def concat(*values: Tensor) -> Tensor:
    """Concatenate along the channels."""
    return torch.cat(values, 1)


def split(x: Tensor, parts: int, interleaved: bool) -> tuple[Tensor, ...]:
    """Split the channels into equal parts: every `parts`-th if interleaved, else blocks."""
    if interleaved:
        return tuple(x[:, part::parts] for part in range(parts))
    return torch.chunk(x, parts, 1)


def move_axis(x: Tensor, source: int, destination: int) -> Tensor:
    """Move one axis; the others keep their order."""
    return torch.movedim(x, source, destination)


def flatten_to_one_channel(x: Tensor) -> Tensor:
    """Reshape (N, C, ...) -> (N, 1, C ...)."""
    return x.flatten(1).unsqueeze(1)


def reshape_like(x: Tensor, like: Tensor) -> Tensor:
    """Reshape x to the shape of `like`."""
    return x.reshape_as(like)


def _call_traced(module: Any, values: Sequence[Any], step: spec.Step) -> Any:
    """Call a child in a trace of `torch.fx`: our layers are leaves of it, as PyTorch's are."""
    is_leaf = type(module).__module__.split(".")[0] == __package__ and type(module) not in (Graph, GraphOfSeveral)
    result = call_as_leaf(module, *values) if is_leaf else module(*values)
    return result if len(step.outputs) == 1 else [result[index] for index in range(len(step.outputs))]


class Graph(nn.Module):
    """Run a spec graph line by line; children have their published names.

    `spec` is its node; `make` builds a child from its node and context. `graph[i]` is child i, as
    in `nn.Sequential`.
    """

    def __init__(self, node: spec.Node, make: Callable[[spec.Node, BuildContext], nn.Module], context: BuildContext) -> None:
        super().__init__()
        self.spec, self.graph = node, spec.graph_of(node)
        for name, param in self.graph.params.items():
            values = torch.empty(param.shape, dtype=torch.int64 if param.integer else context.dtype)
            if param.kind == "weight":
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)
        for name, child in self.graph.children.items():
            self.add_module(name, make(child, context.child(name)))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.run(x)

    # torch.fx writes what stands here into code, and can pickle no string.
    forward.__annotations__ = {"x": Tensor}  # noqa: RUF012

    def run(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the program."""
        graph, modules = self.graph, self._modules
        values: dict[str, Tensor] = dict(zip(graph.inputs, inputs, strict=True))
        for name in graph.params:
            values[name] = getattr(self, name)
        traced = isinstance(inputs[0], Proxy)
        if not traced and not inputs[0].is_floating_point():
            raise spec.dtype_error(self.spec, inputs[0].dtype)
        for step in graph.steps:
            child, arguments = modules[step.child], [values[name] for name in step.inputs]
            results = _call_traced(child, arguments, step) if traced else child(*arguments)  # type: ignore[misc]
            if len(step.outputs) == 1:
                values[step.outputs[0]] = results
            else:
                values.update(zip(step.outputs, results, strict=True))
        if graph.single_output and len(graph.outputs) == 1:
            return values[graph.outputs[0]]
        return tuple(values[name] for name in graph.outputs)

    def __getitem__(self, index: int) -> nn.Module:
        return getattr(self, list(self.graph.children)[index])

    def __setitem__(self, index: int, module: nn.Module) -> None:
        setattr(self, list(self.graph.children)[index], module)

    def reset_parameters(self) -> None:
        """Draw initial values again, from a seed that PyTorch's generator gives.

        All values are set, those of buffers included, so that a module of `to_empty` is filled.
        """
        drawn = torch.randint(2**62, (), device="cpu")
        if isinstance(drawn, FakeTensor):
            return  # there are no values
        with torch.no_grad():
            for path, array in spec.initial_state(self.spec, int(drawn), "float64").items():
                module, _, name = path.rpartition(".")
                getattr(self.get_submodule(module), name).copy_(torch.from_numpy(array))
        for module in self.modules():
            if isinstance(module, WindowAttention):
                module.reset_parameters()


class GraphOfSeveral(Graph):
    """A graph with several inputs. `torch.fx` cannot trace a variable number of them."""

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        return self.run(*inputs)
