"""`Node`, the base of everything in a spec, and `Rules`, an operation over types of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from acon_core.errors import SpecError
from acon_core.spec.param import Param, Shape

__all__ = ["Node", "Rules", "join", "named_params", "walk"]


@dataclass(frozen=True, eq=False)
class Node:
    """One layer or network as data: immutable, without arrays and without a framework.

    Values are NCHW; weights are OIHW and (out, in).

    Notes
    -----
    Nodes are equal if their fields are; graphs, whose fields are tables, only if they are the same
    object. Operations look up the exact type: a subclass does not inherit the rule of its parent.
    """

    @property
    def params(self) -> Mapping[str, Param]:
        """The node's own parameters by name, in the published order."""
        return {}

    @property
    def children(self) -> Mapping[str, Node]:
        """The nodes inside by name, in the published order of definition, not of execution."""
        return {}

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Return the shapes of the outputs for inputs of these shapes, or raise SpecError."""
        raise NotImplementedError(type(self).__name__)

    def macs(self, *shapes: Shape) -> int:
        """Return the multiply-accumulates of the node itself for inputs of these shapes."""
        return 0


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield (path, node) for the node and all below it, parents first, in order of definition.

    Parameters
    ----------
    node : Node
        The root.
    path : str
        Path of the root.

    Yields
    ------
    tuple of str and Node
        Path and node.
    """
    yield path, node
    for name, child in node.children.items():
        yield from walk(child, join(path, name))


def join(path: str, name: str) -> str:
    """Return `path.name`, or `name` at the root.

    Parameters
    ----------
    path : str
        Path of a node, "" for the root.
    name : str
        Name of a child or parameter.

    Returns
    -------
    str
        Path of the child or parameter.
    """
    return f"{path}.{name}" if path else name


def named_params(node: Node) -> dict[str, Param]:
    """Return every parameter by path, in the published order: a node's own before its children's.

    This table is the schema of the state.

    Parameters
    ----------
    node : Node
        A node.

    Returns
    -------
    dict from str to Param
        Parameters by path.

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.named_params(spec.sequential(spec.Linear(4, 3), spec.AconA(3))))
    ['0.weight', '0.bias', '1.beta']
    """
    return {join(path, name): param for path, part in walk(node) for name, param in part.params.items()}


R = TypeVar("R")


class Rules(Generic[R]):
    """An operation over nodes: one rule per type, looked up by the node's exact type.

    ``@build.register(Conv2d)`` adds a rule; ``build(node, ...)`` runs it. A type without a rule is
    a SpecError that names the operation and the type.

    Parameters
    ----------
    operation : str
        Name of the operation, for errors.

    Examples
    --------
    >>> from acon_core import spec
    >>> size = spec.Rules("size")
    >>> @size.register(spec.Linear)
    ... def linear(node):
    ...     return node.in_features * node.out_features
    >>> size(spec.Linear(4, 3))
    12
    """

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self._rules: dict[type[Node], Callable[..., R]] = {}

    def register(self, *types: type[Node]) -> Callable[[Callable[..., R]], Callable[..., R]]:
        def add(rule: Callable[..., R]) -> Callable[..., R]:
            for node_type in types:
                if node_type in self._rules:
                    raise SpecError(f"{self.operation}: {node_type.__name__} has a rule already")
                self._rules[node_type] = rule
            return rule

        return add

    def __contains__(self, node_type: type[Node]) -> bool:
        return node_type in self._rules

    def __call__(self, node: Node, *args: Any, **kwargs: Any) -> R:
        rule = self._rules.get(type(node))
        if rule is None:
            raise SpecError(f"{self.operation} has no rule for {type(node).__name__}; register one for exactly that type")
        return rule(node, *args, **kwargs)
