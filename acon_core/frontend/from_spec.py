"""Activation classes made from spec types: signature, docstring, constructor and build rule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from types import new_class
from typing import Any, ClassVar

from acon_core.errors import choices
from acon_core.framework import ACTIVATION_TYPES, AddedParameter, Framework
from acon_core.frontend.docstrings import class_docstring
from acon_core.spec import ChannelwiseActivation
from acon_core.spec.activation_base import Activation
from acon_core.spec.node import Rules


def class_signature(kind: type[Activation], added: tuple[AddedParameter, ...]) -> inspect.Signature:
    """Make a class signature: the fields of the spec, then the framework's own parameters.

    `channels` has no default where it is always needed. `channel_axis=None` is the framework's
    axis.
    """
    parameters = dict(inspect.signature(kind).parameters)
    if issubclass(kind, ChannelwiseActivation):
        parameters["channel_axis"] = parameters["channel_axis"].replace(default=None, annotation="int | None")
        if kind.needs_channels:
            parameters["channels"] = parameters["channels"].replace(default=inspect.Parameter.empty, annotation="int")
    return inspect.Signature([*parameters.values(), *(each.parameter(each.required) for each in added)])


@lru_cache(maxsize=1024, typed=True)
def _shared_node(kind: type[Activation], *values: Any, **options: Any) -> Activation:
    """Make a spec. Equal ones are the same object, so that their graph is made once."""
    return kind(*values, **options)


class FromSpec:
    """Mixin of a backend's base class of activations; `define_classes` makes the subclasses.

    A class is called with the fields of its spec, or, as a build rule, with a node and a context;
    then its state is loaded later. The backend implements three hooks.
    """

    framework: ClassVar[Framework]
    kind: ClassVar[type[Activation]]
    _signature: ClassVar[inspect.Signature]
    _required: ClassVar[frozenset[str]]

    def __init_subclass__(cls, kind: type[Activation] | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind is not None:
            cls.kind, cls.__doc__ = kind, class_docstring(kind, cls.framework)
            cls._signature = cls.__signature__ = class_signature(kind, cls.framework.added)  # type: ignore[attr-defined]
            named = (each for each in cls._signature.parameters.values() if each.default is each.empty)
            cls._required = frozenset(each.name for each in named)
        elif "__init__" in vars(cls) and hasattr(cls, "kind"):  # a user's subclass with a constructor of its own
            _, *parameters = inspect.signature(cls.__init__).parameters.values()
            cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    def __init__(self, *values: Any, **options: Any) -> None:
        if values and isinstance(values[0], self.kind):
            self._assemble(*values, **options)
            return
        if self._required - options.keys() - ({"channels"} if values else set()):
            self._bind(values, options)
        own = {each.name: options.pop(each.name, each.default) for each in self.framework.added}
        self._assemble(self._node(values, options), self._context(**own))
        self._draw(**own)

    def _node(self, values: tuple[Any, ...], options: dict[str, Any]) -> Activation:
        """Make the spec that the constructor's arguments describe."""
        if options.get("channel_axis", 1) is None:
            options["channel_axis"] = self.framework.channel_axis
        try:
            return _shared_node(self.kind, *values, **options)  # type: ignore[arg-type]
        except TypeError:  # an argument that cannot be hashed, or one that the spec does not have
            taken = dict.fromkeys(each.name for each in self.framework.added)  # by `__init__`, out of the options
            self._bind(values, taken | options)
            return self.kind(*values, **options)

    def _bind(self, values: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Raise a TypeError that names the class, unless the constructor takes these arguments."""
        name, known = type(self).__name__, self._signature.parameters
        for option in options:
            if option not in known:
                raise TypeError(f"{name}: {option!r} is not an option; {choices(option, known)}")
        try:
            self._signature.bind(*values, **options)
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it takes {', '.join(known)}") from None

    def _shown(self, node: Activation, shapes: Mapping[str, tuple[int, ...]], **changed: Any) -> dict[str, Any]:
        """Return what a printed module shows by name: channels, options, and parameters' shapes."""
        options = {each.name: getattr(node, each.name) for each in fields(node)} | changed
        if options.get("channels", 0) is None:
            del options["channels"]
        return options | {name: shapes[name] for name in node.graph.params if name in shapes}

    @staticmethod
    def _one_line(shown: Mapping[str, Any]) -> str:
        """Format what a module shows as the frameworks' own layers do."""
        texts = [f"{value!r}" if name == "channels" else f"{name}={value!r}" for name, value in shown.items()]
        return ", ".join(texts)

    @staticmethod
    def _context(**own: Any) -> Any:
        """Make the build context of the framework's own parameters (hook)."""
        raise NotImplementedError

    def _assemble(self, node: Activation, context: Any) -> None:
        """Build the module of a node, with room for its parameters (hook)."""
        raise NotImplementedError

    def _draw(self, **own: Any) -> None:
        """Set initial values (hook)."""
        raise NotImplementedError


def define_classes(base: type[FromSpec], rules: Rules[Any]) -> dict[type[Activation], type[Any]]:
    """Make a class and a build rule for each of `ACTIVATION_TYPES`, in the module of `base`."""
    made: dict[type[Activation], type[Any]] = {}
    for name, kind in ACTIVATION_TYPES.items():
        made[kind] = new_class(name, (base,), {"kind": kind}, lambda names: names.update(__module__=base.__module__))
        rules.register(kind)(made[kind])
    return made
