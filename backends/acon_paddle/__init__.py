"""ACON for PaddlePaddle. `layout` and `files` need NumPy alone; whatever else is asked for imports paddle."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acon_paddle.activations import (
        AconA,
        AconB,
        AconC,
        AconFReLU,
        AReLU,
        DyReLU,
        FReLU,
        FusedRepAct,
        MetaAconC,
        PReLU,
        RepAct,
        Swish,
        activation,
    )
    from acon_paddle.backend import create, load
    from acon_paddle.functional import acon, smooth_maximum
    from acon_paddle.surgery import doctor, fold, fuse, gradient_bounds, param_groups, replace_activations

__all__ = [
    "AReLU", "AconA", "AconB", "AconC", "AconFReLU", "DyReLU", "FReLU", "FusedRepAct", "MetaAconC", "PReLU", "RepAct", "Swish",
    "acon", "activation", "create", "doctor", "fold", "fuse", "gradient_bounds", "load", "param_groups",
    "replace_activations", "smooth_maximum",
]  # fmt: skip

_HOMES = {
    "activations": [*__all__[:12], "activation"],
    "backend": ["create", "load"],
    "functional": ["acon", "smooth_maximum"],
    "surgery": ["doctor", "fold", "fuse", "gradient_bounds", "param_groups", "replace_activations"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
