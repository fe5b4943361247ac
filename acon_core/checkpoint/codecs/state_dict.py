"""The state dict in a loaded object: the one that a key names, or the only one that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_core.checkpoint.codecs.pickle_values import Instance
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.errors import CheckpointError

STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params")
# A key of several words, one of them of these, is another state of the same network.
_AVERAGES = {"ema", "swa", "avg", "averaged"}
_DEPTH = 8  # levels of dicts that are searched


@dataclass(frozen=True)
class StateKinds:
    """What a format has in its state dicts.

    Parameters
    ----------
    is_tensor : callable
        Whether a value is a tensor.
    is_module : callable
        Whether an object of an unknown class is a module of the framework.
    expand : callable
        Return the state dict of such a module.
    """

    is_tensor: Callable[[object], bool]
    is_module: Callable[[Instance], bool] = lambda instance: False
    expand: Callable[[Instance], dict[str, object]] = lambda instance: {}

    def is_state(self, value: object) -> bool:
        """Whether a value is a module, or a dict with a tensor under a name."""
        if type(value) is Instance:
            return self.is_module(value)
        return type(value) is dict and any(type(key) is str and self.is_tensor(each) for key, each in value.items())

    def has_tensors(self, value: object) -> bool:
        """Whether a value is a dict of tensors, under keys of any kind."""
        return type(value) is dict and any(map(self.is_tensor, value.values()))


@dataclass(frozen=True)
class FoundState:
    """A state dict, or a module, at a place in the loaded object, and what was left out there."""

    place: str
    value: object
    prefix: str = ""  # of the names that were asked for
    ignored: tuple[object, ...] = ()

    def tensors(self, kinds: StateKinds, path: Path) -> tuple[dict[str, object], list[str]]:
        """Return the tensors by name, and notes on what was left out. Raises CheckpointError."""
        value = kinds.expand(self.value) if type(self.value) is Instance else self.value
        assert isinstance(value, dict)
        notes = []
        if self.place:
            others = f"; ignored {format_names(self.ignored)}" if self.ignored else ""
            notes.append(f"read the tensors under {self.place!r}{others}")
        tensors = {key: each for key, each in value.items() if kinds.is_tensor(each)}
        for key in tensors:
            if not isinstance(key, str):
                raise CheckpointError("unsupported", f"{path}: expected names as keys, found {key!r}; save a state dict")
        ignored = [key for key in value if key not in tensors]
        if self.prefix:
            start = f"{self.prefix}."
            ignored += [name for name in tensors if not name.startswith(start)]
            tensors = {name.removeprefix(start): each for name, each in tensors.items() if name.startswith(start)}
            notes[-1:] = [f"read the tensors under {self.place!r}"]
            ignored = []
        if ignored:
            notes.append(f"ignored what is not a tensor: {format_names(ignored)}")
        if not tensors:
            raise CheckpointError("unsupported", f"{path}: {printable(self.place or 'it')} holds no tensors; save a state dict")
        return tensors, notes


def find_state(value: object, kinds: StateKinds, path: Path, key: str = "") -> FoundState | None:
    """Find the state dict under `key`, or the only one, in a loaded object. Returns None if none.

    Dicts are searched level by level. At the first level with state dicts, one under a usual name
    (`STATE_KEYS`) wins over others; a usual name also wins over tensors at the top, because
    training scripts save numbers such as the best accuracy as tensors. Raises CheckpointError that
    lists the state dicts if there are several and none has a usual name, if there is also an
    average of the one that has, or if there is none under `key`.
    """
    if key:
        return _at_key(value, kinds, path, key)
    if kinds.is_state(value) and type(value) is Instance:
        return FoundState("", value)
    states = dict(_search(value, kinds))
    level = min(map(len, states), default=0)
    nearest = {steps: state for steps, state in states.items() if len(steps) == level}
    usual = sorted((steps for steps in nearest if steps[-1] in STATE_KEYS), key=lambda steps: STATE_KEYS.index(steps[-1]))
    if not usual and kinds.has_tensors(value):
        return FoundState("", value)
    if not states:
        items = value.items() if isinstance(value, dict) else ()
        below = {id(each): (name, each) for name, each in items}  # one dict may occur very often
        return next((FoundState(str(name), each) for name, each in below.values() if kinds.has_tensors(each)), None)
    averages = [steps for steps in nearest if _AVERAGES & set(steps[-1].lower().split("_")) and "_" in steps[-1]]
    parents = {steps[:-1] for steps in usual}
    if len(parents) > 1 or (usual and averages) or (not usual and len(nearest) > 1):
        several = f"several dicts of tensors, {_listed(states)}; pass --key with one of them"
        raise CheckpointError("unsupported", f"{path}: {several}")
    steps = (usual or list(nearest))[0]
    return FoundState(".".join(steps), nearest[steps], ignored=tuple(_beside(value, steps)))


def _search(value: object, kinds: StateKinds) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the places of the state dicts below a value, and the state dicts, level by level."""
    level: list[tuple[Any, object]] = [((), value)]
    is_state = {id(value): False}  # one dict may occur very often
    for _ in range(_DEPTH):
        below: list[tuple[Any, object]] = []
        for steps, parent in level:
            # An optimizer has the tensors of its momenta in dicts too.
            if type(parent) is not dict or is_state[id(parent)] or {"state", "param_groups"} <= parent.keys():
                continue
            for name, each in parent.items():
                if type(name) is not str or type(each) not in (dict, Instance):
                    continue
                if id(each) not in is_state:
                    is_state[id(each)] = kinds.is_state(each)
                    below.append(((*steps, name), each))
                if is_state[id(each)]:
                    yield (*steps, name), each
        level = below


