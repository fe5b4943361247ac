"""The activation classes: each is the graph of its spec, with initial values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import reprlib
from flax.traverse_util import unflatten_dict
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_core.frontend.from_spec import FromSpec, define_classes
from acon_jax import FRAMEWORK
from acon_jax.arrays import canonical_shape
from acon_jax.build import BuildContext, build, make
from acon_jax.checkpoint.layout import layout
from acon_jax.gradient import check_axis, is_floating, upcast_half
from acon_jax.modules import Graph


class Stream:
    """`nnx.Rngs` as an `acon_core.random.Stream`, so that modules can be made under jit."""

    def __init__(self, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.rngs, self.dtype = rngs, dtype

    def normal(self, shape: spec.Shape, std: float = 1.0) -> Array:
        return std * jax.random.normal(self.rngs.params(), shape, self.dtype)

    def uniform(self, shape: spec.Shape, low: float, high: float) -> Array:
        return jax.random.uniform(self.rngs.params(), shape, self.dtype, low, high)


class Activation(FromSpec, Graph):
    """Base class of the activations. `channel_axis` counts the axes of the input as JAX has them.

    In a spec, channels are at axis 1 of (N, C, ...), which here is the last axis. A spec in a
    network that has its channels at another axis moves them itself.
    """

    framework = FRAMEWORK
    _channel_axis = -1

    @staticmethod
    def _context(dtype: DTypeLike | None = None, rngs: nnx.Rngs | None = None, path: str = "") -> BuildContext:
        return BuildContext(jnp.float32 if dtype is None else dtype, path)

    def _node(self, values: tuple[Any, ...], options: dict[str, Any]) -> spec.Activation:
        axis = options.pop("channel_axis", None)
        if axis is not None:
            self._channel_axis = axis
        return super()._node(values, options)

    def _assemble(self, node: spec.Activation, context: BuildContext, channel_axis: int | None = None) -> None:
        if channel_axis is not None:
            self._channel_axis = channel_axis
        # The node with its axes counted as in x, for `check_input`.
        counted = isinstance(node, spec.ChannelwiseActivation) and node.channel_axis == 1
        self._native = replace(node, channel_axis=self._channel_axis) if counted else None
        # A single function converts 16 bits itself and saves x as it is; between several, values
        # would be rounded to 16 bits.
        (x,), outputs = node.graph.inputs, node.graph.outputs
        self._wide = [step.outputs for step in node.graph.steps if x in step.inputs] != [outputs]
        Graph.__init__(self, node, make, context)

    def __nnx_repr__(self) -> Iterator[reprlib.Object | reprlib.Attr]:
        """Show the options after the parameters, as `nnx.Linear` does."""
        yield from super().__nnx_repr__()
        axis = {"channel_axis": self._channel_axis} if isinstance(self._spec, spec.ChannelwiseActivation) else {}
        for name, value in self._shown(self._spec, {}, **axis).items():
            yield reprlib.Attr(name, value)

    def _draw(self, dtype: DTypeLike | None, rngs: nnx.Rngs | None, path: str) -> None:
        if rngs is None:
            return
        dtype = self._context(dtype).dtype
        initial = {
            native: slot.to_native(jnp.asarray(param.init.draw(param.shape, Stream(rngs, dtype)), dtype))
            for _, param, native, slot in layout.table(self.spec)
            if native is not None and slot is not None
        }
        nnx.update(self, unflatten_dict(initial, sep="."))

    def __call__(self, x: Array, *, rngs: nnx.Rngs | None = None, taps: dict[str, Array] | None = None) -> Any:
        if not is_floating(x.dtype):
            raise spec.dtype_error(self._spec, x.dtype)
        if self._native is not None:
            spec.check_input(self._native, x.shape)
        else:
            spec.check_input(self._spec, canonical_shape(x.shape))
        check_axis(x.shape, self._channel_axis)
        last = jnp.moveaxis(x, self._channel_axis, -1)
        y = super().__call__(upcast_half(last)[0] if self._wide else last, rngs=rngs, taps=taps)
        return jnp.moveaxis(y.astype(x.dtype), -1, self._channel_axis)


CLASSES = define_classes(Activation, build)
globals().update({kind.__name__: made for kind, made in CLASSES.items()})
