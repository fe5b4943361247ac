"""The activation classes: each is the graph of its spec, with initial values."""

from __future__ import annotations

from typing import Any

from megengine import Tensor, random

from acon_core import spec
from acon_core.frontend.from_spec import FromSpec, define_classes
from acon_megengine import FRAMEWORK
from acon_megengine.arrays import set_state
from acon_megengine.build import BuildContext, build, make
from acon_megengine.checkpoint.layout import layout
from acon_megengine.modules import Graph


class Activation(FromSpec, Graph):
    """Base class of the activations. MegEngine's generator seeds the initial values."""

    framework = FRAMEWORK

    @staticmethod
    def _context(path: str = "") -> BuildContext:
        return BuildContext("float32", path)

    def _assemble(self, node: spec.Activation, context: BuildContext) -> None:
        Graph.__init__(self, node, make, context)

    def _draw(self, path: str) -> None:
        seed = int(random.uniform(0, 2**24, (1,)).item())
        set_state(self, layout.to_native(self.spec, spec.initial_state(self.spec, seed)))

    def _module_info_string(self) -> str:
        shapes = {name: each._tuple_shape for name, each in self.named_parameters(recursive=False)}
        return self._one_line(self._shown(self.spec, shapes))

    def __repr__(self) -> str:
        # On one line, as MegEngine's own activations are, unless a layer inside has parameters.
        layers = any(True for child in self.children() for _ in child.parameters())
        return super().__repr__() if layers else f"{type(self).__name__}({self._module_info_string()})"

    def forward(self, x: Tensor) -> Any:
        spec.check_input(self.spec, x._tuple_shape)
        return super().forward(x)


CLASSES = define_classes(Activation, build)
globals().update({kind.__name__: made for kind, made in CLASSES.items()})
