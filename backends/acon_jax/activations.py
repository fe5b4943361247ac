"""The activations as modules to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_jax.build import Place, build, make
from acon_jax.layout import layout
from acon_jax.modules import Graph


class Stream:
    """`acon_core.random.Stream` over nnx's random streams, so that a module can be made under jit and `nnx.eval_shape`."""

    def __init__(self, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.rngs, self.dtype = rngs, dtype

    def normal(self, shape: spec.Shape, std: float = 1.0) -> Array:
        return std * jax.random.normal(self.rngs.params(), shape, self.dtype)

    def uniform(self, shape: spec.Shape, low: float, high: float) -> Array:
        return jax.random.uniform(self.rngs.params(), shape, self.dtype, low, high)


class Activation(Graph):
    """The graph of an activation's spec with its initial values; zeros, to be loaded, where `rngs` is None."""

    def __init__(self, node: spec.Layer, dtype: DTypeLike, rngs: nnx.Rngs | None, path: str) -> None:
        place = Place(dtype, path)
        super().__init__(node, lambda name, child: make(child, place.child(name)), dtype, path)
        if rngs is not None:
            initial = {
                native: slot.to_native(jnp.asarray(param.init.draw(param.shape, Stream(rngs, dtype)), dtype))
                for _, param, native, slot in layout.table(node)
                if native is not None and slot is not None
            }
            nnx.update(self, unflatten_dict(initial, sep="."))


class AconC(Activation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with p1, p2, beta (C,) learnt per channel.

    `channels`: C. `init`: `published` (p1, p2 ~ N(0, 1), beta = 1) or `paper` (1, 0, 1: it starts as SiLU). `rngs`: for the
    initial values, `AconC(64, rngs=nnx.Rngs(0))`; None leaves zeros, to be loaded. `path`: where it stands, for errors.
    (N, ..., C) of any rank -> the same. Smooth, no kinks; keeps its input and parameters alone for the backward pass.
    Source: Ma et al. 2021, section 3.2; nmaac/acon acon.py.
    """

    def __init__(
        self,
        channels: int,
        init: spec.InitName = "published",
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None,
        path: str = "",
    ) -> None:
        super().__init__(spec.AconC(channels, init), dtype, rngs, path)


class MetaAconC(Activation):
    """Meta-ACON, channel level: ACON-C whose beta is generated per sample from the mean of x by two 1x1 convolutions.

    `channels`: C. `reduction`: r, the hidden width is max(r, C // r). `norm`: `batch` as released, or `none`. `init`, `rngs`,
    `path`: as for AconC. (N, ..., C) of any rank -> the same. Smooth, no kinks.
    Raises OneValuePerChannelError in training with norm `batch` and a batch of one.
    Source: Ma et al. 2021, section 3.3; nmaac/acon acon.py.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        norm: spec.Norm = "batch",
        init: spec.InitName = "published",
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None,
        path: str = "",
    ) -> None:
        super().__init__(spec.MetaAconC(channels, reduction, norm, init), dtype, rngs, path)


@build.register(spec.AconC)
def _(node: spec.AconC, place: Place) -> Graph:
    return AconC(node.width, node.init, dtype=place.dtype, rngs=None, path=place.path)


@build.register(spec.MetaAconC)
def _(node: spec.MetaAconC, place: Place) -> Graph:
    return MetaAconC(node.width, node.reduction, node.norm, node.init, dtype=place.dtype, rngs=None, path=place.path)
