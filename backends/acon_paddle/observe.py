"""One run of a Paddle model, watched: calls of activations, their places, axes and scales."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, _C_ops, nn

from acon_core import spec
from acon_core.surgery import Call, Feeding, FunctionCall, Modules, Observed, evaluation_mode, find_place
from acon_paddle.arrays import to_array
from acon_paddle.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS

_LAYERS: dict[str, type[nn.Layer]] = {
    **{kind.__name__.lower(): kind for kind in NATIVE_ACTIVATIONS if kind not in (nn.Identity, nn.PReLU)},
    "leaky_relu": nn.LeakyReLU,
}
"""The layer that has the options of an operator, in the order of the operator's arguments."""

_WITHOUT_OPTIONS = ("relu6", "mish", "hardsigmoid", "hardswish", "swish", "silu")
"""Operators whose further arguments are constants that Paddle's functions pass."""

_BETWEEN = ("paddle.nn.functional", "paddle.tensor", "paddle.utils", "paddle.base", "paddle._C_ops", __name__)
"""Modules whose frames lie between a call of a function and its operator."""

_LAST = (nn.Linear, nn.Embedding, nn.MultiHeadAttention)
_BY_FORMAT = (
    nn.layer.conv._ConvNd, nn.layer.norm._BatchNormBase, nn.layer.norm._InstanceNormBase, nn.GroupNorm, nn.BatchNorm,
)  # fmt: skip


def observe(modules: Modules, model: nn.Layer, example: Any) -> Observed:
    """Run a model once; see `acon_core.surgery.Modules.observe`."""
    run = _Run(modules, model)
    random = paddle.get_rng_state()
    try:
        paddle.seed(0)
        with paddle.no_grad(), evaluation_mode(model, model.sublayers(include_self=True)), run.watching():
            output = _call_with(model, example)
    finally:
        paddle.set_rng_state(random)
    return Observed(run.calls, run.functions, list(_floats(output)))


def _call_with(model: nn.Layer, example: Any) -> Any:
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


class _Run:
    """Record the calls of sites, and of activation operators that no known site explains."""

    def __init__(self, modules: Modules, model: nn.Layer) -> None:
        self._modules = modules
        self._paths: dict[int, list[str]] = {}
        self._kept = [*modules.sites(model), *modules.references(model)]
        for path, layer in self._kept:
            self._paths.setdefault(id(layer), []).append(path)
        self._owners = {key: paths[0] for key, paths in self._paths.items()}
        self._running: list[tuple[str, bool]] = []
        self._feeding = Feeding()
        self.calls: dict[str, list[Call]] = {}
        self.functions: list[FunctionCall] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Run the body with every call recorded. Hooks do not see keyword arguments."""
        own = nn.Layer.__call__
        names = [name for each in ACTIVATION_FUNCTIONS for name in (each, f"{each}_") if hasattr(_C_ops, name)]
        kept = {name: getattr(_C_ops, name) for name in (*names, "transpose")}

        def call(layer: nn.Layer, *args: Any, **kwargs: Any) -> Any:
            return self._layer(own, sys._getframe(1), layer, args, kwargs)

        def operator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                return self._operator(name, function, sys._getframe(1), args, kwargs)

            return run

        nn.Layer.__call__ = call
        try:
            for name, function in kept.items():
                setattr(_C_ops, name, operator(name, function))
            yield
        finally:
            nn.Layer.__call__ = own
            for name, function in kept.items():
                setattr(_C_ops, name, function)

    def _layer(self, own: Any, frame: Any, layer: nn.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        paths, node = self._paths.get(id(layer)), self._modules.node(layer)
        inner = isinstance(node, spec.Graph)
        site = (node is not None and not inner) or self._modules.leaf(layer)
        value = next(iter((*args, *kwargs.values())), None)
        call = self._noted(value, frame, site) if isinstance(value, Tensor) and (paths or site) else None
        where = self._running[-1][0] if self._running else ""
        self._running.append((paths[0] if paths else where, node is not None))
        version = _version(value)
        try:
            result = own(layer, *args, **kwargs)
        finally:
            self._running.pop()
        if call is not None:
            call = replace(call, in_place=_version(value) != version)
            for path in paths or ():
                self.calls.setdefault(path, []).append(call)
            explained = any(known for _, known in self._running)
            if paths is None and node is not None and not inner and not spec.named_params(node) and not explained:
                # A layer that no part of the model holds is as good as a function.
                self.functions.append(FunctionCall(spec.activation_name(node).partition("(")[0], where, node, call))
        first = result[0] if isinstance(result, list | tuple) and result else result
        axis = _axis(layer, first.ndim) if isinstance(first, Tensor) and first.ndim else None
        if axis is not None:
            self._feeding.layer(tuple(first.shape), axis)
        return result

    def _operator(self, name: str, function: Any, frame: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "transpose":
            result = function(*args, **kwargs)
            self._feeding.forget()
            return result
        if any(known for _, known in self._running):
            return function(*args, **kwargs)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
            frame = frame.f_back
        x = args[0] if args else next(iter(kwargs.values()))
        call, version = self._noted(x, frame, True), _version(x)
        result = function(*args, **kwargs)
        call = replace(call, in_place=_version(x) != version)
        where = self._running[-1][0] if self._running else ""
        name = name.rstrip("_")
        self.functions.append(FunctionCall(name, where, _node_of(name, args, kwargs), call))
        return result

    def _noted(self, x: Tensor, frame: Any, site: bool) -> Call:
        if not site:
            return Call(tuple(x.shape))
        values = to_array(x).astype(np.float64)
        scale = float(np.sqrt(np.mean(values**2))) if values.size else None
        return Call(tuple(x.shape), scale, self._feeding.axis_of(tuple(x.shape)), find_place(frame, self._owners))


def _version(value: Any) -> int | None:
    return value.inplace_version if isinstance(value, Tensor) else None


def _axis(layer: nn.Layer, rank: int) -> int | None:
    """Return the channel axis of what a layer returns; None if the layer does not say."""
    if isinstance(layer, _LAST):
        return rank - 1
    if isinstance(layer, nn.LayerNorm):
        return rank - 1 if len(layer._normalized_shape) == 1 else None
    if isinstance(layer, _BY_FORMAT) and rank > 1:
        format = getattr(layer, "_data_format", getattr(layer, "_data_layout", "NCHW"))
        return rank - 1 if len(format) > 2 and format.endswith("C") else 1
    return None


def _node_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> spec.Node | None:
    """Return the spec of a call of an operator; None if the spec does not have its options."""
    kind = _LAYERS.get(name)
    options = {key: value for key, value in kwargs.items() if key not in ("x", "input", "name", "out")}
    if kind is None or any(isinstance(each, Tensor) for each in (*args[1:], *options.values())):
        return None
    if name == "hardsigmoid" and not np.allclose(args[1:], (1 / 6, 0.5)[: len(args) - 1], atol=1e-6):
        return None
    plain = name in _WITHOUT_OPTIONS
    return NATIVE_ACTIVATIONS[kind](kind() if plain else kind(*args[1:], **options))


def _floats(value: Any) -> Iterator[NDArray]:
    """Yield the arrays of floats in the output of a model."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield to_array(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _floats(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _floats(each)
