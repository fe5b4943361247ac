"""The activations as modules to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

import inspect
from inspect import Parameter, Signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acon_core import spec
from acon_torch.arrays import to_tensor
from acon_torch.build import BuildContext, build, make
from acon_torch.gradient import upcast_half
from acon_torch.modules import Graph

_OWN = (
    Parameter("dtype", Parameter.KEYWORD_ONLY, default=None, annotation="torch.dtype | None"),
    Parameter("device", Parameter.KEYWORD_ONLY, default=None, annotation="torch.device | str | None"),
    Parameter("path", Parameter.KEYWORD_ONLY, default="", annotation="str"),
)
_OWN_TEXT = "`dtype`, `device`: of the parameters, PyTorch's defaults unless given. `path`: where it stands, for errors."


class Activation(Graph):
    """An activation of the spec as a module; initial values are drawn from a seed that PyTorch's generator gives.

    `class AconC(Activation, kind=spec.AconC)` takes the spec's options and docstring, and is what its spec is built as.
    """

    kind: ClassVar[type[spec.Activation]]
    __signature__: ClassVar[Signature]

    def __init_subclass__(cls, kind: type[spec.Activation] | None = None) -> None:
        super().__init_subclass__()
        if kind is None:  # a user's subclass of one of ours
            return
        cls.kind, cls.__signature__ = kind, spec.signature(kind, _OWN)
        cls.__doc__ = "\n\n".join([inspect.cleandoc(kind.__doc__ or ""), inspect.cleandoc(cls.__doc__ or ""), _OWN_TEXT])
        build.register(kind)(cls._of)

    def __init__(self, *values: Any, **options: Any) -> None:
        given = self.__signature__.bind(*values, **options).arguments
        dtype, device, path = (given.pop(own.name, None) for own in _OWN)
        self._take(self.kind(**given), BuildContext(dtype or torch.get_default_dtype(), path or ""))
        initialise(self, device)

    def _take(self, node: spec.Activation, place: BuildContext) -> None:
        super().__init__(node, make, place)

    def forward(self, x: Tensor) -> Tensor:
        spec.check_input(self.spec, x.shape)
        # What is no single function would round, and overflow in float16, from one to the next.
        y: Tensor = super().forward(upcast_half(x)[0] if _has_steps(self.spec) else x)
        return y.to(x.dtype)

    @classmethod
    def _of(cls, node: spec.Activation, place: BuildContext) -> Activation:
        """The module of a spec in a network, whose values come from elsewhere: none are drawn."""
        module = cls.__new__(cls)
        module._take(node, place)
        return module


def _has_steps(node: spec.Node) -> bool:
    """Whether an activation is several functions of x in turn, with values between them."""
    several = spec.MetaAconC | spec.FReLU | spec.AconFReLU | spec.DyReLU
    return isinstance(node, several) or (isinstance(node, spec.RepAct) and node.variant == 3)


def initialise(module: Graph, device: torch.device | str | None) -> None:
    """Give a module the initial values of its spec, and put it on a device."""
    seed = int(torch.randint(2**62, (), device="cpu"))
    initial = spec.initial_state(module.spec, seed, "float64")
    own = module.state_dict()
    module.load_state_dict({path: to_tensor(array).to(own[path].dtype) for path, array in initial.items()})
    module.to(device)


class AconA(Activation, kind=spec.AconA):
    """It keeps its input and parameters alone for the backward pass."""


class AconB(Activation, kind=spec.AconB):
    """It keeps its input and parameters alone for the backward pass."""


class AconC(Activation, kind=spec.AconC):
    """It keeps its input and parameters alone for the backward pass."""


class MetaAconC(Activation, kind=spec.MetaAconC):
    """Beside its input it keeps, of that size, nothing for the backward pass, but for level `pixel`, whose beta is as large."""


class FReLU(Activation, kind=spec.FReLU):
    """`bn_frelu` is a `torch.nn.BatchNorm2d`, so that SyncBatchNorm's conversion finds it."""


class AconFReLU(Activation, kind=spec.AconFReLU):
    """`bn1` and `bn2` are `torch.nn.BatchNorm2d`, so that SyncBatchNorm's conversion finds them."""


class RepAct(Activation, kind=spec.RepAct):
    """For the backward pass it keeps its input, parameters and three numbers; variant 3 also what its norm does."""


class FusedRepAct(Activation, kind=spec.FusedRepAct):
    """It keeps its input and parameters alone for the backward pass."""


class Swish(Activation, kind=spec.Swish):
    """It keeps its input and parameters alone for the backward pass."""


class PReLU(Activation, kind=spec.PReLU):
    """As `torch.nn.PReLU`, whose state dict it loads; with channels at any axis."""


class AReLU(Activation, kind=spec.AReLU):
    """It keeps its input and parameters alone for the backward pass."""


class DyReLU(Activation, kind=spec.DyReLU):
    """`lambdas` and `init_v` are buffers. Of the size of its input it keeps nothing else for the backward pass."""


def activation(
    name: str,
    channels: int | None = None,
    *,
    channel_axis: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    path: str = "",
    **options: Any,
) -> nn.Module:
    """The activation of a name with its initial values: `activation("meta_acon", 64, level="pixel")`, `activation("LReLU")`.

    `name`: as in `acon list activations`, or an alias of the published tables, capitals and underscores aside; options may
    stand in it, `dyrelu(variant=B)`. `channels`: for those that know their width, and ignored by others, as is
    `channel_axis`, where they are in x. `dtype`, `device`: of the parameters. `path`: where it stands, for errors.
    `options`: as of its class.
    Returns an instance of the public class (`MetaAconC`, ...), or a module without parameters for functions of each element.
    Raises SpecError for a name, an option or a value that does not exist, or a width that is missing.
    """
    node = spec.activation(name, channels, channel_axis=channel_axis, **options)
    module = make(node, BuildContext(dtype or torch.get_default_dtype(), path))
    if isinstance(module, Activation):
        initialise(module, device)
    return module
