# Written by tools/stubs.py (nox -s stubs) from the spec and acon_core/frontend. Do not edit.

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import paddle
from paddle import nn

from acon_core.spec import Node
from acon_core.surgery import Diagnosis, GradientBounds, Replacements, Value, Where
from acon_paddle.functional import acon as acon
from acon_paddle.functional import smooth_maximum as smooth_maximum

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

class PReLU(nn.Layer):
    weight: paddle.Tensor
    def __init__(
        self,
        channels: int | None = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        dtype: str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class Swish(nn.Layer):
    weight: paddle.Tensor
    def __init__(self, *, dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class AReLU(nn.Layer):
    alpha: paddle.Tensor
    beta: paddle.Tensor
    def __init__(self, *, dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class DyReLU(nn.Layer):
    def __init__(
        self,
        channels: int,
        variant: Literal["A", "B"] = ...,
        reduction: int = ...,
        *,
        channel_axis: int | None = ...,
        dtype: str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class FReLU(nn.Layer):
    def __init__(self, channels: int, *, channel_axis: int | None = ..., dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class AconA(nn.Layer):
    beta: paddle.Tensor
    def __init__(self, channels: int, *, channel_axis: int | None = ..., dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class AconB(nn.Layer):
    p2: paddle.Tensor
    beta: paddle.Tensor
    def __init__(self, channels: int, *, channel_axis: int | None = ..., dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class AconC(nn.Layer):
    p1: paddle.Tensor
    p2: paddle.Tensor
    beta: paddle.Tensor
    def __init__(
        self,
        channels: int,
        init: Literal["published", "paper"] = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        dtype: str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class MetaAconC(nn.Layer):
    p1: paddle.Tensor
    p2: paddle.Tensor
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
        dtype: str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class AconFReLU(nn.Layer):
    def __init__(
        self,
        channels: int,
        stride: int = ...,
        *,
        channel_axis: int | None = ...,
        dtype: str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class RepAct(nn.Layer):
    weights: paddle.Tensor
    alpha: paddle.Tensor
    def __init__(self, variant: Literal[1, 2, 3] = ..., *, dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

class FusedRepAct(nn.Layer):
    identity: paddle.Tensor
    relu: paddle.Tensor
    hardswish: paddle.Tensor
    def __init__(self, shift: bool = ..., *, dtype: str | None = ..., path: str = ...) -> None: ...
    def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...

def activation(
    name: str,
    channels: int | None = ...,
    *,
    channel_axis: int | None = ...,
    dtype: str | None = ...,
    path: str = ...,
    **options: Any,
) -> nn.Layer: ...
def create(
    name: str,
    act: Node | str | None = ...,
    num_classes: int | None = ...,
    *,
    features: Sequence[str] = ...,
    dtype: str = ...,
    seed: int = ...,
    **options: Any,
) -> nn.Layer: ...
def doctor(module: nn.Layer, *, channel_axis: int | None = ...) -> Diagnosis: ...
def fold(model: nn.Layer) -> nn.Layer: ...
def fuse(model: nn.Layer) -> nn.Layer: ...
def gradient_bounds(model: nn.Layer) -> dict[str, GradientBounds]: ...
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
) -> nn.Layer: ...
def param_groups(model: nn.Layer, weight_decay: float) -> list[dict[str, Any]]: ...
def replace_activations(
    model: nn.Layer,
    replacements: Mapping[Any, Value],
    example: Any,
    *,
    channel_axis: int | Mapping[str, int] | None = ...,
    beta: float | None = ...,
    where: Where = ...,
) -> Replacements: ...
