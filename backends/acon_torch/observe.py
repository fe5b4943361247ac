"""One run of a PyTorch model, watched: calls of activations, their places, axes and scales."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from acon_core import spec
from acon_core.surgery import Modules, Observed, evaluation_mode
from acon_core.surgery.watch import Watch, call_with, patched, tensors
from acon_torch.arrays import to_array
from acon_torch.channels import axis_of, note_axis
from acon_torch.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS

_FUNCTIONS = {**{kind.__name__.lower(): kind for kind in NATIVE_ACTIVATIONS}, "leaky_relu": nn.LeakyReLU}
_BETWEEN = ("torch.overrides", "torch.nn.functional", "torch._jit_internal", "torch._tensor", __name__)
"""Modules of PyTorch whose frames lie between a call of a function and this module."""


def observe(modules: Modules, model: nn.Module, example: Any, as_used: bool) -> Observed:
    """Run a model once; see `acon_core.surgery.Modules.observe`."""
    run = _Run(modules, model)
    devices = sorted({each.device.index for each in model.parameters() if each.device.type == "cuda"})
    fast = torch.backends.mha.get_fastpath_enabled()
    own = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run.module(own, sys._getframe(1), module, args, kwargs)

    try:
        torch.backends.mha.set_fastpath_enabled(fast and as_used)
        with (
            torch.random.fork_rng(devices), torch.no_grad(), evaluation_mode(model, model.modules()),
            patched((nn.Module, "__call__", call)),  # hooks would hold off fused paths
            _Functions(run),
        ):  # fmt: skip
            torch.manual_seed(0)
            output = call_with(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    floats = [each for each in tensors(Tensor, output) if each.is_floating_point()]
    arrays = [to_array(each) for each in floats if each.layout is torch.strided and not each.is_nested]
    return Observed(run.calls, run.functions, arrays)


class _Run(Watch):
    """`acon_core.surgery.Watch` for PyTorch. `quiet` is true in its own operations."""

    tensor = Tensor
    quiet = False

    def scale(self, x: Tensor) -> float | None:
        quiet, self.quiet = self.quiet, True
        try:
            floats = x.detach().float()
            return float(floats.norm()) / floats.numel() ** 0.5 if floats.numel() else None
        finally:
            self.quiet = quiet

    def axis(self, x: Tensor) -> int | str | None:
        return axis_of(x)

    def version(self, x: Tensor) -> int | None:
        return None if x.is_inference() else x._version


class _Functions(TorchFunctionMode):
    """Show a run the functions of PyTorch that the model calls."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._run.quiet:
            return function(*args, **kwargs)
        frame = sys._getframe(1)
        name = getattr(function, "__name__", "").rstrip("_")
        value = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        if name in ACTIVATION_FUNCTIONS and value is not None and not self._run.is_explained(frame):
            while frame.f_back is not None and frame.f_globals.get("__name__") in _BETWEEN:
                frame = frame.f_back
            node = _node_of(name, args, kwargs)
            result = self._run.function(name, node, frame, value, partial(function, *args, **kwargs))
        else:
            result = function(*args, **kwargs)
        note_axis(function, args, kwargs, result)
        return result


def _node_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> spec.Node | None:
    """Return the spec of a call: PyTorch's modules have the options of its functions."""
    options = {key: value for key, value in kwargs.items() if key not in ("input", "x", "out")}
    rest = args[1:] if not any(isinstance(kwargs.get(key), Tensor) for key in ("input", "x")) else args
    if any(isinstance(value, Tensor) for value in (*rest, *options.values())):
        return None
    try:
        kind = _FUNCTIONS[name]
        node: spec.Node | None = NATIVE_ACTIVATIONS[kind](kind(*rest, **options))
    except TypeError:  # an option that the module does not have
        return None
    return node
