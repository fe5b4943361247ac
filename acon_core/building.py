"""What the `build.py` of every backend shares: contexts of modules and tables of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from acon_core.errors import SpecError
from acon_core.spec import PARAMETERLESS, Node, Rules, join


@dataclass(frozen=True)
class BuildContext:
    """Where a module is built.

    Parameters
    ----------
    dtype : Any
        Native dtype of the parameters.
    path : str
        Path from the root of the network, for errors and taps.
    """

    dtype: Any
    path: str = ""

    def child(self, name: str) -> BuildContext:
        """Return the context of the child of that name."""
        return BuildContext(self.dtype, join(self.path, name))


def functions(build: Rules[Any], *namespaces: ModuleType) -> dict[type[Node], Callable[..., Any]]:
    """Map each primitive without parameters that has no rule yet to its native function.

    Parameters
    ----------
    build : Rules
        The rules of the backend so far.
    *namespaces : module
        Where functions are looked up by the names in `spec.PARAMETERLESS`; the first match wins.

    Returns
    -------
    dict
        Functions that take the values and, as keywords, the fields of the node.

    Raises
    ------
    SpecError
        If no namespace has the function of a primitive.
    """
    table = {}
    for kind, name in PARAMETERLESS.items():
        if kind in build:
            continue
        found = [vars(namespace)[name] for namespace in namespaces if name in vars(namespace)]
        if not found:
            places = ", ".join(namespace.__name__ for namespace in namespaces)
            raise SpecError(
                f"{build.operation}: no function {name!r} for {kind.__name__} in {places}; define it, or add a rule"
            )
        table[kind] = found[0]
    return table
