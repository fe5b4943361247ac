# Written by tools/stubs.py (nox -s stubs) from the spec and acon_core/frontend. Do not edit.

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import torch
from torch import nn

from acon_core.spec import Node
from acon_core.surgery import Diagnosis, GradientBounds, Replacements, Value, Where
from acon_torch.functional import acon as acon
from acon_torch.functional import smooth_maximum as smooth_maximum
from acon_torch.lazy_modules import lazy as lazy

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
    "lazy",
    "load",
    "param_groups",
    "replace_activations",
    "smooth_maximum",
]

class PReLU(nn.Module):
    weight: nn.Parameter
    def __init__(
        self,
        channels: int | None = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class Swish(nn.Module):
    weight: nn.Parameter
    def __init__(
        self,
        *,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class AReLU(nn.Module):
    alpha: nn.Parameter
    beta: nn.Parameter
    def __init__(
        self,
        *,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class DyReLU(nn.Module):
    def __init__(
        self,
        channels: int,
        variant: Literal["A", "B"] = ...,
        reduction: int = ...,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class FReLU(nn.Module):
    def __init__(
        self,
        channels: int,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class AconA(nn.Module):
    beta: nn.Parameter
    def __init__(
        self,
        channels: int,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class AconB(nn.Module):
    p2: nn.Parameter
    beta: nn.Parameter
    def __init__(
        self,
        channels: int,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class AconC(nn.Module):
    p1: nn.Parameter
    p2: nn.Parameter
    beta: nn.Parameter
    def __init__(
        self,
        channels: int,
        init: Literal["published", "paper"] = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class MetaAconC(nn.Module):
    p1: nn.Parameter
    p2: nn.Parameter
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
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class AconFReLU(nn.Module):
    def __init__(
        self,
        channels: int,
        stride: int = ...,
        *,
        channel_axis: int | None = ...,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class RepAct(nn.Module):
    weights: nn.Parameter
    alpha: nn.Parameter
    def __init__(
        self,
        variant: Literal[1, 2, 3] = ...,
        *,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class FusedRepAct(nn.Module):
    identity: nn.Parameter
    relu: nn.Parameter
    hardswish: nn.Parameter
    def __init__(
        self,
        shift: bool = ...,
        *,
        dtype: torch.dtype | None = ...,
        device: torch.device | str | None = ...,
        path: str = ...,
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

def activation(
    name: str,
    channels: int | None = ...,
    *,
    channel_axis: int | None = ...,
    dtype: torch.dtype | None = ...,
    device: torch.device | str | None = ...,
    path: str = ...,
    **options: Any,
) -> nn.Module: ...
def create(
    name: str,
    act: Node | str | None = ...,
    num_classes: int | None = ...,
    *,
    features: Sequence[str] = ...,
    dtype: str = ...,
    seed: int = ...,
    **options: Any,
) -> nn.Module: ...
def doctor(module: nn.Module, *, channel_axis: int | None = ...) -> Diagnosis: ...
def fold(model: nn.Module) -> nn.Module: ...
def fuse(model: nn.Module) -> nn.Module: ...
def gradient_bounds(model: nn.Module) -> dict[str, GradientBounds]: ...
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
) -> nn.Module: ...
def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]: ...
def replace_activations(
    model: nn.Module,
    replacements: Mapping[Any, Value],
    example: Any,
    *,
    channel_axis: int | Mapping[str, int] | None = ...,
    beta: float | None = ...,
    where: Where = ...,
) -> Replacements: ...
