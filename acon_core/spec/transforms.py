"""What is done to specs before anything runs: initial values, lowering, the deterministic form, counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError
from acon_core.random import Stream
from acon_core.spec import primitives as p
from acon_core.spec import tokens as t
from acon_core.spec.graph import Graph, InitRule, Layer, Step, graph_of
from acon_core.spec.node import Node, join, named_params, walk
from acon_core.spec.param import Shape

__all__ = ["Counts", "Row", "count", "deterministic", "initial_state", "lower", "select", "summarise"]


def cast(array: NDArray[np.float64], integer: bool, dtype: str) -> NDArray:
    """A parameter's array in the network's dtype, or int64 where the parameter is a counter or an index."""
    return array.astype(np.int64 if integer else dtype)


def initial_state(node: Node, seed: int | None = 0, dtype: str = "float32") -> dict[str, NDArray]:
    """The initial values of every parameter, drawn once for all frameworks from a stream keyed by seed and path.

    The first of the network's init rules that fits decides, else the parameter's own. The same seed gives the same bits
    in every process; two parameters never share a stream. `None` draws nothing, for a state that is loaded afterwards:
    zeros, which cost no time, and what follows from the spec.
    """
    state = {}
    for rules, path, part in _walk_with_rules(node, "", ()):
        for name, param in part.params.items():
            if seed is None and param.kind != "derived":
                state[join(path, name)] = np.zeros(param.shape, np.int64 if param.integer else dtype)
            else:
                values = _init(rules, part, path, name).draw(param.shape, Stream("init", seed or 0, join(path, name)))
                state[join(path, name)] = cast(values, param.integer, dtype)
    return state


def _walk_with_rules(node: Node, path: str, rules: tuple[InitRule, ...]) -> Iterator[tuple[tuple[InitRule, ...], str, Node]]:
    if isinstance(node, Graph):
        rules = node.init_rules + rules
    yield rules, path, node
    for name, child in node.children.items():
        yield from _walk_with_rules(child, join(path, name), rules)


def _init(rules: tuple[InitRule, ...], node: Node, path: str, name: str):  # type: ignore[no-untyped-def]
    for rule in rules:
        if rule.node is type(node) and rule.param == name and rule.under in path:
            return rule.init
    return node.params[name].init


def rewrite(node: Node, change: Callable[[str, Node], Node | None], path: str = "") -> Node:
    """Return the network with every node replaced for which `change(path, node)` returns another.

    Parents come before children, and a replacement is not searched. Names, order and programs stay.
    A graph or layer without a replaced part stays the same object, so that backends keep their rule for it.
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
    """Return the network in primitives and graphs alone: each layer becomes its graph. Names and order stay."""
    return rewrite(node, lambda _, part: lower(part.graph) if isinstance(part, Layer) else None)


def deterministic(node: Node) -> Node:
    """The same network, same names, with nothing random in training: dropout and stochastic depth at rate 0."""
    return rewrite(node, lambda _, part: type(part)(0.0) if isinstance(part, (p.Dropout, p.DropPath)) else None)


def select(node: Node, taps: Sequence[str]) -> Graph:
    """The network whose outputs are these taps, in this order, without what none of them needs.

    A tap `child.value` is handed up under its own name by giving the child's graph one more output. Names of children, their
    order of definition and so the state's paths stay. Raises SpecError for a tap that no line makes.
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
        raise SpecError(f"select: no line makes the value {lost[0]!r}; children: {', '.join(graph.members)}")
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
        raise SpecError(f"select: no value {tap!r}: there is nothing inside of {type(node).__name__}")
    return graph


ATTENTION = (t.Attention.__name__, t.WindowAttention.__name__)


@dataclass(frozen=True)
class Row:
    """One leaf of a summary: where, what, the shapes in and out, trainable parameters and MACs."""

    path: str
    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    macs: int


def summarise(node: Node, *shapes: Shape, path: str = "") -> list[Row]:
    """Every leaf in the order of execution with its shapes and counts; a graph's own parameters get a row of their own."""
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
    """`parameters`: trainable; `decayed`: those under weight decay, which are the convolution and linear weights (what the
    published tables print); `biases`: of convolutions; `buffers`: elements of running statistics and of constants that the
    state holds; `state_keys`: tensors of the state; `macs`: of convolutions and linear layers for the input shape given, and
    `attention_macs` of attention."""

    parameters: int
    decayed: int
    biases: int
    buffers: int
    state_keys: int
    macs: int
    attention_macs: int

    def labelled(self) -> dict[str, int]:
        """The counts under the names that tables and the command line give them."""
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
    """Exact counts from the spec alone. `shapes`: of the inputs, which only the MACs depend on: 0 without them."""
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
