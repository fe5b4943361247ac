"""Other people's names for what the spec has: a table a code base, read and written as a framework's own names are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import AconError
from acon_core.layout import Change, Layout, Slot
from acon_core.spec.node import Node
from acon_core.spec.repact import RepAct


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
    """A code base's names: for each node that has others there, what they are; everything else is called as in the spec.

    `about`: which code, as the end of a sentence that begins with its name.
    """

    name: str
    about: str
    table: Mapping[Node, Names]

    def over(self, layout: Layout) -> Layout:
        """A framework's layout under this dialect's names."""
        return _Spoken(layout, self)

    @property
    def marks(self) -> frozenset[str]:
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


def _taken(order: tuple[int, ...]) -> Change:
    def change(array: NDArray) -> NDArray:
        taken: NDArray = array[list(order)]
        return taken

    return change


_REPACT = {"weights": "ActorAtn", "alpha": "actor_PReLU.weight"}
# Ours are identity, ReLU, PReLU, HardSwish; RepAct I and III have the last two the other way round.
_HARDSWISH_FIRST = {"weights": (0, 1, 3, 2)}

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "repact",
            "the RepAct code's RepAct_Origin, RepAct_Softmax and RepAct_BN",
            {
                RepAct(variant=1): Names(_REPACT, orders=_HARDSWISH_FIRST),
                RepAct(variant=2): Names(_REPACT),
                RepAct(variant=3): Names(_REPACT, {"norm": "bn"}, _HARDSWISH_FIRST),
            },
        ),
        Dialect(
            "repact_reconstruct",
            "the RepAct code's RepAct_Origin_Reconstruct and RepAct_Softmax_Reconstruct",
            {RepAct(variant=1): Names(_REPACT), RepAct(variant=2): Names(_REPACT)},
        ),
    )
}


def dialect_named(name: str | None) -> Dialect | None:
    """The dialect of that name; None, the spec's own names, for None. Raises AconError for one that does not exist."""
    if name is not None and name not in DIALECTS:
        known = "; ".join(f"{each.name}, {each.about}" for each in DIALECTS.values())
        raise AconError(f"--dialect {name}: no such dialect; known: {known}")
    return DIALECTS[name] if name else None


def heard(names: Iterable[str]) -> str | None:
    """What to do about a file with names of a dialect, where it was read without one: the end of an error. None: nothing."""
    for name in names:
        speakers = [each for each in DIALECTS.values() if any(name.endswith(f".{mark}") for mark in each.marks)]
        if speakers:
            choices = ", or ".join(f"--dialect {each.name} for {each.about}" for each in speakers)
            return f"{name!r} is no name of the spec's; pass {choices}: which it was, the tensors cannot tell"
    return None
