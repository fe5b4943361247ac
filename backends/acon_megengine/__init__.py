"""ACON for MegEngine. `layout` and `files` need NumPy alone; whatever else is asked for imports megengine.

That import flushes denormal numbers to zero for the whole process, NumPy's included.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acon_megengine.activations import (
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
    from acon_megengine.backend import create, load
    from acon_megengine.functional import acon, smooth_maximum
    from acon_megengine.surgery import doctor, fold, fuse, gradient_bounds, param_groups, replace_activations

__all__ = [
    "AReLU", "AconA", "AconB", "AconC", "AconFReLU", "DyReLU", "FReLU", "FusedRepAct", "MetaAconC", "PReLU", "RepAct", "Swish",
    "acon", "activation", "create", "doctor", "fold", "fuse", "gradient_bounds", "load", "param_groups",
    "replace_activations", "smooth_maximum",
]  # fmt: skip

_HOME = {
    **dict.fromkeys(__all__[:12], "activations"),
    **dict.fromkeys(("acon", "smooth_maximum"), "functional"),
    **dict.fromkeys(("doctor", "fold", "fuse", "gradient_bounds", "param_groups", "replace_activations"), "surgery"),
    "activation": "activations",
    "create": "backend",
    "load": "backend",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
