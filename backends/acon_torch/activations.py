"""The activation classes: each is the graph of its spec, with initial values."""

from __future__ import annotations

import torch
from torch import Tensor

from acon_core import spec
from acon_core.frontend.from_spec import FromSpec, define_classes
from acon_torch import FRAMEWORK
from acon_torch.arrays import to_tensor
from acon_torch.build import BuildContext, build, make
from acon_torch.gradient import upcast_half
from acon_torch.modules import Graph


class Activation(FromSpec, Graph):
    """Base class of the activations. Initial values are drawn from a seed that PyTorch's generator gives."""

    framework = FRAMEWORK

    @staticmethod
    def _context(dtype: torch.dtype | None = None, device: torch.device | str | None = None, path: str = "") -> BuildContext:
        return BuildContext(dtype or torch.get_default_dtype(), path)

    def _assemble(self, node: spec.Activation, context: BuildContext) -> None:
        Graph.__init__(self, node, make, context)
        self.has_steps = node.has_steps

    def _draw(self, dtype: torch.dtype | None, device: torch.device | str | None, path: str) -> None:
        seed = int(torch.randint(2**62, (), device="cpu"))
        initial = spec.initial_state(self.spec, seed, "float64")
        own = self.state_dict()
        self.load_state_dict({path: to_tensor(array).to(own[path].dtype) for path, array in initial.items()})
        self.to(device)

    def forward(self, x: Tensor) -> Tensor:
        spec.check_input(self.spec, x.shape)
        # Between several functions, 16-bit values would be rounded, and could overflow.
        y: Tensor = super().forward(upcast_half(x)[0] if self.has_steps else x)
        return y.to(x.dtype)


CLASSES = define_classes(Activation, build)
globals().update({kind.__name__: made for kind, made in CLASSES.items()})
