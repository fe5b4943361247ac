"""A spec as a PyTorch module: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from acon_core import spec
from acon_torch import functional as g
from acon_torch import modules
from acon_torch import pointwise as f
from acon_torch import tokens as t


@dataclass(frozen=True)
class BuildContext:
    """Where a module is built: its path, for errors, and the dtype of its parameters."""

    dtype: torch.dtype
    path: str = ""

    def child(self, name: str) -> BuildContext:
        return replace(self, path=spec.join(self.path, name))


build: spec.Rules[nn.Module] = spec.Rules("acon_torch.build")


def make(node: spec.Node, place: BuildContext) -> nn.Module:
    """The module of a node, its parameters not yet set: by its rule if it has one, else its graph line by line."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, lambda name, child: make(child, place.child(name)), place.dtype)
    return build(node, place)


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: BuildContext) -> nn.Module:
    return modules.Conv2d(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups, node.bias,
        dtype=place.dtype,
    )  # fmt: skip


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: BuildContext) -> nn.Module:
    norm = modules.BatchNorm(node.channels, node.eps, momentum=1 - node.decay, dtype=place.dtype)
    norm.path = place.path
    return norm


@build.register(spec.LayerNorm)
def _(node: spec.LayerNorm, place: BuildContext) -> nn.Module:
    return modules.LayerNorm(node.channels, node.eps, dtype=place.dtype)


@build.register(spec.Linear)
def _(node: spec.Linear, place: BuildContext) -> nn.Module:
    return modules.Linear(node.in_features, node.out_features, node.bias, dtype=place.dtype)


@build.register(spec.MaxPool2d)
def _(node: spec.MaxPool2d, place: BuildContext) -> nn.Module:
    return nn.MaxPool2d(node.kernel, node.stride, node.padding)


@build.register(spec.Flatten)
def _(node: spec.Flatten, place: BuildContext) -> nn.Module:
    return nn.Flatten()


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: BuildContext) -> nn.Module:
    return nn.Dropout(node.rate)


@build.register(spec.DropPath)
def _(node: spec.DropPath, place: BuildContext) -> nn.Module:
    return modules.DropPath(node.rate)


@build.register(spec.ChannelShuffle)
def _(node: spec.ChannelShuffle, place: BuildContext) -> nn.Module:
    return nn.ChannelShuffle(node.groups)


# What has no parameters and takes its node's fields as options of the same names.
FUNCTIONS: dict[type[spec.Node], Callable[..., Any]] = {
    spec.GlobalAvgPool: modules.global_avg_pool,
    spec.Add: torch.add,
    spec.ChannelScale: modules.rescale,
    spec.Concat: modules.concat,
    spec.Split: modules.split,
    spec.ReduceSample: modules.reduce_sample,
    spec.MoveAxis: torch.movedim,
    spec.FlattenToOneChannel: modules.as_one_channel,
    spec.ReshapeLike: Tensor.reshape_as,
    spec.ImageSize: t.image_size,
    spec.PadToMultiple: t.pad_to_multiple,
    spec.FlattenSpace: t.flatten_space,
    spec.PrependToken: t.prepend_token,
    spec.AddPosition: t.add_position,
    spec.SelectToken: t.select_token,
    spec.SpaceToDepth: t.space_to_channels,
    spec.Attention: t.attention,
    spec.WindowPartition: t.window_partition,
    spec.WindowReverse: t.window_merge,
    **{kind: getattr(f, name) for name, kind in spec.ACTIVATIONS.items() if issubclass(kind, spec.Elementwise)},
    spec.SmoothMaximum: g.smooth_maximum,
    spec.Maximum: g.maximum,
    spec.PReLUFunction: g.slopes,
    spec.AReLUFunction: g.attention_slopes,
    spec.RepActCoefficients: g.collapse_branches,
    spec.DynamicMaximum: g.dynamic_maximum,
}


@build.register(*FUNCTIONS)
def _(node: spec.Node, place: BuildContext) -> nn.Module:
    options = {field.name: getattr(node, field.name) for field in fields(node)}
    return modules.Function(node, FUNCTIONS[type(node)], **options)


@build.register(spec.RepActFunction)
def _(node: spec.RepActFunction, place: BuildContext) -> nn.Module:
    return modules.Function(node, g.branches)


@build.register(spec.Acon)
def _(node: spec.Acon, place: BuildContext) -> nn.Module:
    return modules.Acon(node)


@build.register(spec.WindowAttention)
def _(node: spec.WindowAttention, place: BuildContext) -> nn.Module:
    return t.WindowAttention(node)
