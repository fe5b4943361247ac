"""Run a node forward and backward in NumPy float64, by one rule per node type."""

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
    """The result of a vector-Jacobian product (VJP).

    Each gradient has a *scale*: the sum of the absolute values of the terms that were added to
    form it. Errors are reported relative to the scale, because many exact gradients are zero, such
    as that of a convolution's bias in front of a batch normalisation.

    Parameters
    ----------
    inputs : tuple of ndarray
        The gradient with respect to each input, of the input's shape.
    input_scales : tuple of ndarray
        Their scales, element by element.
    params : dict of str to ndarray
        The gradient with respect to each trained parameter, by path.
    scales : dict of str to ndarray
        Their scales, element by element.
    """

    inputs: tuple[Array, ...]
    input_scales: tuple[Array, ...]
    params: dict[str, Array]
    scales: dict[str, Array]


def gradients(*inputs: Array, scales: tuple[Array, ...] | None = None) -> Gradients:
    """Make the gradients of a node without parameters. By default the scale of g is |g|."""
    return Gradients(inputs, scales or tuple(np.abs(each) for each in inputs), {}, {})


Vjp = Callable[[tuple[Array, ...]], Gradients]
Values = tuple[tuple[Array, ...], Vjp]


def elementwise(y: Array, *derivatives: Array) -> Values:
    """Make the value and VJP of an elementwise function from its derivative for each input."""
    return (y,), lambda cotangents: gradients(*(cotangents[0] * derivative for derivative in derivatives))


def sigmoid(z: Array) -> Array:
    """Compute 1 / (1 + exp(-z)).

    Only exp(-|z|) is taken, so that it does not overflow and tiny values keep their precision.
    """
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


@dataclass(frozen=True)
class Context:
    """What a rule gets besides the node and its inputs.

    Parameters
    ----------
    state : mapping of str to ndarray
        The canonical state of the whole network.
    train : bool
        Whether the network runs in training mode.
    path : str
        Path of the node in the network.
    statistics, taps : dict of str to ndarray
        Where a rule puts new running statistics, and where a graph puts its intermediate values, by
        path. Shared by all nodes of a run.
    """

    state: Mapping[str, NDArray]
    train: bool
    path: str = ""
    statistics: dict[str, NDArray] = field(default_factory=dict)
    taps: dict[str, Array] = field(default_factory=dict)

    def param(self, name: str) -> Array:
        """Return a parameter of the node in float64."""
        return np.asarray(self.state[join(self.path, name)], np.float64)

    def child(self, name: str) -> Context:
        """Return the context of a child."""
        return replace(self, path=join(self.path, name))


evaluate: Rules[Values] = Rules("reference")
"""`evaluate(node, context, *inputs)` returns `(values, vjp)`.

The VJP names parameters relative to the node: "weight" for its own, "conv.weight" for a child's.
"""


@dataclass(frozen=True)
class Result:
    """The result of a forward run.

    Parameters
    ----------
    values : tuple of ndarray
        The outputs of the node.
    vjp : callable
        A function of the tuple of cotangents, one per output, that returns `Gradients`.
    statistics : dict of str to ndarray
        The running statistics after a training step, by path. Empty in evaluation.
    taps : dict of str to ndarray
        Every intermediate value of every graph, by path.
    """

    values: tuple[Array, ...]
    vjp: Vjp
    statistics: dict[str, NDArray]
    taps: dict[str, Array]


def forward(node: Node, state: Mapping[str, NDArray], inputs: Sequence[NDArray], train: bool = False) -> Result:
    """Run a node in float64.

    Parameters
    ----------
    node : Node
        A layer, an activation or a whole network.
    state : mapping of str to ndarray
        The canonical state, as `acon_core.spec.named_params` lists it, in any dtype. Never changed.
    inputs : sequence of ndarray
        The inputs, NCHW where they have spatial axes, in any dtype.
    train : bool
        Whether to run in training mode: batch normalisation uses the statistics of the batch.

    Returns
    -------
    Result
        The outputs, the VJP, the new running statistics and the intermediate values.

    Raises
    ------
    StateError
        If a name is missing or a shape is wrong.
    SpecError
        If the node does not accept the shapes, or is random in training (dropout).
    OneValuePerChannelError
        If a batch normalisation gets one value per channel in training.

    Examples
    --------
    >>> import numpy as np
    >>> from acon_core import spec
    >>> from acon_core.reference import forward
    >>> result = forward(spec.ReLU(), {}, [np.array([[-1.0, 2.0]])])
    >>> result.values[0].tolist()
    [[0.0, 2.0]]
    >>> result.vjp((np.ones((1, 2)),)).inputs[0].tolist()
    [[0.0, 1.0]]
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
    """Run a graph line by line, and any other node by its rule."""
    graph = graph_of(node)
    if not isinstance(graph, Graph):
        return evaluate(graph, context, *inputs)
    return run_graph(graph, context, *inputs, within_layer=isinstance(node, Layer))


def run_graph(graph: Graph, context: Context, *inputs: Array, within_layer: bool) -> tuple[tuple[Array, ...], Vjp]:
    """Run the steps in order. The VJP runs them in reverse and sums the cotangents of a value."""
    values = dict(zip(graph.inputs, inputs, strict=True))
    values.update({name: context.param(name) for name in graph.params})
    backward: list[Vjp] = []
    for step in graph.steps:
        outputs, vjp = run(graph.members[step.child], context.child(step.child), *(values[name] for name in step.inputs))
        values.update(zip(step.outputs, outputs, strict=True))
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
        # Within one layer, propagate scales through intermediate sums, which may nearly cancel. Do
        # not propagate them between layers: they would grow without bound.
        direct = set(graph.outputs) if within_layer else set(values)
        for step, vjp in zip(reversed(graph.steps), reversed(backward), strict=True):
            back = vjp(of(totals, step.outputs))
            scaled = back if set(step.outputs) <= direct else vjp(of(sizes, step.outputs))
            add(step.inputs, back.inputs, scaled.input_scales)
            params.update({join(step.child, name): gradient for name, gradient in back.params.items()})
            scales.update({join(step.child, name): scale for name, scale in scaled.scales.items()})
        own = [name for name, param in graph.params.items() if param.kind == "weight"]
        return Gradients(
            of(totals, graph.inputs),
            of(sizes, graph.inputs),
            dict(zip(own, of(totals, own), strict=True)) | params,
            dict(zip(own, of(sizes, own), strict=True)) | scales,
        )

    return tuple(values[name] for name in graph.outputs), graph_vjp
