"""What PyTorch lacks or defines otherwise, as modules: norms, functions under their spec, and the one graph runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from acon_core import spec
from acon_core.errors import OneValuePerChannelError
from acon_torch import functional as F
from acon_torch.gradient import wide


class Conv2d(nn.Conv2d):
    """PyTorch's own, in the dtype of its input: 16-bit weights beside an input that was made wide."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return self._conv_forward(input, self.weight.to(input.dtype), bias)


class Linear(nn.Linear):
    """PyTorch's own, over the channels of (N, C, ...), in the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return nn.functional.linear(input.movedim(1, -1), self.weight.to(input.dtype), bias).movedim(-1, 1)


class DropPath(nn.Module):
    """In training, a sample is zero with probability `rate`, else divided by 1 - rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        dropped = torch.rand((x.shape[0], *(1,) * (x.ndim - 1)), device=x.device) < self.rate
        return torch.where(dropped, 0.0, x / (1.0 - self.rate))  # masked_fill would lose the order in memory

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's own, for any rank, in the dtype of its input, with the error that all four frameworks share for one value per
    channel in training."""

    path = ""

    def forward(self, input: Tensor) -> Tensor:
        if input.dtype == self.weight.dtype:
            return super().forward(input)
        self._check_input_dim(input)
        running, affine = (
            [each.to(input.dtype) for each in pair]
            for pair in ((self.running_mean, self.running_var), (self.weight, self.bias))
        )
        y = nn.functional.batch_norm(input, *running, *affine, self.training, self.momentum, self.eps)
        if self.training:
            with torch.no_grad():
                self.running_mean.copy_(running[0])
                self.running_var.copy_(running[1])
                self.num_batches_tracked.add_(1)
        return y

    def _check_input_dim(self, input: Tensor) -> None:
        if self.training and input.numel() == input.shape[1]:
            raise OneValuePerChannelError.at(self.path, tuple(input.shape))


class LayerNorm(nn.LayerNorm):
    """PyTorch's own, over the channels of each position of (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        # PyTorch's kernel subtracts the mean last, from products: what x has in common must be gone before.
        x, weight, bias = wide(input, self.weight, self.bias)
        centred = (x - x.mean(1, keepdim=True)).movedim(1, -1)
        y = nn.functional.layer_norm(centred, self.normalized_shape, weight, bias, self.eps)
        return y.movedim(-1, 1).to(input.dtype)


class Function(nn.Module):
    """A function of one value or more without parameters, as the module of the node that it computes."""

    def __init__(self, node: spec.Node, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.spec, self.function, self.options = node, function, options

    def forward(self, *values: Tensor) -> Any:
        self.spec.out_shapes(*(value.shape for value in values))
        return self.function(*values, **self.options)

    def extra_repr(self) -> str:
        return str(self.spec)


class Acon(nn.Module):
    """The activation `acon(x, p1, p2, beta)`, without parameters of its own; `p1`, `p2` are numbers where they are fixed."""

    def __init__(self, node: spec.Acon) -> None:
        super().__init__()
        self.spec = node
        self.fixed = tuple(value for value in (node.p1, node.p2) if value is not None)

    def forward(self, x: Tensor, *gates: Tensor) -> Tensor:
        return F.acon(x, *self.fixed, *gates)

    def extra_repr(self) -> str:
        return str(self.spec)


def global_avg_pool(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C, 1, 1): the mean over space, of any rank and size."""
    # Added up in float64: compiled code adds in one line, and a generator's norm divides what differs by almost nothing.
    return x.flatten(2).mean(2, dtype=torch.float64).to(x.dtype)[:, :, None, None] if x.ndim > 2 else x[:, :, None, None]


def rescale(x: Tensor, factor: Tensor) -> Tensor:
    """(N, C, ...) times its factors (N, C, 1, 1)."""
    return x * factor.reshape(*x.shape[:2], *(1,) * (x.ndim - 2))


def concat(*values: Tensor) -> Tensor:
    """Values joined along the channels."""
    return torch.cat(values, 1)


def reduce_sample(x: Tensor, how: str) -> Tensor:
    """(N, C, ...) -> (N, 1, 1, 1): the sum or the mean over all of a sample."""
    flat = x.flatten(1)
    return (flat.mean(1) if how == "mean" else flat.sum(1))[:, None, None, None]


def as_one_channel(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, 1, C ...)."""
    return x.flatten(1).unsqueeze(1)


def split(x: Tensor, parts: int, interleaved: bool) -> tuple[Tensor, ...]:
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""
    if interleaved:
        return tuple(x[:, part::parts] for part in range(parts))
    return torch.chunk(x, parts, 1)


class Graph(nn.Module):
    """Runs a spec graph: children under their published names, the program line by line.

    `spec` is the node that it stands for; `make` builds a child from its name and node. `graph[i]` is child i, as in
    `nn.Sequential`.
    """

    def __init__(self, node: spec.Graph | spec.Layer, make: Callable[[str, spec.Node], nn.Module], dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = node
        self.graph = node.graph if isinstance(node, spec.Layer) else node
        for name, param in self.graph.params.items():
            values = torch.empty(param.shape, dtype=torch.int64 if param.integer else dtype)
            if param.kind == "weight":
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)
        for name, child in self.graph.children.items():
            self.add_module(name, make(name, child))

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        graph = self.graph
        values: dict[str, Tensor] = dict(zip(graph.inputs, (x, *more), strict=True))
        values.update({name: getattr(self, name) for name in graph.params})
        for step in graph.steps:
            made = self._modules[step.child](*(values[name] for name in step.inputs))  # type: ignore[misc]
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=True))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if graph.single_output and len(outputs) == 1 else outputs

    def __getitem__(self, index: int) -> nn.Module:
        return list(self.children())[index]
