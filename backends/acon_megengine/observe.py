"""One run of a MegEngine model, watched: calls of activations, their places, axes and scales."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any
from unittest.mock import patch

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.module.batchnorm import _BatchNorm
from megengine.module.conv import _ConvNd
from numpy.typing import NDArray

from acon_core import spec
from acon_core.surgery import Call, Feeding, FunctionCall, Modules, Observed, evaluation_mode, find_place
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
    with evaluation_mode(model, model.modules()), ExitStack() as stack:
        run.watch(stack)
        if isinstance(example, Mapping):
            output = model(**example)
        else:
            output = model(*example) if isinstance(example, tuple) else model(example)
    return Observed(run.calls, run.functions, list(_floats(output)))


class _Run:
    """Record the calls of sites, and of activation functions that no known site explains."""

    def __init__(self, modules: Modules, model: M.Module) -> None:
        self._modules = modules
        self._paths: dict[int, list[str]] = {}
        self._kept = list(modules.sites(model))
        for path, module in self._kept:
            self._paths.setdefault(id(module), []).append(path)
        self._owners = {key: paths[0] for key, paths in self._paths.items()}
        self._running: list[str] = []
        self._feeding = Feeding()
        self.calls: dict[str, list[Call]] = {}
        self.functions: list[FunctionCall] = []

    def watch(self, stack: ExitStack) -> None:
        """Record every call until the stack is closed. Hooks do not see keyword arguments."""
        own, transpose = M.Module.__call__, Tensor.transpose

        def call(module: M.Module, *args: Any, **kwargs: Any) -> Any:
            return self._module(own, sys._getframe(1), module, args, kwargs)

        def moved(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._feeding.forget()
            return result

        stack.enter_context(patch.object(M.Module, "__call__", call))
        stack.enter_context(patch.object(Tensor, "transpose", lambda *args, **kwargs: moved(transpose, *args, **kwargs)))
        stack.enter_context(patch.object(F, "transpose", partial(moved, F.transpose)))
        for name in ACTIVATION_FUNCTIONS:
            function = getattr(F, name)
            for namespace in (F, F.nn, F.elemwise):
                if getattr(namespace, name, None) is function:
                    stack.enter_context(patch.object(namespace, name, partial(self._function, function, name)))

    def _module(self, own: Any, frame: Any, module: M.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        paths, node = self._paths.get(id(module)), self._modules.node(module)
        inner = isinstance(node, spec.Graph)
        site = (node is not None and not inner) or self._modules.leaf(module)
        value = next(chain(args, kwargs.values()), None)
        call = self._noted(value, frame, site) if isinstance(value, Tensor) and (paths or site) else None
        where = self._running[-1] if self._running else ""
        self._running.append(paths[0] if paths else where)
        try:
            result = own(module, *args, **kwargs)
        finally:
            self._running.pop()
        if call is not None:
            for path in paths or ():
                self.calls.setdefault(path, []).append(call)
            outside = frame.f_globals.get("__name__", "").partition(".")[0] not in HOMES
            if paths is None and node is not None and not inner and not spec.named_params(node) and outside:
                # A module that no part of the model holds is as good as a function.
                self.functions.append(FunctionCall(spec.activation_name(node).partition("(")[0], where, node, call))
        first = result[0] if isinstance(result, list | tuple) and result else result
        axis = _axis(module, first.ndim) if isinstance(first, Tensor) and first.ndim else None
        if axis is not None:
            self._feeding.layer(first._tuple_shape, axis)
        return result

    def _function(self, function: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        # Calls from MegEngine's modules and ours belong to a site.
        frame = sys._getframe(1)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in HOMES:
            x, *options = (*args, *kwargs.values())
            named = dict(list(kwargs.items())[0 if args else 1 :])
            plain = not any(isinstance(each, Tensor) for each in options)
            node = _NODES[name](*args[1:], **named) if plain and name in _NODES else None
            known = name if node is None else spec.activation_name(node).partition("(")[0]
            where = self._running[-1] if self._running else ""
            self.functions.append(FunctionCall(known, where, node, self._noted(x, frame, True)))
        return function(*args, **kwargs)

    def _noted(self, x: Tensor, frame: Any, site: bool) -> Call:
        shape = x._tuple_shape
        if not site:
            return Call(shape)
        values = to_array(x).astype(np.float64)
        scale = float(np.sqrt(np.mean(values**2))) if values.size else None
        return Call(shape, scale, self._feeding.axis_of(shape), find_place(frame, self._owners))


def _axis(module: M.Module, rank: int) -> int | None:
    """Return the channel axis of what a module returns; None if the module does not say."""
    if isinstance(module, _LAST):
        return rank - 1
    if isinstance(module, M.LayerNorm):
        return rank - 1 if np.size(module.normalized_shape) == 1 else None
    if isinstance(module, _BatchNorm):
        return rank - 1 if getattr(module, "param_dim", "") == "dim_111c" else 1
    return 1 if isinstance(module, _SECOND) and rank > 1 else None


def _floats(value: Any) -> Iterator[NDArray]:
    """Yield the arrays of floats in the output of a model."""
    if isinstance(value, Tensor):
        array = to_array(value)
        if np.issubdtype(array.dtype, np.floating):
            yield array
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _floats(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _floats(each)
