"""The activations as modules to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

import inspect
from dataclasses import replace
from inspect import Parameter, Signature
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_core.errors import SpecError
from acon_jax.arrays import canonical_shape
from acon_jax.build import BuildContext, build, make
from acon_jax.checkpoint.layout import layout
from acon_jax.functional import check_axis
from acon_jax.modules import Graph
from acon_jax.pointwise import widened

FRAMEWORK = (
    Parameter("dtype", Parameter.KEYWORD_ONLY, default=jnp.float32, annotation=DTypeLike),
    Parameter("rngs", Parameter.KEYWORD_ONLY, annotation=nnx.Rngs | None),
    Parameter("path", Parameter.KEYWORD_ONLY, default="", annotation=str),
)
"""What every activation takes beside its spec's fields."""

PARTICULAR = """
In JAX: {}
`channel_axis`, where there is one, counts the axes of x as given here: -1 for channels last. `dtype`: the parameters'.
`rngs`: for the initial values, `nnx.Rngs(0)`; None leaves zeros, to be loaded. `path`: where it stands, for errors.
"""


class Stream:
    """`acon_core.random.Stream` over nnx's random streams, so that a module can be made under jit and `nnx.eval_shape`."""

    def __init__(self, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.rngs, self.dtype = rngs, dtype

    def normal(self, shape: spec.Shape, std: float = 1.0) -> Array:
        return std * jax.random.normal(self.rngs.params(), shape, self.dtype)

    def uniform(self, shape: spec.Shape, low: float, high: float) -> Array:
        return jax.random.uniform(self.rngs.params(), shape, self.dtype, low, high)


class Activation(Graph):
    """The graph of an activation's spec, of type `kind`, with its initial values; zeros, to be loaded, where `rngs` is None."""

    _kind: ClassVar[type[spec.Activation]]
    _signature: ClassVar[Signature]
    classes: ClassVar[dict[type[spec.Node], type[Activation]]] = {}

    def __init_subclass__(cls, kind: type[spec.Activation] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind is not None:
            cls._kind, cls._signature = kind, spec.signature(kind, FRAMEWORK, channel_axis=-1)
            cls.__doc__ = f"{inspect.getdoc(kind)}\n{PARTICULAR.format(cls.__doc__)}"
            Activation.classes[kind] = cls
            build.register(kind)(lambda node, place: cls(node, dtype=place.dtype, rngs=None, path=place.path))
        if "__init__" not in vars(cls):
            cls.__signature__ = cls._signature

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Our own rules pass the spec itself, which may have its channels at any axis; users pass its fields.
        from_spec = bool(args) and isinstance(args[0], self._kind)
        given = (_FROM_SPEC if from_spec else self._signature).bind(*args, **kwargs)
        given.apply_defaults()
        values = given.arguments
        dtype, rngs, path = (values.pop(parameter.name) for parameter in FRAMEWORK)
        self._channel_axis = values.pop("channel_axis", -1)
        node = values["node"] if from_spec else self._kind(**values)
        # The node with its axes counted as in x, for `check_input`; a spec's own axis is one of (N, C, ...).
        counted = isinstance(node, spec.ChannelwiseActivation) and node.channel_axis == 1
        self._native = replace(node, channel_axis=self._channel_axis) if counted else None
        # One function alone widens 16 bits itself and keeps x as it is; between several, values would be rounded to 16 bits.
        (x,), outputs = node.graph.inputs, node.graph.outputs
        self._wide = [step.outputs for step in node.graph.steps if x in step.inputs] != [outputs]
        place = BuildContext(dtype, path)
        super().__init__(node, lambda name, child: make(child, place.child(name)), dtype, path)
        if rngs is not None:
            initial = {
                native: slot.to_native(jnp.asarray(param.init.draw(param.shape, Stream(rngs, dtype)), dtype))
                for _, param, native, slot in layout.table(node)
                if native is not None and slot is not None
            }
            nnx.update(self, unflatten_dict(initial, sep="."))

    def __call__(self, x: Array, *, rngs: nnx.Rngs | None = None, taps: dict[str, Array] | None = None) -> Any:
        if self._native is not None:
            spec.check_input(self._native, x.shape)
        else:
            spec.check_input(self._spec, canonical_shape(x.shape))
        check_axis(x.shape, self._channel_axis)
        last = jnp.moveaxis(x, self._channel_axis, -1)
        y = super().__call__(widened(last) if self._wide else last, rngs=rngs, taps=taps)
        return jnp.moveaxis(y.astype(x.dtype), -1, self._channel_axis)


_FROM_SPEC = Signature(
    [
        Parameter("node", Parameter.POSITIONAL_ONLY),
        Parameter("channel_axis", Parameter.KEYWORD_ONLY, default=-1),
        *FRAMEWORK,
    ]
)


class AconA(Activation, kind=spec.AconA):
    """`beta` is (C,); keeps its input and parameters alone for the backward pass."""


class AconB(Activation, kind=spec.AconB):
    """`p2`, `beta` are (C,); keeps its input and parameters alone for the backward pass."""


class AconC(Activation, kind=spec.AconC):
    """`p1`, `p2`, `beta` are (C,); keeps its input and parameters alone for the backward pass."""


class MetaAconC(Activation, kind=spec.MetaAconC):
    """`p1`, `p2` are (C,), the kernels (1, 1, in, out), those of `bn1` and `bn2` `scale`, `bias`, `mean`, `var`."""


class FReLU(Activation, kind=spec.FReLU):
    """images are (N, H, W, C), `conv_frelu.kernel` (3, 3, 1, C)."""


class AconFReLU(Activation, kind=spec.AconFReLU):
    """images are (N, H, W, C), `conv_frelu.kernel` (3, 3, 1, C)."""


class RepAct(Activation, kind=spec.RepAct):
    """variants 1 and 2 keep their input and parameters alone for the backward pass."""


class FusedRepAct(Activation, kind=spec.FusedRepAct):
    """keeps its input and parameters alone for the backward pass."""


class Swish(Activation, kind=spec.Swish):
    """`weight` is a Param (1,), where `nnx.swish` has a fixed 1."""


class PReLU(Activation, kind=spec.PReLU):
    """`weight` is (1,) or (C,), initially 0.25, where `nnx.PReLU` has one `negative_slope`, 0.01, and gradient 1 at 0."""


class AReLU(Activation, kind=spec.AReLU):
    """keeps its input and parameters alone for the backward pass."""


class DyReLU(Activation, kind=spec.DyReLU):
    """`lambdas` and `init_v` are in the state, of type `Derived`, and not among `nnx.Param`."""


def activation(
    name: str,
    channels: int | None = None,
    *,
    channel_axis: int = -1,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs | None = None,
    path: str = "",
    **options: Any,
) -> nnx.Module:
    """The activation of a name as a module: `activation("meta_acon", 64, rngs=nnx.Rngs(0))`, `activation("gelu")`.

    `name`: of `acon_core.spec.ACTIVATIONS` or a published table's alias, capitals and underscores aside, with options
    in brackets if need be: `dyrelu(variant=B)`. `channels`: for those that know their width; ignored by others, as is
    `channel_axis`, where x has its channels. `dtype`: the parameters'. `rngs`: for the initial values of those that have
    parameters. `path`: where it stands, for errors. `options`: fields of the activation, such as `level="pixel"`.
    Returns an instance of its public class, such as MetaAconC, or a module without parameters.
    Raises SpecError for a name, an option, a value or an axis that does not exist, and where `rngs` is missing.
    """
    node = spec.activation(name, channels, **options)
    if not isinstance(node, spec.Activation):
        return make(node, BuildContext(dtype, path))
    if rngs is None:
        raise SpecError(f"activation {name!r} has parameters: pass rngs=nnx.Rngs(0) for their initial values")
    place = {"channel_axis": channel_axis} if isinstance(node, spec.ChannelwiseActivation) else {}
    return Activation.classes[type(node)](node, dtype=dtype, rngs=rngs, path=path, **place)
