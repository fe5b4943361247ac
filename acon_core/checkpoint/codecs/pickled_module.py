"""Read the state dict of a module that was pickled whole, without importing its classes.

Such a pickle contains the names of classes and the attributes of their instances. The state dict is
collected from the attributes. The class names are only text here.
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
    """Limit on the names that are visited.

    A small file can refer to the same modules so often that visiting them all would never end.
    """

    def __init__(self) -> None:
        self.left = limits.LIMITS.module_names

    def spend(self, count: int) -> None:
        """Use up `count` characters or attributes. Raises CheckpointError beyond the limit."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError("corrupt", "its modules refer to each other too often")


class ModuleMembers(NamedTuple):
    """What one module adds to the state dict, in order: its own tensors, then its child modules."""

    tensors: Mapping[str, object]
    modules: Mapping[str, Instance]


# Returns None for an instance that is not a module of the framework. Raises CheckpointError for a
# malformed module.
ReadMembers = Callable[[Instance, NameBudget], ModuleMembers | None]


def load_state(load: Callable[..., Unpickled], read_members: ReadMembers, where: object) -> tuple[Unpickled, list[str]]:
    """Load a pickle and replace whole modules in it by their state dicts.

    Returns the pickle and notes for the user; a note names the modules that were replaced.

    `load` is `unpickler.load` with all arguments but `allow_instances`, which is False at first. If
    that raises an error of kind `unsafe`, `load` is called again with True. Modules are then looked
    for at the top level and under `STATE_KEYS`. If there are none, the first error is raised.
    Raises CheckpointError, naming `where`, for a malformed module.
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
    is_dict = type(unpickled.value) is dict
    top = unpickled.value if is_dict else {"": unpickled.value}
    assert isinstance(top, dict)
    instances = {key: top[key] for key in (STATE_KEYS if is_dict else top) if type(top.get(key)) is Instance}
    budget = NameBudget()
    with ErrorPrefix(f"{where}: a whole module"):
        found = {key: _state_dict(instance, read_members, budget) for key, instance in instances.items()}
    states = {key: state for key, state in found.items() if state is not None}
    if not states:
        raise strict_error
    value = {**top, **states} if is_dict else states[""]
    names = ", ".join(str(instances[key].name) for key in states)
    note = f"a whole module ({names[:200]}) was read as its state dict; none of its classes was imported or called"
    return unpickled._replace(value=value), [note]


def _state_dict(module: Instance, read_members: ReadMembers, budget: NameBudget) -> dict[str, object] | None:
    """Return the state dict of a module, or None if the instance is not a module."""
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
                raise CheckpointError("unsupported", f"expected a module at {prefix + name!r:.80}, found a {child.name}")
            walk(child_members, f"{prefix}{name}.", depth + 1)

    members = read_members(module, budget)
    if members is None:
        return None
    walk(members, "", 0)
    return state
