"""Build a spec as a MegEngine module: a rule per primitive; `Graph` runs the rest line by line."""

from __future__ import annotations

import megengine.module as M

from acon_core import spec
from acon_core.building import BuildContext, register_common
from acon_megengine import functional, modules, pointwise, quantization, tokens

quantization.register()
build: spec.Rules[M.Module] = spec.Rules("acon_megengine.build")


def make(node: spec.Node, context: BuildContext) -> M.Module:
    """Build the module of a node by its rule, else as a graph. Parameters are not initialised."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, make, context)
    return build(node, context)


@build.register(spec.Conv2d)
def conv2d(node: spec.Conv2d, context: BuildContext) -> M.Module:
    return modules.Conv2d(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups, node.bias
    )


@build.register(spec.Linear)
def linear(node: spec.Linear, context: BuildContext) -> M.Module:
    return modules.Linear(node.in_features, node.out_features, node.bias)


@build.register(spec.BatchNorm)
def batch_norm(node: spec.BatchNorm, context: BuildContext) -> M.Module:
    norm = modules.BatchNorm(node.channels, node.eps, momentum=node.decay)
    norm.path = context.path
    return norm


@build.register(spec.LayerNorm)
def layer_norm(node: spec.LayerNorm, context: BuildContext) -> M.Module:
    return modules.LayerNorm(node.channels, node.eps)


@build.register(spec.Dropout)
def dropout(node: spec.Dropout, context: BuildContext) -> M.Module:
    return modules.Dropout(node.rate)


@build.register(spec.MaxPool2d)
def max_pool2d(node: spec.MaxPool2d, context: BuildContext) -> M.Module:
    return M.MaxPool2d(node.kernel, node.stride, node.padding)


register_common(build, pointwise, functional, modules, tokens)
