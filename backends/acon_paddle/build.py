"""A spec as a Paddle layer: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import paddle
from paddle import nn

from acon_core import spec
from acon_paddle import functional, modules, pointwise, tokens


@dataclass(frozen=True)
class BuildContext:
    """Where a layer is built: its path, for errors, and the dtype of its parameters."""

    dtype: str
    path: str = ""


build: spec.Rules[nn.Layer] = spec.Rules("acon_paddle.build")


def below(place: BuildContext) -> Callable[[str, spec.Node], nn.Layer]:
    """How a graph at a place makes its children."""
    return lambda name, child: make(child, replace(place, path=spec.join(place.path, name)))


def make(node: spec.Node, place: BuildContext) -> nn.Layer:
    """The layer of a node, its parameters not yet set: by its rule if it has one, else its graph line by line.

    Each has the node as `spec`.
    """
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, below(place), place.dtype)
    layer = build(node, place)
    layer.spec = node
    return layer


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: BuildContext) -> nn.Layer:
    return nn.Conv2D(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups,
        bias_attr=None if node.bias else False,
    ).to(dtype=place.dtype)  # fmt: skip


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: BuildContext) -> nn.Layer:
    return modules.BatchNorm(node.channels, node.eps, node.decay, dtype=place.dtype, path=place.path)


@build.register(spec.Linear)
def _(node: spec.Linear, place: BuildContext) -> nn.Layer:
    return modules.Linear(node.in_features, node.out_features, bias_attr=None if node.bias else False).to(dtype=place.dtype)


@build.register(spec.MaxPool2d)
def _(node: spec.MaxPool2d, place: BuildContext) -> nn.Layer:
    return nn.MaxPool2D(node.kernel, node.stride, node.padding)


@build.register(spec.LayerNorm)
def _(node: spec.LayerNorm, place: BuildContext) -> nn.Layer:
    return modules.LayerNorm(node.channels, node.eps, dtype=place.dtype)


@build.register(spec.Flatten)
def _(node: spec.Flatten, place: BuildContext) -> nn.Layer:
    return nn.Flatten()


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: BuildContext) -> nn.Layer:
    return modules.Dropout(node.rate)


@build.register(spec.DropPath)
def _(node: spec.DropPath, place: BuildContext) -> nn.Layer:
    return modules.Dropout(node.rate, axis=0)


@build.register(spec.Split)
def _(node: spec.Split, place: BuildContext) -> nn.Layer:
    return modules.Split(node.parts, node.interleaved)


@build.register(spec.ChannelShuffle)
def _(node: spec.ChannelShuffle, place: BuildContext) -> nn.Layer:
    return modules.ChannelShuffle(node.groups)


@build.register(spec.Acon)
def _(node: spec.Acon, place: BuildContext) -> nn.Layer:
    return modules.Acon(node.p1, node.p2)


# What has neither parameters nor a state: the function, whose options are the node's fields.
FUNCTIONS: dict[type[spec.Node], Callable[..., Any]] = {
    spec.GlobalAvgPool: modules.global_avg_pool,
    spec.ReduceSample: modules.reduce_sample,
    spec.Concat: modules.concat,
    spec.MoveAxis: paddle.moveaxis,
    spec.FlattenToOneChannel: modules.as_one_channel,
    spec.ReshapeLike: modules.shape_like,
    **{kind: getattr(pointwise, name) for name, kind in spec.ACTIVATIONS.items() if issubclass(kind, spec.Elementwise)},
    spec.SmoothMaximum: functional.smooth_maximum,
    spec.Maximum: functional.maximum,
    spec.PReLUFunction: functional.slopes,
    spec.AReLUFunction: functional.attention_slopes,
    spec.RepActCoefficients: functional.collapse_branches,
    spec.DynamicMaximum: functional.dynamic_maximum,
}


@build.register(*FUNCTIONS)
def _(node: spec.Node, place: BuildContext) -> nn.Layer:
    options = {field.name: getattr(node, field.name) for field in fields(node)}  # type: ignore[arg-type]
    return modules.Function(FUNCTIONS[type(node)], **options)


# What asks its node about shapes.
SHAPED: dict[type[spec.Node], Callable[..., Any]] = {
    spec.Add: modules.add,
    spec.ChannelScale: modules.rescale,
    spec.ImageSize: tokens.image_size,
    spec.PadToMultiple: tokens.pad_to_multiple,
    spec.FlattenSpace: tokens.flatten_space,
    spec.PrependToken: tokens.prepend_token,
    spec.AddPosition: tokens.add_position,
    spec.SelectToken: tokens.select_token,
    spec.SpaceToDepth: tokens.space_to_channels,
    spec.Attention: tokens.attention,
    spec.WindowPartition: tokens.window_partition,
    spec.WindowAttention: tokens.window_attention,
    spec.WindowReverse: tokens.window_merge,
}


@build.register(*SHAPED)
def _(node: spec.Node, place: BuildContext) -> nn.Layer:
    return modules.Shaped(SHAPED[type(node)], node)


@build.register(spec.RepActFunction)
def _(node: spec.RepActFunction, place: BuildContext) -> nn.Layer:
    return modules.Function(functional.branches)  # whether there is a shift, its arguments say
