# Written by tools/stubs.py (nox -s stubs) from the spec and acon_core/frontend. Do not edit.

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import jax
import optax
from flax import nnx
from jax.typing import DTypeLike

from acon_core.spec import Node
from acon_core.surgery import Diagnosis, GradientBounds, Replacements, Value, Where
from acon_jax.functional import acon as acon
from acon_jax.functional import smooth_maximum as smooth_maximum

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

class PReLU(nnx.Module):
    weight: nnx.Param
    def __init__(
        self,
        channels: int | None = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class Swish(nnx.Module):
    weight: nnx.Param
    def __init__(self, *, dtype: DTypeLike | None = ..., rngs: nnx.Rngs | None, path: str = ...) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class AReLU(nnx.Module):
    alpha: nnx.Param
    beta: nnx.Param
    def __init__(self, *, dtype: DTypeLike | None = ..., rngs: nnx.Rngs | None, path: str = ...) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class DyReLU(nnx.Module):
    def __init__(
        self,
        channels: int,
        variant: Literal["A", "B"] = ...,
        reduction: int = ...,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class FReLU(nnx.Module):
    def __init__(
        self,
        channels: int,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class AconA(nnx.Module):
    beta: nnx.Param
    def __init__(
        self,
        channels: int,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class AconB(nnx.Module):
    p2: nnx.Param
    beta: nnx.Param
    def __init__(
        self,
        channels: int,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class AconC(nnx.Module):
    p1: nnx.Param
    p2: nnx.Param
    beta: nnx.Param
    def __init__(
        self,
        channels: int,
        init: Literal["published", "paper"] = ...,
        shared: bool = ...,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class MetaAconC(nnx.Module):
    p1: nnx.Param
    p2: nnx.Param
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
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class AconFReLU(nnx.Module):
    def __init__(
        self,
        channels: int,
        stride: int = ...,
        *,
        channel_axis: int | None = ...,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class RepAct(nnx.Module):
    weights: nnx.Param
    alpha: nnx.Param
    def __init__(
        self,
        variant: Literal[1, 2, 3] = ...,
        *,
        dtype: DTypeLike | None = ...,
        rngs: nnx.Rngs | None,
        path: str = ...,
    ) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

class FusedRepAct(nnx.Module):
    identity: nnx.Param
    relu: nnx.Param
    hardswish: nnx.Param
    def __init__(self, shift: bool = ..., *, dtype: DTypeLike | None = ..., rngs: nnx.Rngs | None, path: str = ...) -> None: ...
    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...) -> jax.Array: ...

def activation(
    name: str,
    channels: int | None = ...,
    *,
    channel_axis: int | None = ...,
    dtype: DTypeLike | None = ...,
    rngs: nnx.Rngs | None = ...,
    path: str = ...,
    **options: Any,
) -> nnx.Module: ...
def create(
    name: str,
    act: Node | str | None = ...,
    num_classes: int | None = ...,
    *,
    features: Sequence[str] = ...,
    dtype: str = ...,
    seed: int = ...,
    **options: Any,
) -> nnx.Module: ...
def doctor(module: nnx.Module, *, channel_axis: int | None = ...) -> Diagnosis: ...
def fold(model: nnx.Module) -> nnx.Module: ...
def fuse(model: nnx.Module) -> nnx.Module: ...
def gradient_bounds(model: nnx.Module) -> dict[str, GradientBounds]: ...
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
) -> nnx.Module: ...
def param_groups(model: nnx.Module, weight_decay: float) -> optax.GradientTransformation: ...
def replace_activations(
    model: nnx.Module,
    replacements: Mapping[Any, Value],
    example: Any,
    *,
    channel_axis: int | Mapping[str, int] | None = ...,
    beta: float | None = ...,
    where: Where = ...,
) -> Replacements: ...
