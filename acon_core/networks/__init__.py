"""The published networks by name. Adding one is adding a file and a line in `NETWORKS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from acon_core.errors import SpecError
from acon_core.networks.network import InputContract, Network
from acon_core.networks.shufflenet_v2 import shufflenet_v2
from acon_core.spec.acon import AconC
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node

NETWORKS: dict[str, Callable[..., Network]] = {
    "acon/shufflenet_v2_x0_5": partial(shufflenet_v2, 0.5),
    "acon/shufflenet_v2_x1_0": partial(shufflenet_v2, 1.0),
    "acon/shufflenet_v2_x1_5": partial(shufflenet_v2, 1.5),
    "acon/shufflenet_v2_x2_0": partial(shufflenet_v2, 2.0),
}


def create(name: str, act: Node | str = AconC(), num_classes: int = 1000, **options: Any) -> Network:
    """The network of that name with that activation; `package.module:function` calls a function of the user's own.

    Such a function takes no arguments and returns a Graph or a Network. Raises SpecError for a name that does not exist.
    """
    if ":" in name:
        return _users_own(name)
    if name not in NETWORKS:
        raise SpecError(f"network {name!r} is not known; known: {', '.join(NETWORKS)}, or package.module:function")
    return NETWORKS[name](act=act, num_classes=num_classes, **options)


def _users_own(name: str) -> Network:
    module_name, _, function_name = name.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), function_name)()
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"network {name!r} cannot be had: {error}; expected package.module:function, importable here"
        ) from error
    if isinstance(made, Graph):
        return Network(name, made)
    if not isinstance(made, Network):
        raise SpecError(f"network {name!r}: expected a Graph or a Network, found {type(made).__name__}")
    return made


__all__ = ["NETWORKS", "InputContract", "Network", "create", "shufflenet_v2"]
