"""How the reference runs a node: one rule a type gives the values and the way back, in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import StateError
from acon_core.spec.graph import Graph, Layer
from acon_core.spec.node import Node, Rules, join, named_params

Array = NDArray[np.float64]


class Gradients(NamedTuple):
    """What a vjp gives: cotangents of the inputs, gradients of the parameters by path, and each gradient's scale, which is
    the sum of the absolute values of the terms that the gradient is the sum of: what its rounding is measured against."""

    inputs: tuple[Array, ...]
    params: dict[str, Array]
    scales: dict[str, Array]


Vjp = Callable[[tuple[Array, ...]], Gradients]


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


evaluate: Rules[tuple[tuple[Array, ...], Vjp]] = Rules("reference")
"""`evaluate(node, context, *inputs) -> (values, vjp)`. The vjp's parameter names are the node's own, its children's dotted."""


@dataclass(frozen=True)
class Result:
    """`values` by the node's outputs, `vjp`, the `statistics` after a training step, every named value of the graph (`taps`)."""

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
    graph = node.graph if isinstance(node, Layer) else node
    return run_graph(graph, context, *inputs) if isinstance(graph, Graph) else evaluate(graph, context, *inputs)


def run_graph(graph: Graph, context: Context, *inputs: Array) -> tuple[tuple[Array, ...], Vjp]:
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
        scales: dict[str, Array] = {name: np.zeros(param.shape) for name, param in graph.params.items()}
        params: dict[str, Array] = {}
        child_scales: dict[str, Array] = {}

        def add(names: Sequence[str], parts: Sequence[Array], part_scales: Mapping[str, Array]) -> None:
            for index, (name, part) in enumerate(zip(names, parts, strict=True)):
                totals[name] = totals[name] + part if name in totals else part
                if name in scales:
                    scales[name] = scales[name] + part_scales.get(f"input{index}", np.abs(part))

        add(graph.outputs, cotangents, {})
        for step, vjp in zip(reversed(graph.steps), reversed(backward), strict=True):
            gradients = vjp(tuple(totals.get(name, np.zeros_like(values[name])) for name in step.outputs))
            add(step.inputs, gradients.inputs, gradients.scales)
            params.update({join(step.child, name): value for name, value in gradients.params.items()})
            child_scales.update({join(step.child, n): s for n, s in gradients.scales.items() if n in gradients.params})
        own = {name: totals.get(name, np.zeros(param.shape)) for name, param in graph.params.items()}
        inputs_back = tuple(totals.get(name, np.zeros_like(values[name])) for name in graph.inputs)
        return Gradients(inputs_back, {**own, **params}, {**scales, **child_scales})

    return tuple(values[name] for name in graph.outputs), graph_vjp
