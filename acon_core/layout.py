"""Map a canonical state to the names and array layouts of a framework, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError, StateError
from acon_core.random import Stream
from acon_core.spec.node import Node, Rules, join
from acon_core.spec.param import Param, Shape
from acon_core.tensors import LazyTensor, LazyTensors, check_names, eager, lazy_items

__all__ = ["Layout", "Slot"]

ArrayTransform = Callable[[NDArray], NDArray]
_BLOCK = 128


def unchanged(array: NDArray) -> NDArray:
    """Return the array as it is."""
    return array


def contiguous(array: NDArray) -> NDArray:
    """Return the array in C order: reductions over a transposed view round differently.

    Copies blocks that fit the processor's cache, because `numpy.ascontiguousarray` takes up to
    twice as long for a transposed matrix.
    """
    if array.flags.c_contiguous:
        return array
    copy: NDArray = np.empty(array.shape, array.dtype)
    for begin in range(0, array.shape[-1], _BLOCK):
        copy[..., begin : begin + _BLOCK] = array[..., begin : begin + _BLOCK]
    return copy


@dataclass(frozen=True)
class Slot:
    """Where and how a framework stores one parameter.

    Parameters
    ----------
    name : str
        The native name of the parameter in its module.
    to_native, to_canonical : callable
        Transpose or reshape the array to the framework's layout and back. Exact inverses of each
        other.
    """

    name: str
    to_native: ArrayTransform = unchanged
    to_canonical: ArrayTransform = unchanged


class Layout:
    """The native names and array layouts of one framework, by node type.

    ``@layout.register(Conv2d)`` adds a rule: a function of the node that returns, for each of its
    parameters, a `Slot`, or None if the framework does not store the parameter
    (`num_batches_tracked` outside PyTorch).

    Parameters
    ----------
    name : str
        Name of the framework, for messages.
    integers : bool
        Whether graphs and layers without a rule store their int64 parameters. False for a framework
        without int64.

    Notes
    -----
    A graph or layer without a rule stores its own parameters under their canonical names,
    unchanged. A primitive with parameters must have a rule; without one, its conversion raises
    SpecError.
    """

    def __init__(self, name: str, *, integers: bool = True) -> None:
        self.name, self.integers = name, integers
        self.rules: Rules[Mapping[str, Slot | None]] = Rules(f"layout of {name}")
        self.register = self.rules.register

    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        """Return the slot of each of the node's own parameters, None where it is not stored."""
        if type(node) in self.rules or (node.params and not node.children):
            return self.rules(node)
        return {name: Slot(name) if self.integers or not param.integer else None for name, param in node.params.items()}

    def child(self, node: Node, name: str) -> str:
        """Return the native name of a child: the canonical one, unless a dialect renames it."""
        return name

    def places(self, node: Node, path: str = "", native: str = "") -> Iterator[tuple[str, str, Node]]:
        """Yield (canonical path, native path, node) for the node and all below it, like `walk`."""
        yield path, native, node
        for name, child in node.children.items():
            yield from self.places(child, join(path, name), join(native, self.child(node, name)))

    def table(self, node: Node) -> Iterator[tuple[str, Param, str | None, Slot | None]]:
        """Yield (canonical path, Param, native path, Slot) for every parameter, in published order.

        The native path and the slot are None for a parameter that the framework does not store.
        """
        for path, native, part in self.places(node):
            slots = self.slots(part) if part.params else {}
            for name, param in part.params.items():
                if name not in slots:
                    raise SpecError(f"layout of {self.name}: {type(part).__name__} has no slot for {name!r}")
                slot = slots[name]
                yield join(path, name), param, join(native, slot.name) if slot else None, slot

    def each_shape(self, node: Node) -> Iterator[tuple[str, Shape]]:
        """Yield (native path, native shape) for every stored parameter, computed one at a time."""
        for _, param, native, slot in self.table(node):
            if native is not None and slot is not None:
                yield native, _shape(slot.to_native, param.shape)

    def native_shapes(self, node: Node) -> dict[str, Shape]:
        """Return the native names and shapes that a file of this framework must have."""
        return dict(self.each_shape(node))

    def to_native(self, node: Node, state: Mapping[str, NDArray]) -> LazyTensors:
        """Convert a canonical state to native names and layouts.

        Parameters
        ----------
        node : Node
            The network or layer.
        state : mapping of str to ndarray
            Its canonical state. Lazy tensors stay lazy.

        Returns
        -------
        LazyTensors
            The native state, in published order, C-contiguous.
        """
        given = lazy_items(state)
        return LazyTensors(
            {
                native: _transformed(given[path], slot.to_native)
                for path, _, native, slot in self.table(node)
                if native is not None and slot is not None
            }
        )

    def to_canonical(self, node: Node, native_state: Mapping[str, NDArray]) -> tuple[LazyTensors, list[str]]:
        """Convert a native state to canonical names and layouts.

        Parameters
        ----------
        node : Node
            The network or layer.
        native_state : mapping of str to ndarray
            Its native state. Lazy tensors stay lazy.

        Returns
        -------
        state : LazyTensors
            The canonical state, in published order, C-contiguous.
        created : list of str
            Paths of the parameters that the framework does not store. They have their initial
            values: 0 for a counter, and what follows from the spec for an index.

        Raises
        ------
        StateError
            If a name is missing or unexpected, or a shape is wrong.
        """
        given = lazy_items(native_state)
        expected = self.native_shapes(node)
        check_names(expected, given, f"state in the layout of {self.name}")
        state: dict[str, LazyTensor] = {}
        created = []
        for path, param, native, slot in self.table(node):
            if native is None or slot is None:
                if param.kind not in ("counter", "derived"):
                    raise SpecError(f"layout of {self.name}: {path} is a {param.kind} and cannot be left out")
                state[path] = eager(param.init.draw(param.shape, Stream("init", path)).astype(np.int64))
                created.append(path)
                continue
            if given[native].shape != expected[native]:
                raise StateError(f"{native}: expected shape {expected[native]}, found {given[native].shape}")
            state[path] = _transformed(given[native], slot.to_canonical)
        return LazyTensors(state), created


def _transformed(tensor: LazyTensor, transform: ArrayTransform) -> LazyTensor:
    return LazyTensor(_shape(transform, tensor.shape), tensor.dtype, lambda: contiguous(transform(tensor.load())))


def _shape(transform: ArrayTransform, shape: Shape) -> Shape:
    """Compute the shape after a transform without allocating an array of that size."""
    return transform(np.broadcast_to(np.int8(0), shape)).shape
