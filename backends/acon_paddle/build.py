"""A spec as a Paddle layer: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paddle import nn

from acon_core import spec
from acon_paddle import modules


@dataclass(frozen=True)
class Place:
    """Where a layer is built: its path, for errors, and the dtype of its parameters."""

    dtype: str
    path: str = ""


build: spec.Rules[nn.Layer] = spec.Rules("acon_paddle.build")


def make(node: spec.Node, place: Place) -> nn.Layer:
    """The layer of a node, its parameters not yet set: by its rule if it has one, else its graph line by line."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(
            node, lambda name, child: make(child, replace(place, path=spec.join(place.path, name))), place.dtype
        )
    return build(node, place)


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: Place) -> nn.Layer:
    return nn.Conv2D(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups,
        bias_attr=None if node.bias else False,
    ).to(dtype=place.dtype)  # fmt: skip


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: Place) -> nn.Layer:
    return modules.BatchNorm(node.channels, node.eps, node.decay, dtype=place.dtype, path=place.path)


@build.register(spec.Linear)
def _(node: spec.Linear, place: Place) -> nn.Layer:
    return nn.Linear(node.in_features, node.out_features, bias_attr=None if node.bias else False).to(dtype=place.dtype)


@build.register(spec.MaxPool2d)
def _(node: spec.MaxPool2d, place: Place) -> nn.Layer:
    return nn.MaxPool2D(node.kernel, node.stride, node.padding)


@build.register(spec.GlobalAvgPool)
def _(node: spec.GlobalAvgPool, place: Place) -> nn.Layer:
    return modules.GlobalAvgPool()


@build.register(spec.Flatten)
def _(node: spec.Flatten, place: Place) -> nn.Layer:
    return nn.Flatten()


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: Place) -> nn.Layer:
    return modules.Dropout(node.rate)


@build.register(spec.Concat)
def _(node: spec.Concat, place: Place) -> nn.Layer:
    return modules.Concat()


@build.register(spec.Split)
def _(node: spec.Split, place: Place) -> nn.Layer:
    return modules.Split(node.parts, node.interleaved)


@build.register(spec.Shuffle)
def _(node: spec.Shuffle, place: Place) -> nn.Layer:
    return modules.Shuffle(node.groups)


@build.register(spec.ReLU)
def _(node: spec.ReLU, place: Place) -> nn.Layer:
    return nn.ReLU()


@build.register(spec.SiLU)
def _(node: spec.SiLU, place: Place) -> nn.Layer:
    return modules.SiLU()


@build.register(spec.Sigmoid)
def _(node: spec.Sigmoid, place: Place) -> nn.Layer:
    return nn.Sigmoid()


@build.register(spec.Acon)
def _(node: spec.Acon, place: Place) -> nn.Layer:
    return modules.Acon()
