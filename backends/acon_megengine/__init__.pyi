# Written by tools/stubs.py (nox -s stubs) from the spec and acon_core/frontend. Do not edit.

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import megengine
from megengine import module as M

from acon_core.spec import Node
from acon_core.surgery import Diagnosis, GradientBounds, Replacements, Value, Where
from acon_megengine.functional import acon as acon
from acon_megengine.functional import smooth_maximum as smooth_maximum

__all__ = [
    "AReLU",
    "AconA",
    "AconB",
    "AconC",
    "AconFReLU",
    "DyReLU",
    "FReLU",
    "FusedRepAct",
    "MetaAconC",
    "PReLU",
    "RepAct",
    "Swish",
    "acon",
    "activation",
    "create",
    "doctor",
    "fold",
    "fuse",
    "gradient_bounds",
    "load",
    "param_groups",
    "replace_activations",
    "smooth_maximum",
]

class PReLU(M.Module):
    weight: megengine.Parameter
    def __init__(
        self,
        channels: int | None = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class Swish(M.Module):
    weight: megengine.Parameter
    def __init__(self, *, path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class AReLU(M.Module):
    alpha: megengine.Parameter
    beta: megengine.Parameter
    def __init__(self, *, path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class DyReLU(M.Module):
    def __init__(
        self,
        channels: int,
        variant: Literal["A", "B"] = ...,
        reduction: int = ...,
        *,
        channel_axis: int | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class FReLU(M.Module):
    def __init__(self, channels: int, *, channel_axis: int | None = ..., path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class AconA(M.Module):
    beta: megengine.Parameter
    def __init__(self, channels: int, *, channel_axis: int | None = ..., path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class AconB(M.Module):
    p2: megengine.Parameter
    beta: megengine.Parameter
    def __init__(self, channels: int, *, channel_axis: int | None = ..., path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class AconC(M.Module):
    p1: megengine.Parameter
    p2: megengine.Parameter
    beta: megengine.Parameter
    def __init__(
        self,
        channels: int,
        init: Literal["published", "paper"] = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class MetaAconC(M.Module):
    p1: megengine.Parameter
    p2: megengine.Parameter
    def __init__(
        self,
        channels: int,
        reduction: int = ...,
        norm: Literal["batch", "none", "layer"] = ...,
        init: Literal["published", "paper"] = ...,
        level: Literal["channel", "layer", "pixel"] = ...,
        reduce: Literal["sum", "mean"] = ...,
        generator: Literal["released", "first"] = ...,
        *,
        channel_axis: int | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class AconFReLU(M.Module):
    def __init__(self, channels: int, stride: int = ..., *, channel_axis: int | None = ..., path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class RepAct(M.Module):
    weights: megengine.Parameter
    alpha: megengine.Parameter
    def __init__(self, variant: Literal[1, 2, 3] = ..., *, path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

class FusedRepAct(M.Module):
    identity: megengine.Parameter
    relu: megengine.Parameter
    hardswish: megengine.Parameter
    def __init__(self, shift: bool = ..., *, path: str = ...) -> None: ...
    def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...

def activation(
    name: str,
    channels: int | None = ...,
    *,
    channel_axis: int | None = ...,
    path: str = ...,
    **options: Any,
) -> M.Module: ...
def create(
    name: str,
    act: Node | str | None = ...,
    num_classes: int | None = ...,
    *,
    features: Sequence[str] = ...,
    dtype: str = ...,
    seed: int = ...,
    **options: Any,
) -> M.Module: ...
def doctor(module: M.Module, *, channel_axis: int | None = ...) -> Diagnosis: ...
def fold(model: M.Module) -> M.Module: ...
def fuse(model: M.Module) -> M.Module: ...
def gradient_bounds(model: M.Module) -> dict[str, GradientBounds]: ...
def load(
    path: str | PathLike[str],
    network: str | None = ...,
    act: str | None = ...,
    dialect: str | None = ...,
    features: Sequence[str] = ...,
    *,
    num_classes: int | None = ...,
    in_channels: int | None = ...,
    seed: int = ...,
    key: str = ...,
    strip_prefix: str | Sequence[str] = ...,
    ignore: str | Sequence[str] = ...,
    format: str | None = ...,
    **options: Any,
) -> M.Module: ...
def param_groups(model: M.Module, weight_decay: float) -> list[dict[str, Any]]: ...
def replace_activations(
    model: M.Module,
    replacements: Mapping[Any, Value],
    example: Any,
    *,
    channel_axis: int | Mapping[str, int] | None = ...,
    beta: float | None = ...,
    where: Where = ...,
) -> Replacements: ...
