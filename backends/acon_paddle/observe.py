"""One run of a Paddle model, watched: calls of activations, their places, axes and scales."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, _C_ops, nn

from acon_core import spec
from acon_core.surgery import Feeding, Modules, Observed, evaluation_mode
from acon_core.surgery.watch import Watch, call_with, patched, tensors
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
        with paddle.no_grad(), evaluation_mode(model, model.sublayers(include_self=True)), patched(*run.changes()):
            output = call_with(model, example)
    finally:
        paddle.set_rng_state(random)
    arrays = [to_array(each) for each in tensors(Tensor, output) if each.is_floating_point()]
    return Observed(run.calls, run.functions, arrays)


class _Run(Watch):
    """`acon_core.surgery.Watch` for Paddle."""

    tensor = Tensor

    def __init__(self, modules: Modules, model: nn.Layer) -> None:
        super().__init__(modules, model)
        self._feeding = Feeding()

    def changes(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield what is to be patched for a run. Hooks do not see keyword arguments."""
        own = nn.Layer.__call__

        def call(layer: nn.Layer, *args: Any, **kwargs: Any) -> Any:
            return self.module(own, sys._getframe(1), layer, args, kwargs)

        def operator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                return self._operator(name, function, sys._getframe(1), args, kwargs)

            return run

        yield nn.Layer, "__call__", call
        for name in ("transpose", *(name for each in ACTIVATION_FUNCTIONS for name in (each, f"{each}_"))):
            if hasattr(_C_ops, name):
                yield _C_ops, name, operator(name, getattr(_C_ops, name))

    def scale(self, x: Tensor) -> float | None:
        values = to_array(x).astype(np.float64)
        return float(np.sqrt(np.mean(values**2))) if values.size else None

    def axis(self, x: Tensor) -> int | None:
        return self._feeding.axis_of(tuple(x.shape))

    def version(self, x: Tensor) -> int | None:
        return int(x.inplace_version)

    def returned(self, module: nn.Layer, result: Any) -> None:
        first = result[0] if isinstance(result, list | tuple) and result else result
        axis = _axis(module, first.ndim) if isinstance(first, Tensor) and first.ndim else None
        if axis is not None:
            self._feeding.layer(tuple(first.shape), axis)

    def _operator(self, name: str, function: Any, frame: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "transpose":
            self._feeding.forget()
        if name == "transpose" or self.is_explained(frame):
            return function(*args, **kwargs)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
            frame = frame.f_back
        x = args[0] if args else next(iter(kwargs.values()))
        name = name.rstrip("_")
        return self.function(name, _node_of(name, args, kwargs), frame, x, partial(function, *args, **kwargs))


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
