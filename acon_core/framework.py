"""Description of a backend package for the shared frontend, and lazy import of its public names."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import Parameter
from types import MappingProxyType
from typing import Any

from acon_core.errors import BackendError, meant
from acon_core.spec.activation_base import Activation
from acon_core.spec.activations import ACTIVATIONS

ACTIVATION_TYPES: dict[str, type[Activation]] = {
    kind.__name__: kind for kind in ACTIVATIONS.values() if issubclass(kind, Activation)
}
"""Spec types of the activations with a public class in every package, by class name."""

FUNCTIONS = (
    "activation", "create", "doctor", "fold", "fuse", "gradient_bounds", "load", "param_groups", "replace_activations",
)  # fmt: skip
"""Public functions that `acon_core.frontend.functions.Frontend` implements for all packages."""

DEFINING_MODULES = {
    **dict.fromkeys(ACTIVATION_TYPES, "activations"),
    **dict.fromkeys(("acon", "smooth_maximum"), "functional"),
}
"""The submodule that defines each public name, except for `FUNCTIONS`."""


@dataclass(frozen=True)
class AddedParameter:
    """A constructor parameter that a framework adds to those of the spec, such as `device`.

    `text` describes it in the Parameters section. If it is `required`, the activation classes give
    it no default. `example` is a value to show in examples and errors.
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


PATH = AddedParameter("path", "str", "Path of the module in its network, for error messages.", default="")


@dataclass(frozen=True)
class Framework:
    """A framework: its types, the parameters it adds, and texts for shared docstrings and stubs.

    `package` is the backend package. `module`, `tensor` and `weight` are the framework's types, as
    written after the import statements `imports`. `channel_axis` is the default axis of channels.
    `zeros` is a format string: its field ``{}`` is the shape of a tensor of zeros. `call` is the
    declaration, in stubs, of the method that runs a module. `added` are the constructor parameters
    of the activations beside those of the spec. `groups` is the type of what `param_groups`
    returns. `python` is the first and the last Python that the framework runs on. `texts` are the
    values of `$name` in shared docstrings. `notes` are added to the Notes section of classes, by
    class name. `own` are the public names that this package alone has, with the submodule that
    defines each.
    """

    package: str
    imports: tuple[str, ...]
    module: str
    tensor: str
    weight: str
    channel_axis: int
    zeros: str
    call: str
    added: tuple[AddedParameter, ...] = (PATH,)
    groups: str = "list[dict[str, Any]]"
    python: tuple[tuple[int, int], tuple[int, int] | None] = ((3, 10), None)
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    own: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def defining_modules(self) -> dict[str, str]:
        """The submodule that defines each public name, except for `FUNCTIONS`."""
        return {**DEFINING_MODULES, **self.own}

    def python_needed(self) -> str:
        """Return the Pythons that the framework runs on, as text; empty if this is one of them."""
        (first, last), running = self.python, sys.version_info[:2]
        if running < first:
            return "{}.{} or later".format(*first)
        return "{}.{}".format(*last) if last is not None and running > last else ""


def attach(framework: Framework) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a package that imports its names lazily."""
    package = framework.package
    names = sorted([*framework.defining_modules, *FUNCTIONS])

    def load_name(name: str) -> Any:
        if name not in names:
            hint = meant(name, names) or f"it has {', '.join(names)}"
            raise AttributeError(f"module {package!r} has no attribute {name!r}; {hint}")
        try:
            if name in framework.defining_modules:
                return getattr(import_module(f"{package}.{framework.defining_modules[name]}"), name)
            return import_module(f"{package}.backend").frontend.functions[name]
        except ModuleNotFoundError as error:
            needed = framework.python_needed()
            if not needed:
                raise
            raise BackendError(f"{package}: {error}; it needs Python {needed}, this is {platform.python_version()}") from error

    return load_name, lambda: names, names
