"""A dialect: the names that another code base uses for the parameters of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import AconError
from acon_core.layout import ArrayTransform, Layout, Slot
from acon_core.spec.node import Node, join
from acon_core.spec.param import Param


@dataclass(frozen=True)
class Names:
    """The names of a node's parameters and children in a dialect, where they differ from the spec.

    `orders`: for a parameter whose elements are permuted, the index of each element in the spec.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """The names of another code base. Names that are not listed are the spec's.

    Parameters
    ----------
    name : str
        The value of ``--dialect``.
    description : str
        The code base, as printed in errors.
    nodes : mapping of Node to Names
        The names of a node wherever it occurs.
    paths : mapping of str to str
        A pattern of spec paths to the path in the dialect. In a pattern, ``*`` matches one name. In
        the path, ``{parent}`` is the dialect's path of the parent node and ``{index}`` the number
        of earlier matches of this pattern.
    absent : sequence of str
        Patterns of parameters that are not stored, because the network determines their values.
    networks : sequence of str
        Patterns of the registered networks that the dialect applies to; empty for any network.
    """

    name: str
    description: str
    nodes: Mapping[Node, Names] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    absent: Sequence[str] = ()
    networks: Sequence[str] = ()

    def rename(self, layout: Layout) -> Layout:
        """Return the layout with this dialect's names."""
        return DialectLayout(layout, self)

    def applies_to(self, network: str) -> bool:
        """Return whether a file of this network can use the dialect."""
        return not self.networks or any(_matches(pattern, network) for pattern in self.networks)

    def check(self, network: str) -> None:
        """Raise AconError if the dialect does not apply to the network."""
        if not self.applies_to(network):
            raise AconError(
                f"dialect {self.name} ({self.description}) does not apply to {network}; "
                f"omit the dialect, or pass --network with one of {', '.join(self.networks)}"
            )

    @property
    def parameter_names(self) -> frozenset[str]:
        """Parameter names that occur only in files of this dialect."""
        return frozenset(name for names in self.nodes.values() for name in names.params.values())


class DialectLayout(Layout):
    """A framework's layout with the names of a dialect."""

    def __init__(self, layout: Layout, dialect: Dialect) -> None:
        super().__init__(f"{layout.name}, dialect {dialect.name}", integers=layout.integers)
        self.layout, self.dialect = layout, dialect

    def names(self, node: Node) -> Names:
        """Return the dialect's names of a node."""
        return self.dialect.nodes.get(node, Names())

    def child(self, node: Node, name: str) -> str:
        return self.names(node).children.get(name, name)

    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        names = self.names(node)
        return {name: slot and _renamed(slot, name, names) for name, slot in self.layout.slots(node).items()}

    def table(self, node: Node) -> Iterator[tuple[str, Param, str | None, Slot | None]]:
        for path, param, native, slot in super().table(node):
            if any(_matches(pattern, path) for pattern in self.dialect.absent):
                yield path, param, None, None
            else:
                yield path, param, native, slot

    def places(self, node: Node, path: str = "", native: str = "") -> Iterator[tuple[str, str, Node]]:
        return self._walk(node, path, native, Counter())

    def _walk(self, node: Node, path: str, native: str, matches: Counter[str]) -> Iterator[tuple[str, str, Node]]:
        yield path, native, node
        for name, child in node.children.items():
            child_path, child_native = join(path, name), join(native, self.child(node, name))
            pattern = next((pattern for pattern in self.dialect.paths if _matches(pattern, child_path)), None)
            if pattern is not None:
                child_native = self.dialect.paths[pattern].format(parent=native, index=matches[pattern])
                matches[pattern] += 1
            yield from self._walk(child, child_path, child_native, matches)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", "[^.]+"))


def _matches(pattern: str, path: str) -> bool:
    return _compiled(pattern).fullmatch(path) is not None


def _renamed(slot: Slot, name: str, names: Names) -> Slot:
    native = names.params.get(name, slot.name)
    order = names.orders.get(name)
    if order is None:
        return Slot(native, slot.to_native, slot.to_canonical)
    permute, invert = _permutation(order), _permutation(tuple(np.argsort(order).tolist()))
    return Slot(native, lambda array: slot.to_native(permute(array)), lambda array: invert(slot.to_canonical(array)))


def _permutation(order: tuple[int, ...]) -> ArrayTransform:
    def permute(array: NDArray) -> NDArray:
        permuted: NDArray = array[list(order)]
        return permuted

    return permute
