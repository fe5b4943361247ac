"""Read the state dict of a module that was pickled whole, without importing its classes.

Such a pickle contains the names of classes and the attributes of their instances. The state dict is
collected from the attributes. The class names are only text here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.pickle_values import Instance, OtherKey
from acon_core.checkpoint.codecs.state_dict import FoundState, StateKinds, find_state, no_state_error
from acon_core.checkpoint.codecs.text import ErrorPrefix, format_names
from acon_core.checkpoint.codecs.unpickler import Unpickled
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


@dataclass(frozen=True)
class LoadedState:
    """The state dict in a pickle.

    `place` is the path of its keys, empty at the top. `notes` are for the user.
    """

    tensors: dict[str, object]
    place: str
    notes: list[str]
    unpickled: Unpickled


def load_state(
    load: Callable[..., Unpickled],
    path: Path,
    key: str,
    is_tensor: Callable[[object], bool],
    is_module: Callable[[Instance], bool] = lambda instance: False,
    read_members: ReadMembers = lambda instance, budget: None,
    explain: Callable[[Unpickled], CheckpointError | None] = lambda unpickled: None,
) -> LoadedState:
    """Load a pickle and find the state dict in it; a whole module is read as its state dict.

    `load` is `unpickler.load` with all arguments but `allow_foreign`, which is False at first. If
    that raises an error, `load` is called again with True: what stands beside a state dict may be
    of any class, because nobody looks at it. If there is no state dict, the first error is raised;
    for a module with attributes that are not plain, that of `explain`, if it returns one. Raises
    CheckpointError, naming `path`, for a malformed module.
    """
    strict_error = None
    try:
        unpickled = load(allow_foreign=False)
    except CheckpointError as error:
        strict_error = error
        try:
            unpickled = load(allow_foreign=True)
        except CheckpointError:
            raise error from None
    budget = NameBudget()

    def expand(module: Instance) -> dict[str, object]:
        if strict_error is not None and not _is_plain(module):
            raise explain(unpickled) or strict_error
        with ErrorPrefix(f"{path}: a whole module"):
            return _state_dict(module, read_members, budget)

    kinds = StateKinds(is_tensor, is_module, expand)
    found = find_state(unpickled.value, kinds, path, key)
    if found is None:
        raise strict_error or no_state_error(unpickled.value, path)
    tensors, notes = found.tensors(kinds, path)
    if unpickled.foreign_globals:
        notes.insert(0, _note(found, unpickled))
    return LoadedState(tensors, found.place, notes, unpickled)


def _note(found: FoundState, unpickled: Unpickled) -> str:
    if type(found.value) is Instance:
        name = str(found.value.name)
        return f"a whole module ({name[:200]}) was read as its state dict; none of its classes was imported or called"
    return f"objects of other classes ({format_names(unpickled.foreign_globals)}) were ignored; none was imported or called"


def _is_plain(module: Instance) -> bool:
    """Whether all objects in a module are attributes and nothing else: no calls, no items."""
    pending: list[object] = [module]
    seen = set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Instance):
            if not value.plain:
                return False
            pending.append(value.state)
        elif isinstance(value, dict):
            if any(type(key) is OtherKey and key.is_object for key in value):
                return False
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
    return True


def _state_dict(module: Instance, read_members: ReadMembers, budget: NameBudget) -> dict[str, object]:
    """Return the state dict of a module."""
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
    assert members is not None
    walk(members, "", 0)
    return state
