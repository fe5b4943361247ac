"""What the values of a pickle become: inert names and objects, and keys that cannot collide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.pickle_reader import corrupt


@dataclass(frozen=True)
class GlobalName:
    """What the opcode GLOBAL pushes: a module's name and a name in it, as text."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


class Placeholder:
    """A value that a checkpoint contains and no reader looks at, such as a `torch.device`."""


@dataclass(eq=False, repr=False)
class Instance:
    """An object of a class that is not in the table: the name of the class, and its state.

    A `plain` object was made without arguments, and has a dict as its state and no items. Of any
    other only the name is kept.
    """

    name: GlobalName
    state: dict[Any, Any] | None = None
    plain: bool = True


@dataclass(frozen=True)
class OtherKey:
    """A dict key that no state dict has, such as a tuple, as text: Python hashes text at random.

    Otherwise a file could contain keys of equal hashes, and inserting n of those takes time of
    order n**2.
    """

    text: str
    is_object: bool = False

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Constructor:
    """What replaces a global: `reduce` makes a value from arguments, `build` sets its state.

    Without `reduce` the name may occur, as `numpy.ndarray` does, but not be called. The opcode
    BUILD accepts only values whose constructor has `build`. Both functions raise CheckpointError
    for arguments that no checkpoint contains.
    """

    reduce: Callable[[tuple[Any, ...]], object] | None = None
    build: Callable[[Any, Any], None] | None = None


GlobalTable = Mapping[tuple[str, str], Constructor]  # by module and name
PersistentLoad = Callable[[object], object]
NAME_ONLY = Constructor()
PLACEHOLDER = Constructor(lambda args: Placeholder(), lambda value, state: None)


def set_item(target: dict[Any, Any], key: object, value: object) -> None:
    """Add an item to a dict, whose key must be new, and text or an integer from 0 to 2**31 - 1."""
    # Hashing any other key may recurse into a deeply nested tuple.
    if type(key) not in (str, int, OtherKey):
        corrupt(f"expected text or an integer as a dict key, found a {type(key).__name__}")
    # Large integers can have equal hashes, and inserting n of those takes time of order n**2.
    if type(key) is int and not 0 <= key < 1 << 31:
        corrupt(f"expected text or a small integer as a dict key, found the number {key:.6g}")
    if key in target:
        corrupt(f"the key {key!r:.80} occurs twice in a dict")
    target[key] = value


def is_foreign(module: str, name: str) -> bool:
    """Whether a global can be a class of a library or a script outside the standard library."""
    # A dotted name would be a path of attributes.
    identifiers = all(part.isidentifier() for part in (*module.split("."), name))
    return identifiers and module.partition(".")[0] not in _STANDARD_LIBRARY


def key_text(key: object, budget: list[int], depth: int = 0) -> str:
    """Return a dict key as text, which is equal for equal keys. Raises CheckpointError."""
    budget[0] -= 1 + (len(key) if isinstance(key, str | memoryview) else 0)
    if budget[0] < 0 or depth > limits.LIMITS.depth:
        corrupt("its dict keys are too long, too many, or nested too deep")
    if type(key) is tuple:
        return f"({', '.join(key_text(each, budget, depth + 1) for each in key)})"
    if type(key) is memoryview:
        return repr(bytes(key))
    if type(key) is int and abs(key) >= 1 << 60:
        corrupt(f"expected text or a small integer as a dict key, found the number {key:.6g}")
    if type(key) in (list, dict):
        corrupt(f"expected a value that can be a dict key, found a {type(key).__name__}")
    return repr(key) if type(key) in (str, int, float, bool, type(None)) else f"<{type(key).__name__} {budget[0]}>"


def _instance_state(instance: Instance, state: object) -> None:
    if type(state) is tuple and len(state) == 2 and state[1] is None:
        state = {} if state[0] is None else state[0]  # second are the values of `__slots__`
    special = type(state) is dict and any(type(key) is str and key[:2] == key[-2:] == "__" for key in state)
    if type(state) is not dict or special or instance.state is not None:
        instance.plain = False
        return
    instance.state = state


INSTANCE = Constructor(build=_instance_state)
_PYTHON_2_LIBRARY = "__builtin__ copy_reg cPickle cStringIO StringIO commands popen2 urllib2 new sets"
_STANDARD_LIBRARY = {*sys.stdlib_module_names, *_PYTHON_2_LIBRARY.split()}
