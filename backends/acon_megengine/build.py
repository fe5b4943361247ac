"""A spec as a MegEngine module: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import megengine.module as M

from acon_core import spec
from acon_megengine import modules


@dataclass(frozen=True)
class BuildContext:
    """Where a module is built: its path, for errors. Parameters are float32, all that MegEngine trains in."""

    path: str = ""


build: spec.Rules[M.Module] = spec.Rules("acon_megengine.build")


def make(node: spec.Node, place: BuildContext) -> M.Module:
    """The module of a node, its parameters not yet set: by its rule if it has one, else its graph line by line.

    The module's `spec` is the node.
    """
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, lambda name, child: make(child, replace(place, path=spec.join(place.path, name))))
    made = build(node, place)
    made.spec = node
    return made


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: BuildContext) -> M.Module:
    return modules.Conv2d(
        node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, node.dilation, node.groups, node.bias
    )


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: BuildContext) -> M.Module:
    norm = modules.BatchNorm(node.channels, node.eps, momentum=node.decay)
    norm.path = place.path
    return norm


@build.register(spec.Linear)
def _(node: spec.Linear, place: BuildContext) -> M.Module:
    return modules.Linear(node.in_features, node.out_features, node.bias)


@build.register(spec.MaxPool2d)
def _(node: spec.MaxPool2d, place: BuildContext) -> M.Module:
    return M.MaxPool2d(node.kernel, node.stride, node.padding)


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: BuildContext) -> M.Module:
    return modules.Dropout(node.rate)


@build.register(spec.DropPath)
def _(node: spec.DropPath, place: BuildContext) -> M.Module:
    return modules.DropPath(node.rate)


@build.register(spec.LayerNorm)
def _(node: spec.LayerNorm, place: BuildContext) -> M.Module:
    return modules.LayerNorm(node.channels, node.eps)


@build.register(*modules.FUNCTIONS)
def _(node: spec.Node, place: BuildContext) -> M.Module:
    return modules.Apply(node)
