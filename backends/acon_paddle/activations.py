"""The activations as layers to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

import paddle

from acon_core import spec
from acon_paddle.build import Place, build, make
from acon_paddle.layout import layout
from acon_paddle.modules import Graph


class Activation(Graph):
    """The graph of an activation's spec with its initial values, drawn from a seed that Paddle's generator gives."""

    def __init__(self, node: spec.Layer, dtype: str | None, path: str) -> None:
        dtype = dtype or paddle.get_default_dtype()
        super().__init__(node, lambda name, child: make(child, Place(dtype, spec.join(path, name))), dtype)
        seed = int(paddle.randint(0, 2**31 - 1, [1]).item())
        self.set_state_dict(layout.to_native(node, spec.initial_state(node, seed, dtype)))


class AconC(Activation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with p1, p2, beta (1, C, 1, 1) learnt per channel.

    `channels`: C. `init`: `published` (p1, p2 ~ N(0, 1), beta = 1) or `paper` (1, 0, 1: it starts as SiLU). `dtype`: of the
    parameters, `float32` or `float64`. `path`: where it stands in a network, for errors. (N, C, ...) of any rank -> the same.
    Smooth, no kinks; keeps its input and parameters alone for the backward pass, and can be differentiated once (see `acon`).
    Source: Ma et al. 2021, section 3.2; nmaac/acon acon.py, whose names it has.
    """

    def __init__(self, channels: int, init: spec.InitName = "published", *, dtype: str | None = None, path: str = "") -> None:
        super().__init__(spec.AconC(channels, init), dtype, path)


class MetaAconC(Activation):
    """Meta-ACON, channel level: ACON-C whose beta is generated per sample from the mean of x by two 1x1 convolutions.

    `channels`: C. `reduction`: r, the hidden width is max(r, C // r). `norm`: `batch` as released, or `none`. `init`,
    `dtype`, `path`: as for AconC. (N, C, ...) of any rank -> the same. Smooth, no kinks; can be differentiated once.
    Raises OneValuePerChannelError in training with norm `batch` and a batch of one.
    Source: Ma et al. 2021, section 3.3; nmaac/acon acon.py, whose names it has.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        norm: spec.Norm = "batch",
        init: spec.InitName = "published",
        *,
        dtype: str | None = None,
        path: str = "",
    ) -> None:
        super().__init__(spec.MetaAconC(channels, reduction, norm, init), dtype, path)


@build.register(spec.AconC)
def _(node: spec.AconC, place: Place) -> Graph:
    return AconC(node.width, node.init, dtype=place.dtype, path=place.path)


@build.register(spec.MetaAconC)
def _(node: spec.MetaAconC, place: Place) -> Graph:
    return MetaAconC(node.width, node.reduction, node.norm, node.init, dtype=place.dtype, path=place.path)
