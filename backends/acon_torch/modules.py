"""What PyTorch lacks or defines otherwise, as modules: the clear BatchNorm error, channel split, and the one graph runner."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acon_core import spec
from acon_core.errors import OneValuePerChannelError
from acon_torch import functional as F


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's own, for any rank, with the error that all four frameworks share for one value per channel in training."""

    path = ""

    def _check_input_dim(self, input: Tensor) -> None:
        if self.training and input.numel() == input.shape[1]:
            raise OneValuePerChannelError.at(self.path, tuple(input.shape))


class Acon(nn.Module):
    """The activation `acon(x, p1, p2, beta)`, without parameters of its own."""

    def forward(self, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        return F.acon(x, p1, p2, beta)


class GlobalAvgPool(nn.Module):
    """(N, C, ...) -> (N, C, 1, 1): the mean over space, of any rank and size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)[:, :, None, None] if x.ndim > 2 else x[:, :, None, None]


class Concat(nn.Module):
    """Values joined along the channels."""

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, 1)


class Split(nn.Module):
    """The channels in equal parts: every `parts`-th from i on when interleaved, else consecutive runs."""

    def __init__(self, parts: int, interleaved: bool) -> None:
        super().__init__()
        self.parts, self.interleaved = parts, interleaved

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.interleaved:
            return tuple(x[:, part :: self.parts] for part in range(self.parts))
        return torch.chunk(x, self.parts, 1)

    def extra_repr(self) -> str:
        return f"{self.parts}, interleaved={self.interleaved}"


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
            self.register_parameter(name, nn.Parameter(torch.empty(param.shape, dtype=dtype)))
        for name, child in self.graph.children.items():
            self.add_module(name, make(name, child))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        graph = self.graph
        values: dict[str, Tensor] = dict(zip(graph.inputs, inputs, strict=True))
        values.update({name: getattr(self, name) for name in graph.params})
        for step in graph.steps:
            made = self._modules[step.child](*(values[name] for name in step.inputs))  # type: ignore[misc]
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=True))
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def __getitem__(self, index: int) -> nn.Module:
        return list(self.children())[index]
