"""The activation classes: each is the graph of its spec, with initial values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Proxy

from acon_core import spec
from acon_core.frontend.from_spec import FromSpec, define_classes
from acon_torch import FRAMEWORK
from acon_torch.build import BuildContext, build, make
from acon_torch.gradient import upcast_half
from acon_torch.modules import Graph
from acon_torch.tracing import is_root, record, sizes


class Activation(FromSpec, Graph):
    """Base class of the activations. PyTorch's generator seeds the initial values."""

    framework = FRAMEWORK

    @staticmethod
    def _context(dtype: torch.dtype | None = None, device: torch.device | str | None = None, path: str = "") -> BuildContext:
        return BuildContext(dtype or torch.get_default_dtype(), path)

    def _assemble(self, node: spec.Activation, context: BuildContext) -> None:
        Graph.__init__(self, node, make, context)
        self.has_steps = node.has_steps  # torch.compile cannot trace the first use of a cached property

    def _draw(self, dtype: torch.dtype | None, device: torch.device | str | None, path: str) -> None:
        self.reset_parameters()
        if device is not None:
            self.to(device)

    def extra_repr(self) -> str:
        shapes = {name: tuple(each.shape) for name, each in self._parameters.items() if each is not None}
        return self._one_line(self._shown(self.spec, shapes))

    def __repr__(self) -> str:
        # On one line, as PyTorch's own activations are, unless a layer inside has parameters.
        layers = any(True for child in self.children() for _ in child.parameters())
        return super().__repr__() if layers else f"{self._get_name()}({self.extra_repr()})"

    def forward(self, input: Tensor) -> Tensor:  # the name that it has in PyTorch's activations
        if isinstance(input, Proxy):
            return self.run(input) if is_root(self, input) else record(self, input)
        spec.check_input(self.spec, sizes(input))
        # Between several functions, 16-bit values would be rounded, and could overflow.
        if not self.has_steps:
            return self.run(input)
        return self.run(upcast_half(input)[0]).to(input.dtype)

    forward.__annotations__ = Graph.forward.__annotations__


CLASSES = define_classes(Activation, build)
globals().update({kind.__name__: made for kind, made in CLASSES.items()})
