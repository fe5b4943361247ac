"""The activations as modules to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

from megengine import random

from acon_core import spec
from acon_megengine.build import Place, build, make
from acon_megengine.layout import layout
from acon_megengine.modules import Graph


class Activation(Graph):
    """The graph of an activation's spec with its initial values, drawn from a seed that MegEngine's generator gives."""

    def __init__(self, node: spec.Layer, path: str) -> None:
        super().__init__(node, lambda name, child: make(child, Place(spec.join(path, name))))
        seed = int(random.uniform(0, 2**24, (1,)).item())
        self.load_state_dict(layout.to_native(node, spec.initial_state(node, seed)))


class AconC(Activation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with p1, p2, beta (1, C, 1, 1) learnt per channel.

    `channels`: C. `init`: `published` (p1, p2 ~ N(0, 1), beta = 1) or `paper` (1, 0, 1: it starts as SiLU). `path`: where
    in a network it stands, for errors. (N, C, ...) of any rank -> the same. Smooth, no kinks; keeps its input and
    parameters alone for the backward pass. Source: Ma et al. 2021, section 3.2; nmaac/acon acon.py.
    """

    def __init__(self, channels: int, init: spec.InitName = "published", *, path: str = "") -> None:
        super().__init__(spec.AconC(channels, init), path)


class MetaAconC(Activation):
    """Meta-ACON, channel level: ACON-C whose beta is generated per sample from the mean of x by two 1x1 convolutions.

    `channels`: C. `reduction`: r, the hidden width is max(r, C // r). `norm`: `batch` as released, or `none`. `init` and
    `path`: as for AconC. (N, C, ...) of any rank -> the same. Smooth, no kinks.
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
        path: str = "",
    ) -> None:
        super().__init__(spec.MetaAconC(channels, reduction, norm, init), path)


@build.register(spec.AconC)
def _(node: spec.AconC, place: Place) -> Graph:
    return AconC(node.width, node.init, path=place.path)


@build.register(spec.MetaAconC)
def _(node: spec.MetaAconC, place: Place) -> Graph:
    return MetaAconC(node.width, node.reduction, node.norm, node.init, path=place.path)
