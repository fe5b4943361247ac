"""The activations as layers to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

import inspect
from inspect import Parameter, Signature
from typing import Any

import paddle
from paddle import nn

from acon_core import spec
from acon_paddle.build import BuildContext, below, build, make
from acon_paddle.checkpoint.layout import layout
from acon_paddle.modules import Graph

_OWN = (
    Parameter("dtype", Parameter.KEYWORD_ONLY, default=None, annotation="str | None"),
    Parameter("path", Parameter.KEYWORD_ONLY, default="", annotation="str"),
)


class Activation(Graph):
    """The graph of an activation's spec, with initial values drawn from a seed that Paddle's generator gives.

    A subclass names its spec's type, whose fields are its parameters. It is also what that spec is built as. One that names
    none is a user's, of one of ours.
    """

    kind: type[spec.Activation]
    __signature__: Signature

    def __init_subclass__(cls, *, kind: type[spec.Activation] | None = None) -> None:
        super().__init_subclass__()
        if kind is None:
            return
        cls.kind, cls.__signature__ = kind, spec.signature(kind, _OWN)
        cls.__doc__ = f"{inspect.getdoc(kind)}\n\n{inspect.getdoc(cls)}"
        build.register(kind)(cls.of)

    def __init__(self, *args: Any, **options: Any) -> None:
        given = self.__signature__.bind(*args, **options)
        given.apply_defaults()
        values = given.arguments
        place = BuildContext(values.pop("dtype") or paddle.get_default_dtype(), values.pop("path"))
        node = self.kind(**values)
        super().__init__(node, below(place), place.dtype)
        _start(self, node, place.dtype)

    @classmethod
    def of(cls, node: spec.Activation, place: BuildContext) -> Activation:
        """The layer of a spec, as Paddle starts parameters: their values are yet to be set."""
        layer = cls.__new__(cls)
        Graph.__init__(layer, node, below(place), place.dtype)
        return layer


def _start(layer: nn.Layer, node: spec.Node, dtype: str) -> None:
    """Set the initial values, drawn from a seed that Paddle's generator gives."""
    seed = int(paddle.randint(0, 2**31 - 1, [1]).item())
    layer.set_state_dict(dict(layout.to_native(node, spec.initial_state(node, seed, dtype))))


class AconA(Activation, kind=spec.AconA):
    """`dtype`: of the parameters, `float32` or `float64`. `path`: where it stands in a network, for errors. Keeps its input
    and parameters alone for the backward pass; can be differentiated once (see `acon`)."""


class AconB(Activation, kind=spec.AconB):
    """`dtype`, `path`, the backward pass: as for AconA."""


class AconC(Activation, kind=spec.AconC):
    """`dtype`, `path`, the backward pass: as for AconA."""


class MetaAconC(Activation, kind=spec.MetaAconC):
    """`dtype`, `path`: as for AconA. Can be differentiated once. The generator's BatchNorm is ours, whose running variance is
    the unbiased one."""


class FReLU(Activation, kind=spec.FReLU):
    """`dtype`, `path`: as for AconA. Its BatchNorm is ours, whose running variance is the unbiased one."""


class AconFReLU(Activation, kind=spec.AconFReLU):
    """`dtype`, `path`: as for AconA. Can be differentiated once. Its BatchNorms are ours, whose running variance is the
    unbiased one."""


class RepAct(Activation, kind=spec.RepAct):
    """`dtype`, `path`: as for AconA. Keeps its input and a few numbers for the backward pass, variant 3 what its norm needs;
    can be differentiated once."""


class FusedRepAct(Activation, kind=spec.FusedRepAct):
    """`dtype`, `path`, the backward pass: as for AconA."""


class Swish(Activation, kind=spec.Swish):
    """`dtype`, `path`, the backward pass: as for AconA. `paddle.nn.Swish` is SiLU: it learns nothing."""


class PReLU(Activation, kind=spec.PReLU):
    """`dtype`, `path`, the backward pass: as for AconA. What is `_weight` in `paddle.nn.PReLU` is `weight` here."""


class AReLU(Activation, kind=spec.AReLU):
    """`dtype`, `path`, the backward pass: as for AconA."""


class DyReLU(Activation, kind=spec.DyReLU):
    """`dtype`, `path`: as for AconA. Can be differentiated once. `lambdas`, `init_v`: buffers, in the state and not trained."""


def activation(
    name: str,
    channels: int | None = None,
    *,
    channel_axis: int = 1,
    dtype: str | None = None,
    path: str = "",
    **options: Any,
) -> nn.Layer:
    """The activation of a name as a layer: `activation("meta_acon", 64, level="pixel")`, `activation("LReLU", slope=0.2)`.

    `name`: of `acon_core.spec.ACTIVATIONS` or `ALIASES`, capitals and underscores aside, also with options,
    `"dyrelu(variant=B)"`. `channels`, `channel_axis`: for those that know their width, ignored by others. `dtype`: of the
    parameters, else Paddle's default. `path`: where it stands in a network, for errors. `options`: fields of its spec.
    Returns an instance of the public class (`MetaAconC`, ...) with initial values, or a layer without parameters.
    Raises SpecError for a name, an option or a value that does not exist, and where `channels` is needed and not given.
    """
    node = spec.activation(name, channels, channel_axis=channel_axis, **options)
    place = BuildContext(dtype or paddle.get_default_dtype(), path)
    layer = make(node, place)
    _start(layer, node, place.dtype)
    return layer
