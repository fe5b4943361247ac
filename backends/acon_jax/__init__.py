"""ACON for JAX. `layout` and `files` need NumPy alone; whatever else is asked for imports JAX and Flax."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acon_jax.activations import (
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
    from acon_jax.backend import create, load
    from acon_jax.functional import acon, smooth_maximum
    from acon_jax.surgery import doctor, fold, fuse, gradient_bounds, param_groups, replace_activations

_NAMES = {
    "activations": (
        "AReLU", "AconA", "AconB", "AconC", "AconFReLU", "DyReLU", "FReLU", "FusedRepAct", "MetaAconC", "PReLU", "RepAct",
        "Swish", "activation",
    ),
    "backend": ("create", "load"),
    "functional": ("acon", "smooth_maximum"),
    "surgery": ("doctor", "fold", "fuse", "gradient_bounds", "param_groups", "replace_activations"),
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AReLU", "AconA", "AconB", "AconC", "AconFReLU", "DyReLU", "FReLU", "FusedRepAct", "MetaAconC", "PReLU", "RepAct",
    "Swish", "acon", "activation", "create", "doctor", "fold", "fuse", "gradient_bounds", "load", "param_groups",
    "replace_activations", "smooth_maximum",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
