"""Transformations of specs before anything runs: initial values, lowering, selection, counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError
from acon_core.random import Stream
from acon_core.spec import primitives as p
from acon_core.spec import tokens as t
from acon_core.spec.graph import Graph, Layer, Step, graph_of, initial_values
from acon_core.spec.node import Node, join, named_params, walk
from acon_core.spec.param import Shape

__all__ = ["Counts", "Row", "count", "deterministic", "initial_state", "lower", "select", "summarise"]


def cast(array: NDArray[np.float64], integer: bool, dtype: str) -> NDArray:
    """Return a parameter's array in the network's dtype, or as int64 if `integer`."""
    return array.astype(np.int64 if integer else dtype, copy=False)


def initial_state(
    node: Node, seed: int | None = 0, dtype: str = "float32", *, only: Collection[str] | None = None
) -> dict[str, NDArray]:
    """Return the initial value of every parameter, the same bits for every framework.

    Parameters
    ----------
    node : Node
        The network.
    seed : int, optional
        Seed of the random numbers. Each parameter has a stream of its own, keyed by seed and path.
        None fills the state with zeros, for values that are loaded later; derived values are
        computed.
    dtype : str, default "float32"
        Dtype of all arrays except counters and indices.
    only : collection of str, optional
        Paths of nodes. The parameters of other nodes are left out.

    Returns
    -------
    dict of str to array
        The state by path.

    Notes
    -----
    `Graph.init_rules` decide first, those of inner graphs before outer ones; then the parameter.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.initial_state(spec.AconC(2, init="paper"))["p1"].ravel()
    array([1., 1.], dtype=float32)
    """
    state = {}
    # A layer, such as an activation that is made many times, keeps its table.
    for path, param, init in node.initial_values if isinstance(node, Layer) else initial_values(node):
        if only is not None and path.rpartition(".")[0] not in only:
            continue
        if seed is None and param.kind != "derived":
            state[path] = np.zeros(param.shape, np.int64 if param.integer else dtype)
        else:
            state[path] = cast(init.draw(param.shape, Stream("init", seed or 0, path)), param.integer, dtype)
    return state


def rewrite(node: Node, change: Callable[[str, Node], Node | None], path: str = "") -> Node:
    """Return the network with every node replaced for which `change(path, node)` returns another.

    Parents come before children, and a replacement is not searched. Names, order and programs stay.
    A graph or layer without a replaced part stays the same object, so that backends keep their rule
    for it.
    """
    changed = change(path, node)
    if changed is not None:
        return changed
    graph = graph_of(node)
    if not isinstance(graph, Graph):
        return node
    members = {name: rewrite(child, change, join(path, name)) for name, child in graph.members.items()}
    same = all(members[name] is child for name, child in graph.members.items())
    return node if same else replace(graph, members=members)


def lower(node: Node) -> Node:
    """Return the network in primitives and graphs alone: each layer becomes its graph.

    Parameters
    ----------
    node : Node
        A network.

    Returns
    -------
    Node
        The network without layers, under the same names.
    """
    return rewrite(node, lambda _, part: lower(part.graph) if isinstance(part, Layer) else None)


def deterministic(node: Node) -> Node:
    """Return the network without randomness: dropout and stochastic depth have rate 0.

    Parameters
    ----------
    node : Node
        A network.

    Returns
    -------
    Node
        The network without randomness, under the same names.
    """
    return rewrite(node, lambda _, part: type(part)(0.0) if isinstance(part, (p.Dropout, p.DropPath)) else None)


def select(node: Node, taps: Sequence[str]) -> Graph:
    """Return the network whose outputs are these taps, without the layers that none of them needs.

    A tap `child.value` becomes one more output of the child's graph. Names, order and paths stay.

    Parameters
    ----------
    node : Node
        The network.
    taps : sequence of str
        Values by path, in the order of the outputs.

    Returns
    -------
    Graph

    Raises
    ------
    SpecError
        If no child makes a tap.
    """
    graph = _graph_with(node, taps[0])
    wanted, steps, members = set(taps), list[Step](), dict[str, Node]()
    for step in reversed(graph.steps):
        own = [name for name in step.outputs if name in wanted]
        below = [tap for tap in dict.fromkeys(taps) if tap.startswith(f"{step.child}.") and tap not in step.outputs]
        if not own and not below:
            continue
        member = graph.members[step.child]
        if below or (len(own) < len(step.outputs) and isinstance(member, Graph)):
            ends = dict(zip(step.outputs, _graph_with(member, (*below, *own)[0]).outputs, strict=True))
            member = select(member, [*(ends[name] for name in own), *(tap.removeprefix(f"{step.child}.") for tap in below)])
            step = Step((*own, *below), step.child, step.inputs)
        steps.insert(0, step)
        members[step.child] = member
        wanted |= set(step.inputs)
    lost = [tap for tap in taps if not any(tap in step.outputs for step in steps)]
    if lost:
        raise SpecError(f"select: no child makes the value {lost[0]!r}; children: {', '.join(graph.members)}")
    return replace(
        graph,
        steps=tuple(steps),
        outputs=tuple(taps),
        members={name: members[name] for name in graph.members if name in members},
        own_params={name: param for name, param in graph.own_params.items() if name in wanted},
    )


def _graph_with(node: Node, tap: str) -> Graph:
    graph = graph_of(node)
    if not isinstance(graph, Graph):
        raise SpecError(f"select: no value {tap!r}: {type(node).__name__} has no children")
    return graph


ATTENTION = (t.Attention.__name__, t.WindowAttention.__name__)


@dataclass(frozen=True)
class Row:
    """One leaf of a summary.

    Parameters
    ----------
    path, kind : str
        Where it is, and the name of its type.
    inputs, outputs : tuple of shapes
        Of its values.
    parameters, macs : int
        Trainable parameters and multiply-accumulates.
    """

    path: str
    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    macs: int


def summarise(node: Node, *shapes: Shape, path: str = "") -> list[Row]:
    """Return a row per leaf in execution order, and one per graph with parameters of its own.

    Parameters
    ----------
    node : Node
        A network.
    *shapes : Shape
        Shapes of its inputs.
    path : str
        Path of the network, put before every other.

    Returns
    -------
    list of Row
        Rows in the order of execution.
    """
    graph = graph_of(node)
    own = sum(math.prod(param.shape) for param in graph.params.values() if param.kind == "weight")
    if not isinstance(graph, Graph):
        return [Row(path, type(node).__name__, shapes, node.out_shapes(*shapes), own, node.macs(*shapes))]
    rows = [Row(path, type(node).__name__, shapes, graph.out_shapes(*shapes), own, 0)] if own else []
    values = graph.shapes(*shapes)
    for step in graph.steps:
        arguments = tuple(values[name] for name in step.inputs)
        rows += summarise(graph.members[step.child], *arguments, path=join(path, step.child))
    return rows


@dataclass(frozen=True)
class Counts:
    """Exact counts of a network.

    Parameters
    ----------
    parameters : int
        Trainable parameters.
    decayed : int
        Those under weight decay: convolution and linear weights, which published tables count.
    biases : int
        Biases of convolutions.
    buffers : int
        Elements of running statistics and derived constants.
    state_keys : int
        Arrays of the state.
    macs, attention_macs : int
        Multiply-accumulates of convolutions and linear layers, and of attention.
    """

    parameters: int
    decayed: int
    biases: int
    buffers: int
    state_keys: int
    macs: int
    attention_macs: int

    def labelled(self) -> dict[str, int]:
        """Return the counts under the names that tables and the command line use."""
        return {
            "parameters": self.parameters,
            "conv and linear weights only": self.decayed,
            "conv biases": self.biases,
            "buffers": self.buffers,
            "state keys": self.state_keys,
            "MACs (conv and linear)": self.macs,
            "attention MACs": self.attention_macs,
        }


def count(node: Node, *shapes: Shape) -> Counts:
    """Return exact counts from the spec alone. MACs are 0 without the inputs' `shapes`.

    Parameters
    ----------
    node : Node
        A network.
    *shapes : Shape
        Shapes of its inputs; without them, MACs are 0.

    Returns
    -------
    Counts
        Parameters, buffers and multiply-accumulates.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.count(spec.Linear(4, 3), (2, 4)).macs
    24
    """
    table = named_params(node)

    def total(wanted: Callable[..., bool]) -> int:
        return sum(math.prod(param.shape) for path, param in table.items() if wanted(path, param))

    rows = summarise(node, *shapes) if shapes else []
    convolutions = {path for path, part in walk(node) if type(part) is p.Conv2d}
    return Counts(
        parameters=total(lambda _, param: param.kind == "weight"),
        decayed=total(lambda _, param: param.decay),
        biases=total(lambda path, _: path.endswith(".bias") and path.removesuffix(".bias") in convolutions),
        buffers=total(lambda _, param: param.kind in ("statistic", "derived")),
        state_keys=len(table),
        macs=sum(row.macs for row in rows if row.kind not in ATTENTION),
        attention_macs=sum(row.macs for row in rows if row.kind in ATTENTION),
    )
