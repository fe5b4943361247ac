"""ACON for PaddlePaddle. `layout` and `files` need NumPy alone; whatever else is asked for imports paddle."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acon_paddle.activations import AconC, MetaAconC
    from acon_paddle.backend import create, load
    from acon_paddle.functional import acon

_HOME = {"AconC": "activations", "MetaAconC": "activations", "acon": "functional", "create": "backend", "load": "backend"}

__all__ = ["AconC", "MetaAconC", "acon", "create", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