def _at_key(value: object, kinds: StateKinds, path: Path, key: str) -> FoundState:
    for node, prefix in _follow(value, key):
        if prefix and not _has_prefix(node, prefix, kinds):
            continue
        if kinds.is_state(node):
            return FoundState(key, node, prefix)
        below = None if prefix else find_state(node, kinds, path)
        if below is not None:
            return FoundState(f"{key}.{below.place}", below.value, ignored=below.ignored)
    states = _listed(dict(_search(value, kinds)))
    names = dict.fromkeys(str(name).partition(".")[0] for name in value) if isinstance(value, Mapping) else ()
    found = f"found {states or format_names(names) or 'none'}"
    raise CheckpointError("unsupported", f"{path}: --key {printable(key)}: no dict of tensors there; {found}")


def _follow(node: object, key: str) -> Iterator[tuple[object, str]]:
    """Yield what a path of keys or indices leads to, and the part of the path that is left."""
    if isinstance(node, dict):
        for name, value in node.items():
            if str(name) == key:
                yield value, ""
            elif key.startswith(f"{name}."):
                yield from _follow(value, key.removeprefix(f"{name}."))
    elif isinstance(node, list | tuple):
        step, _, rest = key.partition(".")
        if step.isdecimal() and int(step) < len(node):
            yield from _follow(node[int(step)], rest) if rest else [(node[int(step)], "")]
    yield node, key


def _has_prefix(node: object, prefix: str, kinds: StateKinds) -> bool:
    names = kinds.expand(node) if type(node) is Instance and kinds.is_module(node) else node
    return isinstance(names, dict) and any(
        isinstance(name, str) and name.startswith(f"{prefix}.") and kinds.is_tensor(each) for name, each in names.items()
    )


def _beside(value: object, steps: tuple[str, ...]) -> Iterator[object]:
    """Yield the keys that the path of a state dict leaves out; below the top, with their place."""
    for depth, step in enumerate(steps):
        assert isinstance(value, dict)
        place = "".join(f"{each}." for each in steps[:depth])
        yield from (f"{place}{name}" if place else name for name in value if name != step)
        value = value[step]


def _listed(states: Mapping[tuple[str, ...], object]) -> str:
    return format_names(".".join(steps) for steps in states)


def no_state_error(value: object, path: Path) -> CheckpointError:
    """Return the error for an object in which there is no state dict."""
    if not isinstance(value, dict):
        message = f"expected a dict of tensors, found an object of type {type(value).__name__}"
        message += "; pass --key with the index of one in it, such as 0" if isinstance(value, list | tuple) and value else ""
    elif {"state", "param_groups"} <= value.keys():
        message = "the state of an optimizer, not of a network; save the network's state_dict()"
    else:
        message = f"no dict of tensors in it; found keys {format_names(value)}"
    return CheckpointError("unsupported", f"{path}: {message}")
