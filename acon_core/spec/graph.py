"""Graphs: named children and a straight-line program over named values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from acon_core.errors import SpecError
from acon_core.spec.node import Node
from acon_core.spec.param import Init, Param, Shape

__all__ = ["Graph", "InitRule", "Layer", "Step", "graph", "graph_of", "producer", "sequential"]


@dataclass(frozen=True)
class Step:
    """One line of a program: `outputs = child(inputs)`."""

    outputs: tuple[str, ...]
    child: str
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.outputs)} = {self.child}({', '.join(self.inputs)})"


@dataclass(frozen=True)
class InitRule:
    """In each `node` under a path that contains `under`, the parameter `param` starts as `init`. The first that fits wins."""

    node: type[Node]
    param: str
    init: Init
    under: str = ""


@dataclass(frozen=True, eq=False)
class Graph(Node):
    """Named `children` in the published order of definition, and `steps` that say in which order they run on what.

    Values are named: the `inputs`, the graph's own parameters, and what the steps make; each name is assigned once, each
    child is called once. Every value is a tap: `path.value`, where `path` is the graph's. `init_rules` are the published
    rules over paths that decide initial values below. `bare`: whether frameworks give one output as it is, or else, as of the
    stages of a backbone, a tuple of one. Raises SpecError for a program that cannot run.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    members: Mapping[str, Node]
    own_params: Mapping[str, Param] = field(default_factory=dict)
    init_rules: tuple[InitRule, ...] = ()
    single_output: bool = True

    def __post_init__(self) -> None:
        known = [*self.inputs, *self.own_params]
        for step in self.steps:
            missing = [name for name in step.inputs if name not in known]
            if missing:
                raise SpecError(f"Graph: `{step}` uses {missing[0]!r}, which no earlier line makes; known: {known}")
            known.extend(step.outputs)
        for what, names in (("value", known), ("child", [step.child for step in self.steps])):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise SpecError(f"Graph: {what} {sorted(twice)[0]!r} occurs twice; each is made or called once")
        unknown = {step.child for step in self.steps} ^ set(self.members)
        if unknown:
            raise SpecError(f"Graph: {sorted(unknown)[0]!r} is called but not defined, or defined but never called")
        lost = [name for name in self.outputs if name not in known]
        if lost:
            raise SpecError(f"Graph: no line makes the output {lost[0]!r}; known: {known}")

    @property
    def params(self) -> Mapping[str, Param]:
        return self.own_params

    @property
    def children(self) -> Mapping[str, Node]:
        return self.members

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        values = self.shapes(*shapes)
        return tuple(values[name] for name in self.outputs)

    def shapes(self, *shapes: Shape) -> dict[str, Shape]:
        """The shape of every named value. Raises SpecError that names the child where a shape does not fit."""
        if len(shapes) != len(self.inputs):
            raise SpecError(f"Graph: expected {len(self.inputs)} inputs {self.inputs}, found {len(shapes)}")
        values = dict(zip(self.inputs, shapes, strict=True))
        values.update({name: param.shape for name, param in self.own_params.items()})
        for step in self.steps:
            try:
                made = self.members[step.child].out_shapes(*(values[name] for name in step.inputs))
            except SpecError as error:
                raise SpecError(f"{step.child}: {error}") from None
            if len(made) != len(step.outputs):
                raise SpecError(f"{step.child}: `{step}` names {len(step.outputs)} values, but {len(made)} come out")
            values.update(zip(step.outputs, made, strict=True))
        return values


@dataclass(frozen=True)
class Layer(Node):
    """A named kind of graph, such as an activation: hyper-parameters as fields, and `graph`, what they stand for.

    Its parameters and children are its graph's. A backend may have a rule for a Layer (a module of its own that is better
    than the graph run line by line); where it has none, it runs the graph.
    """

    @cached_property
    def graph(self) -> Graph:
        return self.make_graph()

    def make_graph(self) -> Graph:
        raise NotImplementedError(type(self).__name__)

    @property
    def params(self) -> Mapping[str, Param]:
        return self.graph.params

    @property
    def children(self) -> Mapping[str, Node]:
        return self.graph.children

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.graph.out_shapes(*shapes)


def graph_of(node: Node) -> Node:
    """Return the graph of a layer, and any other node itself."""
    return node.graph if isinstance(node, Layer) else node


_LINE = re.compile(r"\s*([\w, ]+?)\s*=\s*(\w+)\(([\w, ]*)\)\s*")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def graph(
    inputs: str,
    program: Iterable[str],
    outputs: str,
    children: Mapping[str, Node],
    params: Mapping[str, Param] | None = None,
    init_rules: tuple[InitRule, ...] = (),
) -> Graph:
    """A graph from text: ``graph("x", ["t = branch(x)", "y = add(x, t)"], "y", {"branch": ..., "add": Add()})``."""
    steps = []
    for line in program:
        match = _LINE.fullmatch(line)
        if match is None:
            raise SpecError(f"graph: expected `values = child(values)`, found {line!r}")
        steps.append(Step(_names(match[1]), match[2], _names(match[3])))
    return Graph(_names(inputs), tuple(steps), _names(outputs), dict(children), dict(params or {}), init_rules)


def sequential(*nodes: Node, **named: Node) -> Graph:
    """Nodes run one after the other; those without a name are named by their position, as in `nn.Sequential`.

    The value that a child makes has the child's name, so that `features.3` is what block 3 of `features` puts out.
    """
    members = {**{str(index): node for index, node in enumerate(nodes)}, **named}
    values = ["x", *members]
    steps = tuple(Step((name,), name, (values[index],)) for index, name in enumerate(members))
    return Graph(("x",), steps, (values[-1],), members)


def producer(node: Node, tap: str) -> tuple[str, int]:
    """The path of the child that makes a tap, and which of its values it is: what a backend hooks to see the value.

    Raises SpecError when the graph at that path makes no such value.
    """
    *path, value = tap.split(".")
    for name in path:
        if name not in node.children:
            raise SpecError(f"tap {tap!r}: no child {name!r}; children: {', '.join(node.children)}")
        node = node.children[name]
    graph = graph_of(node)
    steps = graph.steps if isinstance(graph, Graph) else ()
    for step in steps:
        if value in step.outputs:
            return ".".join([*path, step.child]), step.outputs.index(value)
    made = [name for step in steps for name in step.outputs]
    raise SpecError(f"tap {tap!r}: no value {value!r} there; values: {', '.join(made) or 'none'}")
