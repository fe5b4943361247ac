"""The activations as modules to put into a network of one's own: each is its spec's graph under a name."""

# ruff: noqa: D101  (a public class has its docstring from its spec)

from __future__ import annotations

import inspect
from typing import Any

import megengine.module as M
from megengine import Tensor, random

from acon_core import spec
from acon_megengine.build import BuildContext, build, make
from acon_megengine.checkpoint.layout import layout
from acon_megengine.modules import Graph

_HERE = """
`path`: where in a network it stands, for errors. float32 parameters; 16-bit inputs are computed in float32. For the backward
pass each function in it keeps its arguments alone. MegEngine's kernels swallow NaN: so does this."""


_OWN = (inspect.Parameter("path", inspect.Parameter.KEYWORD_ONLY, default="", annotation="str"),)


class Activation(Graph):
    """The graph of an activation's spec. A subclass names it, `class AconC(Activation, kind=spec.AconC)`.

    From that it has its signature, its docstring and the rule that builds it. Its constructor draws initial values from a
    seed that MegEngine's generator gives; built from a spec, it is left for a state to be loaded.
    """

    kind: type[spec.Activation]

    def __init_subclass__(cls, kind: type[spec.Activation] | None = None) -> None:
        super().__init_subclass__()
        if kind is None:
            return
        cls.kind, cls.__signature__ = kind, spec.signature(kind, _OWN)  # type: ignore[attr-defined]
        cls.__doc__ = f"{inspect.getdoc(kind)}\n{_HERE}"
        build.register(kind)(cls._of)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = self.__signature__.bind(*args, **kwargs).arguments  # type: ignore[attr-defined]
        path = given.pop("path", "")
        self._assemble(self.kind(**given), path)
        self.start()

    def forward(self, x: Tensor) -> Any:
        spec.check_input(self.spec, x._tuple_shape)
        return super().forward(x)

    @classmethod
    def _of(cls, node: spec.Layer, place: BuildContext) -> Activation:
        made = cls.__new__(cls)
        made._assemble(node, place.path)
        return made

    def _assemble(self, node: Any, path: str) -> None:
        super().__init__(node, lambda name, child: make(child, BuildContext(spec.join(path, name))))

    def start(self) -> None:
        """Set every parameter to an initial value of the spec, drawn anew."""
        seed = int(random.uniform(0, 2**24, (1,)).item())
        self.load_state_dict(dict(layout.to_native(self.spec, spec.initial_state(self.spec, seed))))


class AconA(Activation, kind=spec.AconA): ...


class AconB(Activation, kind=spec.AconB): ...


class AconC(Activation, kind=spec.AconC): ...


class MetaAconC(Activation, kind=spec.MetaAconC): ...


class FReLU(Activation, kind=spec.FReLU): ...


class AconFReLU(Activation, kind=spec.AconFReLU): ...


class RepAct(Activation, kind=spec.RepAct): ...


class FusedRepAct(Activation, kind=spec.FusedRepAct): ...


class Swish(Activation, kind=spec.Swish): ...


class PReLU(Activation, kind=spec.PReLU): ...


class AReLU(Activation, kind=spec.AReLU): ...


class DyReLU(Activation, kind=spec.DyReLU): ...


def activation(name: str, channels: int | None = None, *, channel_axis: int = 1, path: str = "", **options: Any) -> M.Module:
    """The activation of a name as a module: `activation("meta_acon", 64, level="pixel")`, `activation("LReLU")`.

    `name`: of `acon_core.spec.ACTIVATIONS` or ALIASES (`acon list activations` prints them), capitals and underscores aside,
    or one with options, `dyrelu(variant=B)`. `channels`: C, for those that know their width; the others ignore it, as they
    do `channel_axis`: 1 for (N, C, ...), -1 for (N, ..., C). `path`: where in a network it stands, for errors. `options`: the
    activation's own.
    Returns an instance of the public class with its initial values, or the module of a function without parameters.
    Raises SpecError for a name, an option or a value that does not exist, or where `channels` is needed and not given.
    """
    made = make(spec.activation(name, channels, channel_axis=channel_axis, **options), BuildContext(path))
    if isinstance(made, Activation):
        made.start()
    return made
