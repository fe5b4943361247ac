"""What a dialect is: a table of names, and the layout that it makes of a framework's."""

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
    """What one node's parameters and children are called, where that is not what the spec calls them.

    `orders`: of a parameter whose elements are in another order, which of ours stands in each place.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """A code base's names: what is called otherwise there; everything else is called as in the spec.

    `about`: which code, as the end of a sentence that begins with its name. `table`: a node's names wherever it stands.
    `places`: names that follow from the place in the whole network: a pattern of paths of the spec's, in which `*` is any one
    name, to the whole path there, in which `{up}` is what the node above is called and `{count}` how many places have had
    that row before. `absent`: patterns of parameters that its files do not have, since they follow from the network.
    `networks`: patterns of the registry's names in which it is spoken; any, where there are none.
    """

    name: str
    about: str
    table: Mapping[Node, Names] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    absent: Sequence[str] = ()
    networks: Sequence[str] = ()

    def rename(self, layout: Layout) -> Layout:
        """A framework's layout under this dialect's names."""
        return _Spoken(layout, self)

    def applies_to(self, network: str) -> bool:
        """Whether a network of that name may have this dialect's names."""
        return not self.networks or any(_fits(pattern, network) for pattern in self.networks)

    def check(self, network: str) -> None:
        """Raise AconError for a network that has nothing to do with this dialect: under its names it would be another one."""
        if not self.applies_to(network):
            raise AconError(
                f"dialect {self.name}: {self.about} has {', '.join(self.networks)}, and not {network}; pass --network"
            )

    @property
    def parameter_names(self) -> frozenset[str]:
        """Its names of parameters: no file has one of them that is not in this dialect."""
        return frozenset(theirs for names in self.table.values() for theirs in names.params.values())


class _Spoken(Layout):
    def __init__(self, layout: Layout, dialect: Dialect) -> None:
        super().__init__(f"{layout.name}, dialect {dialect.name}", integers=layout.integers)
        self.layout, self.dialect = layout, dialect

    def names(self, node: Node) -> Names:
        # Only what is hashable, a layer or a leaf, can be in a table; a graph is nobody's but its own.
        return self.dialect.table.get(node, Names())

    def child(self, node: Node, name: str) -> str:
        return self.names(node).children.get(name, name)

    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        names = self.names(node)
        return {name: slot and _renamed(slot, name, names) for name, slot in self.layout.slots(node).items()}

    def table(self, node: Node) -> Iterator[tuple[str, Param, str | None, Slot | None]]:
        for path, param, native, slot in super().table(node):
            if any(_fits(pattern, path) for pattern in self.dialect.absent):
                yield path, param, None, None
            else:
                yield path, param, native, slot

    def places(self, node: Node, path: str = "", native: str = "") -> Iterator[tuple[str, str, Node]]:
        return self._walk(node, path, native, Counter())

    def _walk(self, node: Node, path: str, native: str, seen: Counter[str]) -> Iterator[tuple[str, str, Node]]:
        yield path, native, node
        for name, child in node.children.items():
            place, below = join(path, name), join(native, self.child(node, name))
            row = next((pattern for pattern in self.dialect.places if _fits(pattern, place)), None)
            if row is not None:
                below = self.dialect.places[row].format(up=native, count=seen[row])
                seen[row] += 1
            yield from self._walk(child, place, below, seen)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", "[^.]+"))


def _fits(pattern: str, path: str) -> bool:
    return _compiled(pattern).fullmatch(path) is not None


def _renamed(slot: Slot, name: str, names: Names) -> Slot:
    order = names.orders.get(name)
    if order is None:
        return Slot(names.params.get(name, slot.name), slot.to_native, slot.to_canonical)
    there, back = _taken(order), _taken(tuple(np.argsort(order).tolist()))
    return Slot(
        names.params.get(name, slot.name),
        lambda array: slot.to_native(there(array)),
        lambda array: back(slot.to_canonical(array)),
    )


def _taken(order: tuple[int, ...]) -> ArrayTransform:
    def change(array: NDArray) -> NDArray:
        taken: NDArray = array[list(order)]
        return taken

    return change
