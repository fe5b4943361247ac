"""A spec as an nnx module: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from acon_core import spec
from acon_jax import functional as F
from acon_jax import modules, pointwise, tokens
from acon_jax.arrays import filled


class NoKeys:
    """In the place of the random streams that Flax's own layers ask for: zeros take no key, and to make keys takes time."""

    def params(self) -> None:
        """No key."""


# Flax's own layers, with parameters of zeros.
ZEROS: dict[str, Any] = {
    "kernel_init": lambda key, shape, dtype: filled(0.0, shape, dtype),
    "bias_init": lambda key, shape, dtype: filled(0.0, shape, dtype),
    "rngs": NoKeys(),
}


@dataclass(frozen=True)
class BuildContext:
    """Where a module is built: its path, for errors and taps, and the dtype of its parameters, which start as zeros."""

    dtype: DTypeLike
    path: str = ""

    def child(self, name: str) -> BuildContext:
        return replace(self, path=spec.join(self.path, name))


build: spec.Rules[nnx.Module] = spec.Rules("acon_jax.build")


def make(node: spec.Node, place: BuildContext) -> nnx.Module:
    """The module of a node, its parameters not yet set: by its rule if it has one, else its graph line by line."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, lambda name, child: make(child, place.child(name)), place.dtype, place.path)
    return build(node, place)


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: BuildContext) -> nnx.Module:
    return modules.Conv(
        node.in_channels, node.out_channels, node.kernel, node.stride,
        padding=tuple((size, size) for size in node.padding), kernel_dilation=node.dilation, feature_group_count=node.groups,
        use_bias=node.bias, param_dtype=place.dtype, **ZEROS,
    )  # fmt: skip


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: BuildContext) -> nnx.Module:
    return modules.BatchNorm(node.channels, node.eps, node.decay, dtype=place.dtype, path=place.path)


@build.register(spec.Linear)
def _(node: spec.Linear, place: BuildContext) -> nnx.Module:
    return modules.Linear(
        node.in_features, node.out_features,
        use_bias=node.bias, param_dtype=place.dtype, **ZEROS,
    )  # fmt: skip


@build.register(spec.LayerNorm)
def _(node: spec.LayerNorm, place: BuildContext) -> nnx.Module:
    return modules.LayerNorm(node.channels, node.eps, dtype=place.dtype)


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: BuildContext) -> nnx.Module:
    return nnx.Dropout(node.rate)


@build.register(spec.DropPath)
def _(node: spec.DropPath, place: BuildContext) -> nnx.Module:
    return modules.DropPath(node.rate)


def _acon(x: Array, *gates: Array, p1: float | None, p2: float | None) -> Array:
    given = iter(gates)
    return F.acon(x, *(next(given) if gate is None else gate for gate in (p1, p2, None)))


FUNCTIONS: dict[type[spec.Primitive], Callable[..., Any]] = {
    spec.MaxPool2d: modules.max_pool,
    spec.GlobalAvgPool: modules.global_avg_pool,
    spec.Flatten: modules.flatten,
    spec.Add: modules.add,
    spec.ChannelScale: modules.rescale,
    spec.Concat: modules.concat,
    spec.Split: modules.split,
    spec.ChannelShuffle: modules.shuffle,
    spec.ReduceSample: modules.reduce_sample,
    spec.MoveAxis: modules.move_axis,
    spec.FlattenToOneChannel: modules.as_one_channel,
    spec.ReshapeLike: modules.shape_like,
    spec.ImageSize: tokens.image_size,
    spec.PadToMultiple: tokens.pad_to_multiple,
    spec.FlattenSpace: tokens.flatten_space,
    spec.PrependToken: tokens.prepend_token,
    spec.AddPosition: tokens.add_position,
    spec.SelectToken: tokens.select_token,
    spec.SpaceToDepth: tokens.space_to_channels,
    spec.Attention: tokens.attention,
    spec.WindowPartition: tokens.partition,
    spec.WindowAttention: tokens.window_attention,
    spec.WindowReverse: tokens.merge,
    **{kind: getattr(pointwise, name) for name, kind in spec.ACTIVATIONS.items() if issubclass(kind, spec.Elementwise)},
    spec.Acon: _acon,
    spec.SmoothMaximum: F.smooth_maximum,
    spec.Maximum: F.maximum,
    spec.PReLUFunction: F.slopes,
    spec.AReLUFunction: F.attention_slopes,
    spec.RepActCoefficients: F.collapse_branches,
    spec.RepActFunction: lambda x, *gates, shift: F.branches(x, *gates),
    spec.DynamicMaximum: F.dynamic_maximum,
}
"""Primitives without parameters: what is called with their values, and with their fields by name."""


@build.register(*FUNCTIONS)
def _(node: spec.Primitive, place: BuildContext) -> nnx.Module:
    return modules.Primitive(node, FUNCTIONS[type(node)])
