"""State dicts of whole pickled modules, read without any of their classes.

A pickled module holds the names of its classes and their attributes. A walk through the attributes
gives the state dict; the class names stay text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.state_dict import STATE_KEYS
from acon_core.checkpoint.codecs.text import ErrorPrefix
from acon_core.checkpoint.codecs.unpickler import Instance, Unpickled
from acon_core.errors import CheckpointError


class NameBudget:
    """Bound on the names that a walk looks at: a small file may refer to one module very often."""

    def __init__(self) -> None:
        self.left = limits.LIMITS.module_names

    def spend(self, count: int) -> None:
        """Count characters of names, or attributes. Raises CheckpointError above the bound."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError("corrupt", "its modules refer to each other too often")


class ModuleMembers(NamedTuple):
    """What one module adds to the state dict, in order: its own tensors, then its child modules."""

    tensors: Mapping[str, object]
    modules: Mapping[str, Instance]


# Returns None for an instance that is not a module of the framework; raises CheckpointError for a
# broken one.
ReadMembers = Callable[[Instance, NameBudget], ModuleMembers | None]


def load_state(load: Callable[..., Unpickled], read_members: ReadMembers, where: object) -> tuple[Unpickled, list[str]]:
    """Load a pickle; replace whole modules in it by their state dicts, with a note for each.

    `load` is `unpickler.load` with all arguments but `allow_instances`, which is False at first.
    Only if that raises an `unsafe` error it is True. Then only modules at the top level or under
    one of `STATE_KEYS` count; if there is none, the first error is raised. Raises CheckpointError,
    naming `where`, for a broken module.
    """
    try:
        return load(allow_instances=False), []
    except CheckpointError as error:
        if error.kind != "unsafe":
            raise
        strict_error = error
    try:
        unpickled = load(allow_instances=True)
    except CheckpointError:
        raise strict_error from None
    nested = type(unpickled.value) is dict
    top = unpickled.value if nested else {"": unpickled.value}
    assert isinstance(top, dict)
    modules = {key: top[key] for key in (STATE_KEYS if nested else top) if type(top.get(key)) is Instance}
    budget = NameBudget()
    with ErrorPrefix(f"{where}: a whole module"):
        walked = {key: _state_dict(module, read_members, budget) for key, module in modules.items()}
    states = {key: state for key, state in walked.items() if state is not None}
    if not states:
        raise strict_error
    value = {**top, **states} if nested else states[""]
    names = ", ".join(str(modules[key].name) for key in states)
    note = f"a whole module ({names[:200]}) was read as its state dict; none of its classes was imported or called"
    return unpickled._replace(value=value), [note]


def _state_dict(module: Instance, read_members: ReadMembers, budget: NameBudget) -> dict[str, object] | None:
    state: dict[str, object] = {}

    def walk(members: ModuleMembers, prefix: str, depth: int) -> None:
        if depth > limits.LIMITS.depth:
            raise CheckpointError(
                "corrupt", f"its modules are nested more than {limits.LIMITS.depth} deep, or contain themselves"
            )
        budget.spend(sum(len(prefix) + len(name) for name in (*members.tensors, *members.modules)))
        for name, tensor in members.tensors.items():
            if prefix + name in state:
                raise CheckpointError("corrupt", f"two of its tensors have the name {prefix + name!r:.80}")
            state[prefix + name] = tensor
        for name, child in members.modules.items():
            child_members = read_members(child, budget)
            if child_members is None:
                raise CheckpointError("unsupported", f"expected a module as {prefix + name!r:.80}, found a {child.name}")
            walk(child_members, f"{prefix}{name}.", depth + 1)

    members = read_members(module, budget)
    if members is None:
        return None
    walk(members, "", 0)
    return state
