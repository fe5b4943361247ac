"""Canonical state and native state: one rule a node type, in each backend's `layout.py`, says where its arrays are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError, StateError
from acon_core.random import Stream
from acon_core.spec.node import Node, Rules, join
from acon_core.spec.param import Param, Shape
from acon_core.tensors import LazyTensor, LazyTensors, eager, lazy_items

Change = Callable[[NDArray], NDArray]
_BLOCK = 128


def same(array: NDArray) -> NDArray:
    """The array as it is."""
    return array


def contiguous(array: NDArray) -> NDArray:
    """The same values in C order: sums over a transposed view round otherwise.

    In blocks, which stay in the processor's cache: `ascontiguousarray` takes up to twice as long for a transposed matrix.
    """
    if array.flags.c_contiguous:
        return array
    made: NDArray = np.empty(array.shape, array.dtype)
    for begin in range(0, array.shape[-1], _BLOCK):
        made[..., begin : begin + _BLOCK] = array[..., begin : begin + _BLOCK]
    return made


@dataclass(frozen=True)
class Slot:
    """Where a framework keeps one parameter: its native name, and the array's way there and back (exact inverses)."""

    name: str
    to_native: Change = same
    to_canonical: Change = same


class Layout:
    """How one framework names and lays out the parameters of each node type.

    ``@layout.register(Conv2d)`` adds a rule: node -> {parameter: Slot}, or None in place of a Slot for what the framework
    does not keep (`num_batches_tracked` outside PyTorch). Graphs and layers keep their own parameters as they are unless
    they have a rule; not the integer ones where the framework has no int64 (`integers=False`). A primitive with parameters
    but no rule is a SpecError.
    """

    def __init__(self, name: str, *, integers: bool = True) -> None:
        self.name, self.integers = name, integers
        self.rules: Rules[Mapping[str, Slot | None]] = Rules(f"layout of {name}")
        self.register = self.rules.register

    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        if type(node) in self.rules or (node.params and not node.children):
            return self.rules(node)
        return {name: Slot(name) if self.integers or not param.integer else None for name, param in node.params.items()}

    def child(self, node: Node, name: str) -> str:
        """What a node's child is called here: as in the spec, everywhere but in a dialect."""
        return name

    def places(self, node: Node, path: str = "", native: str = "") -> Iterator[tuple[str, str, Node]]:
        """The node and all below it as (canonical path, native path, node), as `walk` has them."""
        yield path, native, node
        for name, child in node.children.items():
            yield from self.places(child, join(path, name), join(native, self.child(node, name)))

    def table(self, node: Node) -> Iterator[tuple[str, Param, str | None, Slot | None]]:
        """Every parameter as (canonical path, Param, native path, Slot), in the published order."""
        for path, native, part in self.places(node):
            slots = self.slots(part) if part.params else {}
            for name, param in part.params.items():
                if name not in slots:
                    raise SpecError(f"layout of {self.name}: {type(part).__name__} has no slot for {name!r}")
                slot = slots[name]
                yield join(path, name), param, join(native, slot.name) if slot else None, slot

    def each_shape(self, node: Node) -> Iterator[tuple[str, Shape]]:
        """Native names and shapes one by one, worked out as they are asked for."""
        for _, param, native, slot in self.table(node):
            if native is not None and slot is not None:
                yield native, _shape(slot.to_native, param.shape)

    def native_shapes(self, node: Node) -> dict[str, Shape]:
        """Native names and shapes, from the spec alone: what a file of this framework must hold."""
        return dict(self.each_shape(node))

    def to_native(self, node: Node, state: Mapping[str, NDArray]) -> LazyTensors:
        """A canonical state under native names in native layouts, in the published order; laid out when asked for."""
        given = lazy_items(state)
        return LazyTensors(
            {
                native: _changed(given[path], slot.to_native)
                for path, _, native, slot in self.table(node)
                if native is not None and slot is not None
            }
        )

    def to_canonical(self, node: Node, native_state: Mapping[str, NDArray]) -> tuple[LazyTensors, list[str]]:
        """A native state as the canonical one, and the paths that the framework does not keep and that are made anew.

        Strict: a missing or unexpected name, or a wrong shape, is a StateError that names it. A parameter that the framework
        does not keep is what its init says: a counter 0, an index what follows from the spec.
        """
        given = lazy_items(native_state)
        expected = self.native_shapes(node)
        missing = [name for name in expected if name not in given]
        extra = [name for name in given if name not in expected]
        if missing or extra:
            which = f"{missing[0]!r} is missing" if missing else f"{extra[0]!r} is not the network's"
            raise StateError(f"{which} ({len(missing)} missing, {len(extra)} left over, {len(expected)} expected)")
        state: dict[str, LazyTensor] = {}
        made = []
        for path, param, native, slot in self.table(node):
            if native is None or slot is None:
                if param.kind not in ("counter", "derived"):
                    raise SpecError(f"layout of {self.name}: {path} is a {param.kind} and cannot be left out")
                state[path] = eager(param.init.draw(param.shape, Stream("init", path)).astype(np.int64))
                made.append(path)
                continue
            if given[native].shape != expected[native]:
                raise StateError(f"{native}: expected shape {expected[native]}, found {given[native].shape}")
            state[path] = _changed(given[native], slot.to_canonical)
        return LazyTensors(state), made


def _changed(tensor: LazyTensor, change: Change) -> LazyTensor:
    return LazyTensor(_shape(change, tensor.shape), tensor.dtype, lambda: contiguous(change(tensor.load())))


def _shape(change: Change, shape: Shape) -> Shape:
    """What a change makes of a shape, without an array of that size."""
    return change(np.broadcast_to(np.int8(0), shape)).shape
