"""Which activations are to be replaced, and by what."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from acon_core import spec
from acon_core.errors import AconError
from acon_core.spec import ChannelwiseActivation, Node

Value: TypeAlias = "str | Node | Callable[..., Any]"
Where: TypeAlias = "str | Iterable[str] | Callable[[str], bool] | None"

OTHER_NAMES: Mapping[str, tuple[type[Node], ...]] = {"swish": (spec.Swish, spec.SiLU)}
"""Names that mean several activations in other people's code: most of it calls SiLU Swish."""


@dataclass(frozen=True, eq=False)
class Rule:
    """One wanted replacement.

    Parameters
    ----------
    name : str
        How the user named the old activation, for reports.
    kinds : tuple of type
        Types of specs that it fits; empty if `fits` decides.
    options : mapping from str to Any
        Options that a spec must have.
    fits : callable or None
        Decides by path and module.
    value : Node or callable
        The new activation, or a factory of it.
    """

    name: str
    kinds: tuple[type[Node], ...]
    options: Mapping[str, Any]
    fits: Callable[[str, Any], bool] | None
    value: Node | Callable[..., Any]

    @property
    def needs_width(self) -> bool:
        return not isinstance(self.value, Node) or isinstance(self.value, ChannelwiseActivation)

    @property
    def new_name(self) -> str:
        if isinstance(self.value, Node):
            return spec.activation_name(self.value)
        return str(getattr(self.value, "__name__", type(self.value).__name__))

    def matches(self, path: str, module: Any, node: Node | None) -> bool:
        if self.fits is not None:
            return module is not None and bool(self.fits(path, module))
        return type(node) in self.kinds and all(getattr(node, name, None) == value for name, value in self.options.items())

    def make(self, channels: int | None, axis: int) -> Any:
        """Return the new activation for a place: a spec, or a module of a user's factory."""
        made = self.value
        if not isinstance(made, Node):
            more = {"channel_axis": axis} if "channel_axis" in _parameters(made) else {}
            made = made(channels, **more)
            made = spec.activation(made) if isinstance(made, str) else made
        if isinstance(made, ChannelwiseActivation) and channels is not None:
            made = spec.bind(replace(made, channel_axis=axis), channels)
        return made


def _parameters(function: Any) -> Iterable[str]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # a class of a builtin
        return ()


class Wanted:
    """The replacements that a user asked for.

    Parameters
    ----------
    replacements : mapping
        Old activations to new ones.
    where : str, iterable of str, callable or None
        The paths that count, by patterns of the shell or a function.
    """

    def __init__(self, replacements: Mapping[Any, Value], where: Where) -> None:
        self.rules = [_rule(old, new) for old, new in replacements.items()]
        seen: list[tuple[Any, Any]] = []
        for rule in self.rules:
            if rule.kinds and (rule.kinds, rule.options) in seen:
                raise AconError(f"replace_activations: {rule.name!r} is named twice; give each old activation once")
            seen.append((rule.kinds, rule.options))
        self._where = [where] if isinstance(where, str) else where

    def chosen(self, path: str) -> bool:
        """Return whether a path counts."""
        if self._where is None:
            return True
        if callable(self._where):
            return bool(self._where(path))
        return any(fnmatchcase(path, pattern) for pattern in self._where)

    def rule(self, path: str, module: Any, node: Node | None) -> Rule | None:
        """Return the rule for a site: a function or class first, else that with most options."""
        fitting = [rule for rule in self.rules if rule.matches(path, module, node)]
        return max(fitting, key=lambda rule: (rule.fits is not None, len(rule.options)), default=None)


def _rule(old: Any, new: Value) -> Rule:
    value = spec.activation(new) if isinstance(new, str) else new
    if not isinstance(value, Node) and not callable(value):
        raise AconError(f"replace_activations: expected a name, a spec or a function of the channels, found {new!r}")
    if isinstance(old, str):
        kind, options = spec.parse_name(old)
        return Rule(repr(old), OTHER_NAMES.get(old.lower(), (kind,)), options, None, value)
    if isinstance(old, type) and issubclass(old, Node):
        return Rule(old.__name__, (old,), {}, None, value)
    if isinstance(old, type):
        return Rule(old.__name__, (), {}, lambda path, module: isinstance(module, old), value)
    if callable(old):
        return Rule(getattr(old, "__name__", repr(old)), (), {}, old, value)
    raise AconError(f"replace_activations: expected a name, a class or a function of (path, module) as a key, found {old!r}")
