"""One run of a MegEngine model, watched: calls of activations, their places, axes and scales."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.module.batchnorm import _BatchNorm
from megengine.module.conv import _ConvNd

from acon_core import spec
from acon_core.surgery import Feeding, Modules, Observed, evaluation_mode
from acon_core.surgery.watch import Watch, call_with, patched, tensors
from acon_megengine.arrays import to_array
from acon_megengine.pointwise import ACTIVATION_FUNCTIONS

HOMES = ("megengine", __name__.partition(".")[0])
"""Packages whose classes and calls are known: a subclass may compute something else."""

_NODES: dict[str, Callable[..., spec.Node]] = {
    "relu": spec.ReLU,
    "relu6": spec.ReLU6,
    "leaky_relu": lambda negative_slope=0.01: spec.LeakyReLU(negative_slope),
    "gelu": spec.GELU,
    "silu": spec.SiLU,
    "softplus": spec.Softplus,
    "sigmoid": spec.Sigmoid,
    "hswish": spec.HardSwish,
    "hsigmoid": spec.HardSigmoid,
}
"""The specs of the functions; their further arguments are those of the functions."""

_LAST = (M.Linear, M.Embedding, M.MultiHeadAttention)
_SECOND = (_ConvNd, M.GroupNorm, M.InstanceNorm)


def observe(modules: Modules, model: M.Module, example: Any) -> Observed:
    """Run a model once; see `acon_core.surgery.Modules.observe`."""
    run = _Run(modules, model)
    with evaluation_mode(model, model.modules()), patched(*run.changes()):
        output = call_with(model, example)
    arrays = [to_array(each) for each in tensors(Tensor, output)]
    return Observed(run.calls, run.functions, [each for each in arrays if np.issubdtype(each.dtype, np.floating)])


class _Run(Watch):
    """`acon_core.surgery.Watch` for MegEngine."""

    tensor = Tensor

    def __init__(self, modules: Modules, model: M.Module) -> None:
        super().__init__(modules, model)
        self._feeding = Feeding()

    def changes(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield what is to be patched for a run. Hooks do not see keyword arguments."""
        own, transpose = M.Module.__call__, Tensor.transpose

        def call(module: M.Module, *args: Any, **kwargs: Any) -> Any:
            return self.module(own, sys._getframe(1), module, args, kwargs)

        def moved(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self._feeding.forget()
            return function(*args, **kwargs)

        yield M.Module, "__call__", call
        yield Tensor, "transpose", lambda *args, **kwargs: moved(transpose, *args, **kwargs)
        yield F, "transpose", partial(moved, F.transpose)
        for name in ACTIVATION_FUNCTIONS:
            function = getattr(F, name)
            for namespace in (F, F.nn, F.elemwise):
                if getattr(namespace, name, None) is function:
                    yield namespace, name, partial(self._function, function, name)

    def shape(self, x: Tensor) -> spec.Shape:
        shape: spec.Shape = x._tuple_shape
        return shape

    def scale(self, x: Tensor) -> float | None:
        values = to_array(x).astype(np.float64)
        return float(np.sqrt(np.mean(values**2))) if values.size else None

    def axis(self, x: Tensor) -> int | None:
        return self._feeding.axis_of(x._tuple_shape)

    def returned(self, module: M.Module, result: Any) -> None:
        first = result[0] if isinstance(result, list | tuple) and result else result
        axis = _axis(module, first.ndim) if isinstance(first, Tensor) and first.ndim else None
        if axis is not None:
            self._feeding.layer(first._tuple_shape, axis)

    def is_explained(self, frame: FrameType) -> bool:
        # Calls from MegEngine's modules and ours belong to a site.
        return frame.f_globals.get("__name__", "").partition(".")[0] in HOMES

    def _function(self, function: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        frame = sys._getframe(1)
        if self.is_explained(frame):
            return function(*args, **kwargs)
        x, *options = (*args, *kwargs.values())
        named = dict(list(kwargs.items())[0 if args else 1 :])
        plain = not any(isinstance(each, Tensor) for each in options)
        node = _NODES[name](*args[1:], **named) if plain and name in _NODES else None
        known = name if node is None else spec.activation_name(node).partition("(")[0]
        return self.function(known, node, frame, x, partial(function, *args, **kwargs))


def _axis(module: M.Module, rank: int) -> int | None:
    """Return the channel axis of what a module returns; None if the module does not say."""
    if isinstance(module, _LAST):
        return rank - 1
    if isinstance(module, M.LayerNorm):
        return rank - 1 if np.size(module.normalized_shape) == 1 else None
    if isinstance(module, _BatchNorm):
        return rank - 1 if getattr(module, "param_dim", "") == "dim_111c" else 1
    return 1 if isinstance(module, _SECOND) and rank > 1 else None
