"""A spec as a PyTorch module: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from acon_core import spec
from acon_torch import modules


@dataclass(frozen=True)
class Place:
    """Where a module is built: its path, for errors, and the dtype of its parameters."""

    dtype: torch.dtype
    path: str = ""

    def child(self, name: str) -> Place:
        return replace(self, path=spec.join(self.path, name))


build: spec.Rules[nn.Module] = spec.Rules("acon_torch.build")


def make(node: spec.Node, place: Place) -> nn.Module:
    """The module of a node, its parameters not yet set: by its rule if it has one, else its graph line by line."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, lambda name, child: make(child, place.child(name)), place.dtype)
    return build(node, place)


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: Place) -> nn.Module:
    return nn.Conv2d(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups, node.bias,
        dtype=place.dtype,
    )  # fmt: skip


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: Place) -> nn.Module:
    norm = modules.BatchNorm(node.channels, node.eps, momentum=1 - node.decay, dtype=place.dtype)
    norm.path = place.path
    return norm


@build.register(spec.Linear)
def _(node: spec.Linear, place: Place) -> nn.Module:
    return nn.Linear(node.in_features, node.out_features, node.bias, dtype=place.dtype)


@build.register(spec.MaxPool2d)
def _(node: spec.MaxPool2d, place: Place) -> nn.Module:
    return nn.MaxPool2d(node.kernel, node.stride, node.padding)


@build.register(spec.GlobalAvgPool)
def _(node: spec.GlobalAvgPool, place: Place) -> nn.Module:
    return modules.GlobalAvgPool()


@build.register(spec.Flatten)
def _(node: spec.Flatten, place: Place) -> nn.Module:
    return nn.Flatten()


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: Place) -> nn.Module:
    return nn.Dropout(node.rate)


@build.register(spec.Concat)
def _(node: spec.Concat, place: Place) -> nn.Module:
    return modules.Concat()


@build.register(spec.Split)
def _(node: spec.Split, place: Place) -> nn.Module:
    return modules.Split(node.parts, node.interleaved)


@build.register(spec.Shuffle)
def _(node: spec.Shuffle, place: Place) -> nn.Module:
    return nn.ChannelShuffle(node.groups)


@build.register(spec.ReLU)
def _(node: spec.ReLU, place: Place) -> nn.Module:
    return nn.ReLU()


@build.register(spec.SiLU)
def _(node: spec.SiLU, place: Place) -> nn.Module:
    return nn.SiLU()


@build.register(spec.Sigmoid)
def _(node: spec.Sigmoid, place: Place) -> nn.Module:
    return nn.Sigmoid()


@build.register(spec.Acon)
def _(node: spec.Acon, place: Place) -> nn.Module:
    return modules.Acon()
