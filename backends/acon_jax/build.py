"""A spec as an nnx module: one short rule a primitive; graphs are run by `Graph`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flax import nnx
from jax.typing import DTypeLike

from acon_core import spec
from acon_jax import modules

ZEROS = nnx.initializers.zeros_init()


@dataclass(frozen=True)
class Place:
    """Where a module is built: its path, for errors and taps, and the dtype of its parameters, which start as zeros.

    `rngs` is what Flax's own layers ask for; zeros take nothing from it.
    """

    dtype: DTypeLike
    path: str = ""
    rngs: nnx.Rngs = field(default_factory=lambda: nnx.Rngs(0))

    def child(self, name: str) -> Place:
        return replace(self, path=spec.join(self.path, name))


build: spec.Rules[nnx.Module] = spec.Rules("acon_jax.build")


def make(node: spec.Node, place: Place) -> nnx.Module:
    """The module of a node, its parameters not yet set: by its rule if it has one, else its graph line by line."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, lambda name, child: make(child, place.child(name)), place.dtype, place.path)
    return build(node, place)


@build.register(spec.Conv2d)
def _(node: spec.Conv2d, place: Place) -> nnx.Module:
    return nnx.Conv(
        node.in_channels, node.out_channels, node.kernel, node.stride,
        padding=[(size, size) for size in node.padding], kernel_dilation=node.dilation, feature_group_count=node.groups,
        use_bias=node.bias, dtype=place.dtype, param_dtype=place.dtype, kernel_init=ZEROS, rngs=place.rngs,
    )  # fmt: skip


@build.register(spec.BatchNorm)
def _(node: spec.BatchNorm, place: Place) -> nnx.Module:
    return modules.BatchNorm(node.channels, node.eps, node.decay, dtype=place.dtype, path=place.path)


@build.register(spec.Linear)
def _(node: spec.Linear, place: Place) -> nnx.Module:
    return modules.Linear(
        node.in_features, node.out_features,
        use_bias=node.bias, dtype=place.dtype, param_dtype=place.dtype, kernel_init=ZEROS, rngs=place.rngs,
    )  # fmt: skip


@build.register(spec.MaxPool2d)
def _(node: spec.MaxPool2d, place: Place) -> nnx.Module:
    return modules.MaxPool2d(node.kernel, node.stride, node.padding)


@build.register(spec.GlobalAvgPool)
def _(node: spec.GlobalAvgPool, place: Place) -> nnx.Module:
    return modules.GlobalAvgPool()


@build.register(spec.Flatten)
def _(node: spec.Flatten, place: Place) -> nnx.Module:
    return modules.Flatten()


@build.register(spec.Dropout)
def _(node: spec.Dropout, place: Place) -> nnx.Module:
    return nnx.Dropout(node.rate)


@build.register(spec.Concat)
def _(node: spec.Concat, place: Place) -> nnx.Module:
    return modules.Concat()


@build.register(spec.Split)
def _(node: spec.Split, place: Place) -> nnx.Module:
    return modules.Split(node.parts, node.interleaved)


@build.register(spec.Shuffle)
def _(node: spec.Shuffle, place: Place) -> nnx.Module:
    return modules.Shuffle(node.groups)


@build.register(spec.ReLU)
def _(node: spec.ReLU, place: Place) -> nnx.Module:
    return modules.Elementwise(nnx.relu)


@build.register(spec.SiLU)
def _(node: spec.SiLU, place: Place) -> nnx.Module:
    return modules.Elementwise(nnx.silu)


@build.register(spec.Sigmoid)
def _(node: spec.Sigmoid, place: Place) -> nnx.Module:
    return modules.Elementwise(nnx.sigmoid)


@build.register(spec.Acon)
def _(node: spec.Acon, place: Place) -> nnx.Module:
    return modules.Acon()
