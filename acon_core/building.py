"""What all backends share to build modules and to observe them: contexts, rules, taps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from acon_core.errors import SpecError
from acon_core.spec import PARAMETERLESS, Acon, BatchNorm, DropPath, LayerNorm, Node, RepActFunction, Rules, join, producer


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


def register_common(
    build: Rules[Any], pointwise: ModuleType, functional: ModuleType, modules: ModuleType, tokens: ModuleType
) -> None:
    """Register the rules that are the same in every backend, for node types that have none yet.

    Parameters
    ----------
    build : Rules
        The rules of the backend so far.
    pointwise, functional, modules, tokens : module
        The modules of the backend. `modules` has the classes `BatchNorm`, `LayerNorm`, `DropPath`,
        `Acon` and `Function`; functions of primitives are looked up in all of them.

    Raises
    ------
    SpecError
        If no module has the function of a primitive.
    """

    def batch_norm(node: BatchNorm, context: BuildContext) -> Any:
        return modules.BatchNorm(node.channels, node.eps, node.decay, dtype=context.dtype, path=context.path)

    def layer_norm(node: LayerNorm, context: BuildContext) -> Any:
        return modules.LayerNorm(node.channels, node.eps, dtype=context.dtype)

    def drop_path(node: DropPath, context: BuildContext) -> Any:
        return modules.DropPath(node.rate)

    def acon(node: Acon, context: BuildContext) -> Any:
        return modules.Acon(node)

    def repact(node: RepActFunction, context: BuildContext) -> Any:
        return modules.Function(node, functional.repact)  # the number of gates says whether there is a shift

    def function(node: Node, context: BuildContext) -> Any:
        return modules.Function(node, table[type(node)], **vars(node))

    common: dict[type[Node], Callable[..., Any]] = {
        BatchNorm: batch_norm, LayerNorm: layer_norm, DropPath: drop_path, Acon: acon, RepActFunction: repact,
    }  # fmt: skip
    for kind, rule in common.items():
        if kind not in build:
            build.register(kind)(rule)
    table = functions(build, pointwise, functional, modules, tokens)
    build.register(*table)(function)


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


@contextmanager
def recorded_taps(
    node: Node, taps: Sequence[str], add_hook: Callable[[str, Callable[..., None]], Any], convert: Callable[[Any], Any]
) -> Iterator[dict[str, Any]]:
    """Record the values of taps while the body runs a module.

    Parameters
    ----------
    node : Node
        The node of the module.
    taps : sequence of str
        Values by path.
    add_hook : callable
        ``add_hook(path, hook)`` registers ``hook(module, inputs, outputs)`` at a child, and returns
        a handle with a method `remove`.
    convert : callable
        Applied to each native value.

    Returns
    -------
    context manager
        Its value is a dictionary that gets the values by tap.

    Raises
    ------
    SpecError
        If there is no such tap.
    """
    recorded: dict[str, Any] = {}

    def record(tap: str) -> Any:
        path, index = producer(node, tap)

        def hook(module: Any, inputs: Any, outputs: Any) -> None:
            recorded[tap] = convert(outputs[index] if isinstance(outputs, tuple) else outputs)

        return add_hook(path, hook)

    handles: list[Any] = []
    try:
        handles.extend(record(tap) for tap in taps)
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
