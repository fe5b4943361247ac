"""`fuse` and `fold` on native models: they rebuild the modules that were made from specs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from acon_core.errors import AconError
from acon_core.spec import Graph, Layer, Node, Rules
from acon_core.spec.fusion import Change, change_layers, fold_rules, fuse_rules
from acon_core.surgery.modules import Modules


def outermost_spec_modules(modules: Modules, model: Any) -> Iterator[tuple[str, Any, Node]]:
    """Yield the outermost modules with a known spec: path, module, node."""
    inside: list[str] = []
    for path, module in modules.sites(model):
        if any(path.startswith(prefix) for prefix in inside):
            continue
        node = modules.node(module)
        if node is not None:
            inside.append(f"{path}." if path else "")
            yield path, module, node


def _others(modules: Modules, model: Any) -> str:
    """Name a module that has the name of an activation of this package but another class."""
    for path, module in modules.sites(model):
        kind = type(module)
        if re.search(r"^(meta)?acon|metaacon|repact", kind.__name__.replace("_", "").lower()) and modules.node(module) is None:
            return (
                f"; {path or 'the model'} is a {kind.__module__}.{kind.__qualname__}, whose state may have other names: "
                "put the class of this package in its place and load its weights, with load(path, dialect=...) for a file "
                "of the published code"
            )
    return ""


def _rebuild(modules: Modules, model: Any, rules: Rules[Change], wanted: str) -> Any:
    made: dict[int, Any] = {}
    for path, module, node in list(outermost_spec_modules(modules, model)):
        if not isinstance(node, Graph | Layer):
            continue
        if id(module) not in made:
            changed, state = change_layers(node, modules.state(module, node), rules)
            if changed is node:
                continue
            made[id(module)] = modules.make(changed, state, module, model)
        if path == "":
            return made[id(module)]
        modules.replace(model, path, made[id(module)])
    if not made:
        raise AconError(f"{rules.operation}: nothing to do: the model has no {wanted} of this package{_others(modules, model)}")
    return model


def fuse(modules: Modules, model: Any) -> Any:
    """Replace every RepAct by its closed form.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.

    Returns
    -------
    Any
        The model, changed in place; a new module if the model was made from one spec.

    Raises
    ------
    AconError
        If the model has no RepAct.
    """
    return _rebuild(modules, model, fuse_rules, "RepAct")


def fold(modules: Modules, model: Any) -> Any:
    """Fold the batch norms of every Meta-ACON generator into its convolutions.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.

    Returns
    -------
    Any
        The model, changed in place; a new module if the model was made from one spec.

    Raises
    ------
    AconError
        If the model has no Meta-ACON with ``norm="batch"``.
    """
    return _rebuild(modules, model, fold_rules, "Meta-ACON with norm=batch")
