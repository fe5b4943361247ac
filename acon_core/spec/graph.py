"""Graphs: named children and a straight-line program over named values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from acon_core.errors import SpecError
from acon_core.spec.node import Node, join
from acon_core.spec.param import Init, Param, Shape

__all__ = ["Graph", "InitRule", "Layer", "Step", "graph", "graph_of", "producer", "sequential"]


@dataclass(frozen=True)
class Step:
    """One line of a program: ``outputs = child(inputs)``.

    Parameters
    ----------
    outputs : tuple of str
        Names of the values that the child returns.
    child : str
        Name of the child.
    inputs : tuple of str
        Names of the values that it is called with.
    """

    outputs: tuple[str, ...]
    child: str
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.outputs)} = {self.child}({', '.join(self.inputs)})"


@dataclass(frozen=True)
class InitRule:
    """Initialise the parameter `param` of each `node` as `init`, if its path contains `under`.

    The first rule that matches wins.

    Parameters
    ----------
    node : type
        Type of the nodes.
    param : str
        Name of their parameter.
    init : Init
        Its initial values.
    under : str
        Text that the path of the node contains; "" for every node.
    """

    node: type[Node]
    param: str
    init: Init
    under: str = ""


@dataclass(frozen=True, eq=False)
class Graph(Node):
    """A network as named children and a program that calls each of them once.

    Parameters
    ----------
    inputs : tuple of str
        Names of the inputs.
    steps : tuple of Step
        The program. It names each value once; a value can be an input, a parameter of the graph or
        what a child returns.
    outputs : tuple of str
        Names of the values to return.
    members : mapping of str to Node
        The children in the published order of definition, which orders the state.
    own_params : mapping of str to Param
        Parameters of the graph itself.
    init_rules : tuple of InitRule
        The published rules for initial values, by path.
    single_output : bool, default True
        Whether backends return one output as it is. False for a backbone, which returns a tuple
        always.

    Raises
    ------
    SpecError
        If the program cannot run.

    Notes
    -----
    Every value is a tap, named ``path.value`` with the path of its graph.
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
            twice = sorted(name for name, times in Counter(names).items() if times > 1)
            if twice:
                raise SpecError(f"Graph: {what} {twice[0]!r} occurs twice; each is made or called once")
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
        """Return the shape of every named value. A SpecError names the child that does not fit."""
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
                raise SpecError(f"{step.child}: `{step}` names {len(step.outputs)} values, but the child returns {len(made)}")
            values.update(zip(step.outputs, made, strict=True))
        return values


@dataclass(frozen=True)
class Layer(Node):
    """A named kind of graph, such as an activation: hyperparameters as fields, and their graph.

    Parameters and children are those of `graph`. A backend may have a rule for a Layer, with a
    better module than the graph run line by line; otherwise it runs the graph.
    """

    @cached_property
    def graph(self) -> Graph:
        return self.make_graph()

    @cached_property
    def initial_values(self) -> tuple[tuple[str, Param, Init], ...]:
        """Each parameter with its path and the rule for its initial values."""
        return tuple(initial_values(self))

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


def initial_values(node: Node, path: str = "", rules: tuple[InitRule, ...] = ()) -> Iterator[tuple[str, Param, Init]]:
    """Yield the path of each parameter, the parameter, and the rule for its initial values.

    The first matching rule of `Graph.init_rules` decides, outer graphs last; else the parameter's
    own.
    """
    if isinstance(node, Graph):
        rules = node.init_rules + rules
    for name, param in node.params.items():
        matching = (rule.init for rule in rules if rule.node is type(node) and rule.param == name and rule.under in path)
        yield join(path, name), param, next(matching, param.init)
    for name, child in node.children.items():
        yield from initial_values(child, join(path, name), rules)


def graph_of(node: Node) -> Node:
    """Return the graph of a layer, and any other node itself.

    Parameters
    ----------
    node : Node
        A node.

    Returns
    -------
    Node
        The graph of a layer, else `node`.
    """
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
    """Return a graph from a program as text.

    Parameters
    ----------
    inputs : str
        Names of values, separated by commas.
    program : iterable of str
        Lines such as ``"y = add(x, t)"``.
    outputs : str
        Names of values, separated by commas.
    children : mapping of str to Node
        The children in the published order.
    params : mapping of str to Param, optional
        Parameters of the graph itself.
    init_rules : tuple of InitRule
        Rules for initial values.

    Returns
    -------
    Graph

    Raises
    ------
    SpecError
        If a line has another form, or the program cannot run.

    Examples
    --------
    >>> from acon_core import spec
    >>> children = {"branch": spec.ReLU(), "add": spec.Add()}
    >>> spec.graph("x", ["t = branch(x)", "y = add(x, t)"], "y", children).out_shapes((2, 3))
    ((2, 3),)
    """
    steps = []
    for line in program:
        match = _LINE.fullmatch(line)
        if match is None:
            raise SpecError(f"graph: expected `values = child(values)`, found {line!r}")
        steps.append(Step(_names(match[1]), match[2], _names(match[3])))
    return Graph(_names(inputs), tuple(steps), _names(outputs), dict(children), dict(params or {}), init_rules)


def sequential(*nodes: Node, **named: Node) -> Graph:
    """Return nodes that run one after the other, named by keyword or by position.

    The value that a child returns has the child's name: the tap `features.3` is the output of child
    3 of `features`.

    Parameters
    ----------
    *nodes : Node
        Nodes that are named by position.
    **named : Node
        Nodes that are named by keyword, which run after them.

    Returns
    -------
    Graph
        From one input to one output.

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.sequential(spec.ReLU(), head=spec.Linear(8, 3)).children)
    ['0', 'head']
    """
    members = {**{str(index): node for index, node in enumerate(nodes)}, **named}
    values = ["x", *members]
    steps = tuple(Step((name,), name, (values[index],)) for index, name in enumerate(members))
    return Graph(("x",), steps, (values[-1],), members)


def producer(node: Node, tap: str) -> tuple[str, int]:
    """Return the path of the child that makes a tap, and the index of the tap among its outputs.

    Parameters
    ----------
    node : Node
        A graph or layer.
    tap : str
        A value's path: ``child.value``, or ``value`` at the root.

    Returns
    -------
    tuple of str and int
        Path of the child, and index among its outputs.

    Raises
    ------
    SpecError
        If no child makes such a value.
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
