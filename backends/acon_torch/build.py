"""Build PyTorch modules from a spec: a rule per primitive node, `modules.Graph` for the others."""

from __future__ import annotations

from torch import nn

from acon_core import spec
from acon_core.building import BuildContext, register_common
from acon_torch import functional, modules, pointwise, tokens

build: spec.Rules[nn.Module] = spec.Rules("acon_torch.build")


def make(node: spec.Node, context: BuildContext) -> nn.Module:
    """Build the module of a node by its rule, else as a graph. Leave parameters uninitialised."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        several = len(spec.graph_of(node).inputs) > 1
        return (modules.GraphOfSeveral if several else modules.Graph)(node, make, context)
    return build(node, context)


@build.register(spec.Conv2d)
def conv2d(node: spec.Conv2d, context: BuildContext) -> nn.Module:
    return modules.Conv2d(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups, node.bias,
        dtype=context.dtype,
    )  # fmt: skip


@build.register(spec.Linear)
def linear(node: spec.Linear, context: BuildContext) -> nn.Module:
    return modules.Linear(node.in_features, node.out_features, node.bias, dtype=context.dtype)


@build.register(spec.BatchNorm)
def batch_norm(node: spec.BatchNorm, context: BuildContext) -> nn.Module:
    norm = modules.BatchNorm(node.channels, node.eps, momentum=1 - node.decay, dtype=context.dtype)
    norm.path = context.path
    return norm


@build.register(spec.Dropout)
def dropout(node: spec.Dropout, context: BuildContext) -> nn.Module:
    return nn.Dropout(node.rate)


@build.register(spec.MaxPool2d)
def max_pool2d(node: spec.MaxPool2d, context: BuildContext) -> nn.Module:
    return nn.MaxPool2d(node.kernel, node.stride, node.padding)


@build.register(spec.Flatten)
def flatten(node: spec.Flatten, context: BuildContext) -> nn.Module:
    return nn.Flatten()


@build.register(spec.ChannelShuffle)
def channel_shuffle(node: spec.ChannelShuffle, context: BuildContext) -> nn.Module:
    return nn.ChannelShuffle(node.groups)


@build.register(spec.WindowAttention)
def window_attention(node: spec.WindowAttention, context: BuildContext) -> nn.Module:
    return tokens.WindowAttention(node)


register_common(build, pointwise, functional, modules, tokens)
