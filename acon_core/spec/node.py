"""What a node is, and `Rules`: how an operation says what it does to each type of node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from acon_core.errors import SpecError
from acon_core.spec.param import Param, Shape

__all__ = ["Node", "Rules", "join", "named_params", "walk"]


@dataclass(frozen=True, eq=False)
class Node:
    """One layer or network as data: frozen, no arrays, no framework. Arrays are NCHW, weights OIHW and (out, in).

    Leaves and layers are equal when their fields are; graphs, whose fields are tables, only when they are the same object.
    A node's type is final: operations look it up exactly, so that a subclass can never fall into its parent's rule.
    """

    @property
    def params(self) -> Mapping[str, Param]:
        """The node's own arrays by name, in the published order."""
        return {}

    @property
    def children(self) -> Mapping[str, Node]:
        """The nodes inside by name, in the published order of definition (not of execution)."""
        return {}

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """The shapes of the values that come out when values of these shapes go in. Raises SpecError when none can."""
        raise NotImplementedError(type(self).__name__)

    def macs(self, *shapes: Shape) -> int:
        """The multiply-accumulates of its own products, not of its children, for inputs of these shapes."""
        return 0


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """The node and all below it, as (path, node), parents first, children in order of definition."""
    yield path, node
    for name, child in node.children.items():
        yield from walk(child, join(path, name))


def join(path: str, name: str) -> str:
    """`path.name`, or `name` at the root."""
    return f"{path}.{name}" if path else name


def named_params(node: Node) -> dict[str, Param]:
    """Every parameter by its path, in the published order: a node's own before its children's. This is the state's schema."""
    return {join(path, name): param for path, part in walk(node) for name, param in part.params.items()}


R = TypeVar("R")


class Rules(Generic[R]):
    """An operation over nodes: one short rule a type, looked up by the node's exact type.

    ``@build.register(Conv2d)`` adds a rule; ``build(node, ...)`` runs it. A type without a rule is a SpecError that names
    the operation and the type: there is no fall-through to a parent class.
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
