"""Build a spec as an nnx module: a rule per primitive; `Graph` runs the rest line by line."""

from __future__ import annotations

from flax import nnx

from acon_core import spec
from acon_core.building import BuildContext, register_common
from acon_jax import functional, modules, pointwise, tokens

build: spec.Rules[nnx.Module] = spec.Rules("acon_jax.build")


def make(node: spec.Node, context: BuildContext) -> nnx.Module:
    """Build the module of a node by its rule, else as a graph. Parameters are zeros."""
    if isinstance(node, spec.Graph | spec.Layer) and type(node) not in build:
        return modules.Graph(node, make, context)
    return build(node, context)


@build.register(spec.Conv2d)
def conv2d(node: spec.Conv2d, context: BuildContext) -> nnx.Module:
    return modules.Conv2d(
        node.in_channels, node.out_channels, node.kernel, node.stride,
        padding=tuple((size, size) for size in node.padding), kernel_dilation=node.dilation, feature_group_count=node.groups,
        use_bias=node.bias, param_dtype=context.dtype, **modules.ZEROS,
    )  # fmt: skip


@build.register(spec.Linear)
def linear(node: spec.Linear, context: BuildContext) -> nnx.Module:
    return modules.Linear(node.in_features, node.out_features, use_bias=node.bias, param_dtype=context.dtype, **modules.ZEROS)


@build.register(spec.Dropout)
def dropout(node: spec.Dropout, context: BuildContext) -> nnx.Module:
    return nnx.Dropout(node.rate)


register_common(build, pointwise, functional, modules, tokens)
