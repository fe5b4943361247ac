"""One run of a PyTorch model, watched: calls of activations, their places, axes and scales."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from acon_core import spec
from acon_core.surgery import Call, FunctionCall, Modules, Observed, evaluation_mode, find_place
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
    try:
        torch.backends.mha.set_fastpath_enabled(fast and as_used)
        with torch.random.fork_rng(devices), torch.no_grad(), evaluation_mode(model, model.modules()), run.watching(), run:
            torch.manual_seed(0)
            output = call_with(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return Observed(run.calls, run.functions, list(_floats(output)))


def call_with(model: nn.Module, example: Any) -> Any:
    """Call a model with an input, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


class _Run(TorchFunctionMode):
    """Record the calls of sites, and of activation functions that no known site explains."""

    def __init__(self, modules: Modules, model: nn.Module) -> None:
        super().__init__()
        self._modules = modules
        self._paths: dict[int, list[str]] = {}
        self._kept = [*modules.sites(model), *modules.references(model)]
        for path, module in self._kept:
            self._paths.setdefault(id(module), []).append(path)
        self._owners = {key: paths[0] for key, paths in self._paths.items()}
        self._running: list[tuple[str, bool]] = []
        self._quiet = False
        self.calls: dict[str, list[Call]] = {}
        self.functions: list[FunctionCall] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Run the body with every call of a module recorded. Hooks would hold off fused paths."""
        own = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._module(own, sys._getframe(1), module, args, kwargs)

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = own  # type: ignore[method-assign]

    def _module(self, own: Any, frame: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        paths = self._paths.get(id(module))
        node = self._modules.node(module)
        if isinstance(node, spec.Graph) or (paths is None and node is None):
            node = None if paths is None else node
        site = node is not None or self._modules.leaf(module)
        value = next(iter((*args, *kwargs.values())), None)
        if paths is None and not site:
            return own(module, *args, **kwargs)
        call = self._noted(value, frame, site) if isinstance(value, Tensor) else None
        where = self._running[-1][0] if self._running else ""
        self._running.append((paths[0] if paths else where, node is not None))
        version = _version(value)
        try:
            result = own(module, *args, **kwargs)
        finally:
            self._running.pop()
        if call is not None:
            call = replace(call, in_place=_version(value) != version)
            for path in paths or ():
                self.calls.setdefault(path, []).append(call)
            explained = any(known for _, known in self._running)
            if paths is None and node is not None and not spec.named_params(node) and not explained:
                # A module that no part of the model holds is as good as a function.
                self.functions.append(FunctionCall(spec.activation_name(node).partition("(")[0], where, node, call))
        return result

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._quiet:
            return function(*args, **kwargs)
        name = getattr(function, "__name__", "").rstrip("_")
        value = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        wanted = name in ACTIVATION_FUNCTIONS and value is not None and not any(known for _, known in self._running)
        if not wanted:
            result = function(*args, **kwargs)
        else:
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_globals.get("__name__") in _BETWEEN:
                frame = frame.f_back
            call = self._noted(value, frame, True)
            version = _version(value)
            result = function(*args, **kwargs)
            call = replace(call, in_place=_version(value) != version)
            where = self._running[-1][0] if self._running else ""
            self.functions.append(FunctionCall(name, where, _node_of(name, args, kwargs), call))
        note_axis(function, args, kwargs, result)
        return result

    def _noted(self, x: Tensor, frame: Any, site: bool) -> Call:
        if not site:
            return Call(tuple(x.shape))
        quiet, self._quiet = self._quiet, True
        try:
            floats = x.detach().float()
            scale = float(floats.norm()) / floats.numel() ** 0.5 if floats.numel() else None
        finally:
            self._quiet = quiet
        return Call(tuple(x.shape), scale, axis_of(x), find_place(frame, self._owners))


def _version(value: Any) -> int | None:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


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


def _floats(value: Any) -> Iterator[NDArray]:
    """Yield the arrays of floats in the output of a model."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.layout is torch.strided and not value.is_nested:
            yield to_array(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _floats(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _floats(each)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _floats(getattr(value, name))
