"""The activation classes: each is the graph of its spec, with initial values."""

from __future__ import annotations

import paddle

from acon_core import spec
from acon_core.frontend.from_spec import FromSpec, define_classes
from acon_paddle import FRAMEWORK
from acon_paddle.build import BuildContext, build, make
from acon_paddle.checkpoint.layout import layout
from acon_paddle.modules import Graph


class Activation(FromSpec, Graph):
    """Base class of the activations. Paddle's generator seeds the initial values."""

    framework = FRAMEWORK

    @staticmethod
    def _context(dtype: str | None = None, path: str = "") -> BuildContext:
        return BuildContext(dtype or paddle.get_default_dtype(), path)

    def _assemble(self, node: spec.Activation, context: BuildContext) -> None:
        Graph.__init__(self, node, make, context)

    def _draw(self, dtype: str | None, path: str) -> None:
        seed = int(paddle.randint(0, 2**31 - 1, [1]).item())
        initial = spec.initial_state(self.spec, seed, self._context(dtype).dtype)
        self.set_state_dict(dict(layout.to_native(self.spec, initial)))

    def extra_repr(self) -> str:
        shapes = {name: tuple(each.shape) for name, each in self._parameters.items()}
        return self._one_line(self._shown(self.spec, shapes))

    def __repr__(self) -> str:
        # On one line, as Paddle's own activations are, unless a layer inside has parameters.
        layers = any(child.parameters() for child in self.children())
        return super().__repr__() if layers else f"{type(self).__name__}({self.extra_repr()})"


CLASSES = define_classes(Activation, build)
globals().update({kind.__name__: made for kind, made in CLASSES.items()})
