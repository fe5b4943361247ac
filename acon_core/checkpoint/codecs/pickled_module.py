"""Whole modules in a pickle: the tensors of their state dict, found without any of their classes.

A framework that pickles a module writes its class's name and its attributes. The attributes are enough: the state dict is a
walk through them. The names stay names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.state_dict import STATE_KEYS
from acon_core.checkpoint.codecs.unpickler import Instance, Pickled
from acon_core.errors import CheckpointError


class Steps:
    """How much of a module may still be looked at; a small file may name the same module very often."""

    def __init__(self) -> None:
        self.left = limits.LIMITS.module_names

    def spend(self, count: int) -> None:
        """Count characters of names, or attributes. Raises CheckpointError when there are too many."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError("corrupt", "its modules name each other again and again")


class Parts(NamedTuple):
    """What one module adds to the state dict, in its order: tensors of its own, then the modules inside of it."""

    tensors: Mapping[str, object]
    modules: Mapping[str, Instance]


# Gives none for an instance that is not a module of the framework. Raises CheckpointError for one that is broken.
Take = Callable[[Instance, Steps], Parts | None]


def load_state(load: Callable[[bool], Pickled], take: Take, where: object) -> tuple[Pickled, list[str]]:
    """What `load` reads, in which a whole module is its state dict, and a note where there was one.

    `load` is told whether instances of unknown classes may occur, as `unpickler.load` is; that is tried only after a reading
    without them met something unsafe, and counts only where a module stands at the top or under one of the usual names. In
    all other cases the first error is raised. Raises CheckpointError, naming `where`, for a module that is broken.
    """
    try:
        return load(False), []
    except CheckpointError as error:
        if error.kind != "unsafe":
            raise
        strict = error
    try:
        pickled = load(True)
    except CheckpointError:
        raise strict from None
    nested = type(pickled.value) is dict
    top = pickled.value if nested else {"": pickled.value}
    assert isinstance(top, dict)
    modules = {key: top[key] for key in (STATE_KEYS if nested else top) if type(top.get(key)) is Instance}
    steps = Steps()
    try:
        states = {key: _state_dict(module, take, steps) for key, module in modules.items()}
    except CheckpointError as error:
        raise CheckpointError(error.kind, f"{where}: a whole module: {error}") from None
    found = {key: state for key, state in states.items() if state is not None}
    if not found:
        raise strict
    value = {**top, **found} if nested else found[""]
    names = ", ".join(str(modules[key].name) for key in found)
    note = f"a whole module ({names[:200]}) was read as its state dict; none of its classes was looked up or called"
    return pickled._replace(value=value), [note]


def _state_dict(module: Instance, take: Take, steps: Steps) -> dict[str, object] | None:
    state: dict[str, object] = {}

    def walk(parts: Parts, prefix: str, depth: int) -> None:
        if depth > limits.LIMITS.depth:
            raise CheckpointError(
                "corrupt", f"its modules are nested more than {limits.LIMITS.depth} deep, or contain themselves"
            )
        steps.spend(sum(len(prefix) + len(name) for name in (*parts.tensors, *parts.modules)))
        for name, tensor in parts.tensors.items():
            if prefix + name in state:
                raise CheckpointError("corrupt", f"two of its tensors would have the name {prefix + name!r:.80}")
            state[prefix + name] = tensor
        for name, child in parts.modules.items():
            inner = take(child, steps)
            if inner is None:
                raise CheckpointError(
                    "unsupported", f"{prefix + name!r:.80} is a {child.name}, which is not a module of layers"
                )
            walk(inner, f"{prefix}{name}.", depth + 1)

    parts = take(module, steps)
    if parts is None:
        return None
    walk(parts, "", 0)
    return state
