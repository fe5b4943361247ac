"""ACON for PyTorch. `layout` and `files` need NumPy alone; whatever else is asked for imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acon_torch.activations import (
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
    from acon_torch.backend import create, load
    from acon_torch.functional import acon, smooth_maximum
    from acon_torch.surgery import doctor, fold, fuse, gradient_bounds, param_groups, replace_activations

__all__ = [
    "AReLU", "AconA", "AconB", "AconC", "AconFReLU", "DyReLU", "FReLU", "FusedRepAct", "MetaAconC", "PReLU", "RepAct", "Swish",
    "acon", "activation", "create", "doctor", "fold", "fuse", "gradient_bounds", "load", "param_groups", "replace_activations",
    "smooth_maximum",
]  # fmt: skip

_HOME = {
    "backend": ("create", "load"),
    "functional": ("acon", "smooth_maximum"),
    "surgery": ("doctor", "fold", "fuse", "gradient_bounds", "param_groups", "replace_activations"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULE.get(name, 'activations')}"), name)
