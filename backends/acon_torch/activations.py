"""The activations as modules to put into a network of one's own: each is its spec's graph under a name."""

from __future__ import annotations

import torch

from acon_core import spec
from acon_torch.arrays import to_tensor
from acon_torch.build import Place, build, make
from acon_torch.modules import Graph


class Activation(Graph):
    """The graph of an activation's spec with its initial values, drawn from a seed that PyTorch's generator gives."""

    def __init__(self, node: spec.Layer, dtype: torch.dtype | None, device: torch.device | str | None, path: str) -> None:
        place = Place(dtype or torch.get_default_dtype(), path)
        super().__init__(node, lambda name, child: make(child, place.child(name)), place.dtype)
        seed = int(torch.randint(2**62, (), device="cpu"))
        initial = spec.initial_state(node, seed, "float64")
        self.load_state_dict({path: to_tensor(array).to(self.state_dict()[path].dtype) for path, array in initial.items()})
        self.to(device)


class AconC(Activation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with p1, p2, beta (1, C, 1, 1) learnt per channel.

    `channels`: C. `init`: `published` (p1, p2 ~ N(0, 1), beta = 1) or `paper` (1, 0, 1: it starts as SiLU). `path`: where it
    stands, for errors.
    (N, C, ...) of any rank -> the same. Smooth, no kinks; keeps its input and parameters alone for the backward pass.
    Source: Ma et al. 2021, section 3.2; nmaac/acon acon.py, whose state dict it loads.
    """

    def __init__(
        self,
        channels: int,
        init: spec.InitName = "published",
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        path: str = "",
    ) -> None:
        super().__init__(spec.AconC(channels, init), dtype, device, path)


class MetaAconC(Activation):
    """Meta-ACON, channel level: ACON-C whose beta is generated per sample from the mean of x by two 1x1 convolutions.

    `channels`: C. `reduction`: r, the hidden width is max(r, C // r). `norm`: `batch` as released, or `none`. `init`, `path`:
    as for AconC. (N, C, ...) of any rank -> the same. Smooth, no kinks.
    Raises OneValuePerChannelError in training with norm `batch` and a batch of one.
    Source: Ma et al. 2021, section 3.3; nmaac/acon acon.py, whose state dict it loads.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        norm: spec.Norm = "batch",
        init: spec.InitName = "published",
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        path: str = "",
    ) -> None:
        super().__init__(spec.MetaAconC(channels, reduction, norm, init), dtype, device, path)


@build.register(spec.AconC)
def _(node: spec.AconC, place: Place) -> Graph:
    return AconC(node.width, node.init, dtype=place.dtype, path=place.path)


@build.register(spec.MetaAconC)
def _(node: spec.MetaAconC, place: Place) -> Graph:
    return MetaAconC(node.width, node.reduction, node.norm, node.init, dtype=place.dtype, path=place.path)
