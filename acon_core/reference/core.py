"""How the reference runs a node: one rule a type gives the values and the way back, in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import StateError
from acon_core.spec.graph import Graph, Layer, graph_of
from acon_core.spec.node import Node, Rules, join, named_params

Array = NDArray[np.float64]


class Gradients(NamedTuple):
    """What a vjp gives: gradients of the inputs, and of the parameters by path; and the scale of each, which is the sum of
    the absolute values of the terms that it is the sum of in the last layer that made it. Rounding is measured against
    that: a convolution's bias before BatchNorm has a gradient of exactly 0, and so has the input of a norm of two values."""

    inputs: tuple[Array, ...]
    input_scales: tuple[Array, ...]
    params: dict[str, Array]
    scales: dict[str, Array]


def gradients(*inputs: Array, scales: tuple[Array, ...] | None = None) -> Gradients:
    """Of a node without parameters. Each gradient is its own scale where it is no sum of several terms."""
    return Gradients(inputs, scales or tuple(np.abs(each) for each in inputs), {}, {})


Vjp = Callable[[tuple[Array, ...]], Gradients]
Values = tuple[tuple[Array, ...], Vjp]


def simple(y: Array, *back: Array) -> Values:
    """A value without parameters of its own whose vjp multiplies by `back`, one factor an input."""
    return (y,), lambda cotangents: gradients(*(cotangents[0] * factor for factor in back))


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) from exp(-|z|) alone, so that nothing overflows and small values keep their digits."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


@dataclass(frozen=True)
class Context:
    """Where a node is run: its path, the state, the mode, and what is collected on the way."""

    state: Mapping[str, NDArray]
    train: bool
    path: str = ""
    statistics: dict[str, NDArray] = field(default_factory=dict)
    taps: dict[str, Array] = field(default_factory=dict)

    def param(self, name: str) -> Array:
        return np.asarray(self.state[join(self.path, name)], np.float64)

    def child(self, name: str) -> Context:
        return replace(self, path=join(self.path, name))


evaluate: Rules[Values] = Rules("reference")
"""`evaluate(node, context, *inputs) -> (values, vjp)`. The vjp's parameter names are the node's own, its children's dotted."""


@dataclass(frozen=True)
class Result:
    """`values` of the node's outputs, its `vjp`, the `statistics` after a training step, every named value by path (`taps`)."""

    values: tuple[Array, ...]
    vjp: Vjp
    statistics: dict[str, NDArray]
    taps: dict[str, Array]


def forward(node: Node, state: Mapping[str, NDArray], inputs: Sequence[NDArray], train: bool = False) -> Result:
    """Run a node in float64. `state`: arrays by path, as `named_params(node)` lists them; `inputs`: NCHW arrays.

    In training, batch statistics are used and `statistics` has the running values after the step; the state itself is not
    changed. Raises StateError for a missing name or a wrong shape, OneValuePerChannelError, SpecError for dropout.
    """
    for path, param in named_params(node).items():
        if path not in state:
            raise StateError(f"{path}: missing from the state; expected shape {param.shape}")
        if np.shape(state[path]) != param.shape:
            raise StateError(f"{path}: expected shape {param.shape}, found {np.shape(state[path])}")
    node.out_shapes(*(np.shape(x) for x in inputs))
    context = Context(state, train)
    with np.errstate(invalid="ignore", over="ignore"):
        values, vjp = run(node, context, *(np.asarray(x, np.float64) for x in inputs))
    return Result(values, vjp, context.statistics, context.taps)


def run(node: Node, context: Context, *inputs: Array) -> tuple[tuple[Array, ...], Vjp]:
    """A graph line by line, anything else by its rule."""
    graph = graph_of(node)
    if not isinstance(graph, Graph):
        return evaluate(graph, context, *inputs)
    return run_graph(graph, context, *inputs, within_layer=isinstance(node, Layer))


def run_graph(graph: Graph, context: Context, *inputs: Array, within_layer: bool) -> tuple[tuple[Array, ...], Vjp]:
    """The steps in order; back, the same steps in reverse, adding up what each value is told."""
    values = dict(zip(graph.inputs, inputs, strict=True))
    values.update({name: context.param(name) for name in graph.params})
    backward: list[Vjp] = []
    for step in graph.steps:
        made, vjp = run(graph.members[step.child], context.child(step.child), *(values[name] for name in step.inputs))
        values.update(zip(step.outputs, made, strict=True))
        context.taps.update({join(context.path, name): values[name] for name in step.outputs})
        backward.append(vjp)

    def graph_vjp(cotangents: tuple[Array, ...]) -> Gradients:
        totals: dict[str, Array] = {}
        sizes: dict[str, Array] = {}
        params: dict[str, Array] = {}
        scales: dict[str, Array] = {}

        def add(names: Sequence[str], parts: Sequence[Array], part_sizes: Sequence[Array]) -> None:
            for name, part, size in zip(names, parts, part_sizes, strict=True):
                totals[name] = totals[name] + part if name in totals else part
                sizes[name] = sizes[name] + size if name in sizes else size

        def of(table: Mapping[str, Array], names: Sequence[str]) -> tuple[Array, ...]:
            return tuple(table[name] if name in table else np.zeros_like(values[name]) for name in names)

        add(graph.outputs, cotangents, [np.abs(each) for each in cotangents])
        # Inside of a layer, the terms of a generator or of RepAct's factors are those of the sums that told it, which may all
        # but cancel. From layer to layer of a network they are not handed on: they would grow without end.
        straight = set(graph.outputs) if within_layer else set(values)
        for step, vjp in zip(reversed(graph.steps), reversed(backward), strict=True):
            back = vjp(of(totals, step.outputs))
            told = back if set(step.outputs) <= straight else vjp(of(sizes, step.outputs))
            add(step.inputs, back.inputs, told.input_scales)
            params.update({join(step.child, name): gradient for name, gradient in back.params.items()})
            scales.update({join(step.child, name): scale for name, scale in told.scales.items()})
        own = [name for name, param in graph.params.items() if param.kind == "weight"]
        return Gradients(
            of(totals, graph.inputs),
            of(sizes, graph.inputs),
            dict(zip(own, of(totals, own), strict=True)) | params,
            dict(zip(own, of(sizes, own), strict=True)) | scales,
        )

    return tuple(values[name] for name in graph.outputs), graph_vjp
