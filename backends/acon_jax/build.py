"""Build a spec as an nnx module: a rule per primitive; `Graph` runs the rest line by line."""

from __future__ import annotations

from flax import nnx

from acon_core import spec
from acon_core.building import BuildContext, functions
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


@build.register(spec.BatchNorm)
def batch_norm(node: spec.BatchNorm, context: BuildContext) -> nnx.Module:
    return modules.BatchNorm(node.channels, node.eps, node.decay, dtype=context.dtype, path=context.path)


@build.register(spec.LayerNorm)
def layer_norm(node: spec.LayerNorm, context: BuildContext) -> nnx.Module:
    return modules.LayerNorm(node.channels, node.eps, dtype=context.dtype)


@build.register(spec.Dropout)
def dropout(node: spec.Dropout, context: BuildContext) -> nnx.Module:
    return nnx.Dropout(node.rate)


@build.register(spec.DropPath)
def drop_path(node: spec.DropPath, context: BuildContext) -> nnx.Module:
    return modules.DropPath(node.rate)


@build.register(spec.Acon)
def acon(node: spec.Acon, context: BuildContext) -> nnx.Module:
    return modules.Acon(node)


@build.register(spec.RepActFunction)
def repact(node: spec.RepActFunction, context: BuildContext) -> nnx.Module:
    return modules.Function(node, functional.repact)  # the number of gates says whether there is a shift


FUNCTIONS = functions(build, pointwise, functional, modules, tokens)


@build.register(*FUNCTIONS)
def function(node: spec.Node, context: BuildContext) -> nnx.Module:
    return modules.Function(node, FUNCTIONS[type(node)], **vars(node))
