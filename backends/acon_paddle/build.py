"""Build a spec as a Paddle layer: a rule per primitive; `Graph` runs the rest line by line."""

from __future__ import annotations

from paddle import nn

from acon_core import spec
from acon_core.building import BuildContext, register_common
from acon_paddle import functional, modules, pointwise, tokens

build: spec.Rules[nn.Layer] = spec.Rules("acon_paddle.build")


def make(node: spec.Node, context: BuildContext) -> nn.Layer:
    """Build the layer of a node by its rule, else as a graph. Parameters are not initialised."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, make, context)
    return build(node, context)


@build.register(spec.Conv2d)
def conv2d(node: spec.Conv2d, context: BuildContext) -> nn.Layer:
    return nn.Conv2D(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups,
        bias_attr=None if node.bias else False,
    ).to(dtype=context.dtype)  # fmt: skip


@build.register(spec.Linear)
def linear(node: spec.Linear, context: BuildContext) -> nn.Layer:
    return modules.Linear(node.in_features, node.out_features, bias_attr=None if node.bias else False).to(dtype=context.dtype)


@build.register(spec.Dropout)
def dropout(node: spec.Dropout, context: BuildContext) -> nn.Layer:
    return modules.Dropout(node.rate)


@build.register(spec.DropPath)
def drop_path(node: spec.DropPath, context: BuildContext) -> nn.Layer:
    return modules.Dropout(node.rate, axis=0)


@build.register(spec.MaxPool2d)
def max_pool2d(node: spec.MaxPool2d, context: BuildContext) -> nn.Layer:
    return nn.MaxPool2D(node.kernel, node.stride, node.padding)


@build.register(spec.Flatten)
def flatten(node: spec.Flatten, context: BuildContext) -> nn.Layer:
    return nn.Flatten()


register_common(build, pointwise, functional, modules, tokens)
