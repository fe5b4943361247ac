"""What differs between the public packages, as data, and their lazy `__init__`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import Parameter
from types import MappingProxyType
from typing import Any

from acon_core.spec.activation_base import Activation
from acon_core.spec.activations import ACTIVATIONS

KINDS: dict[str, type[Activation]] = {kind.__name__: kind for kind in ACTIVATIONS.values() if issubclass(kind, Activation)}
"""Spec types of the activations with a public class in every package, by class name."""

FUNCTIONS = ("activation", "create", "doctor", "fold", "fuse", "gradient_bounds", "load", "replace_activations")
"""Public functions that `acon_core.frontend.functions.Frontend` implements for all packages."""

HOMES = {
    **dict.fromkeys(KINDS, "activations"),
    **dict.fromkeys(("acon", "smooth_maximum"), "functional"),
    "param_groups": "surgery",
}
"""The module of each public name that is not one of `FUNCTIONS`."""


@dataclass(frozen=True)
class Own:
    """A constructor parameter that a framework adds to those of the spec.

    `text` is its entry in the Parameters section. One that is `required` has no default in the
    classes; `example` is a value for it, in examples and errors.
    """

    name: str
    annotation: str
    text: str
    default: object = None
    required: bool = False
    example: str = ""

    def parameter(self, required: bool) -> Parameter:
        """Return the keyword-only parameter for a signature."""
        default = Parameter.empty if required else self.default
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=default, annotation=self.annotation)


PATH = Own("path", "str", "Path of the module in its network, for error messages.", default="")


@dataclass(frozen=True)
class Framework:
    """A framework: its types, the parameters it adds, and texts for shared docstrings.

    `module`, `tensor` and `weight` name its types after `imports`, which are statements.
    `channel_axis` is its convention. `zeros` is an expression for zeros of the shape ``{}``, and
    `call` the declaration of the method that runs a module. `texts` are the values of `$name` in
    shared docstrings. `notes` extend the Notes section of classes, by class name.
    """

    package: str
    imports: tuple[str, ...]
    module: str
    tensor: str
    weight: str
    channel_axis: int
    zeros: str
    call: str
    own: tuple[Own, ...] = (PATH,)
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def attach(framework: Framework) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__`, `__all__` of a package that imports its framework lazily."""
    package = framework.package
    names = sorted([*HOMES, *FUNCTIONS])

    def load_name(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(names)}")
        if name in HOMES:
            return getattr(import_module(f"{package}.{HOMES[name]}"), name)
        return import_module(f"{package}.backend").frontend.functions[name]

    return load_name, lambda: names, names
