"""Access to MegEngine modules for `acon_core.surgery`, and which parameters decay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any
from unittest.mock import patch

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager
from megengine.module.batchnorm import _BatchNorm
from numpy.typing import NDArray

from acon_core import spec, surgery
from acon_core.spec import Node, Shape
from acon_core.surgery import Observed, Probe, evaluation_mode
from acon_megengine.arrays import to_array
from acon_megengine.build import BuildContext
from acon_megengine.build import make as build_module
from acon_megengine.checkpoint.layout import layout as megengine_layout
from acon_megengine.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS

UNDECAYED = (_BatchNorm, M.LayerNorm, M.GroupNorm, M.InstanceNorm, M.GeneralNorm, M.PReLU)
"""Modules of MegEngine whose parameters never decay, whatever their shape."""

HOMES = ("megengine", __name__.partition(".")[0])
"""Packages whose classes and calls are known: a subclass may compute something else."""


class MegEngineModules:
    """`acon_core.surgery.Modules` for MegEngine."""

    layout = megengine_layout
    channel_axis = 1

    def sites(self, model: M.Module) -> Iterator[tuple[str, M.Module]]:
        yield from _below(model, "")

    def node(self, module: M.Module) -> Node | None:
        made = vars(module).get("spec")
        if isinstance(made, Node):
            return made if type(module).__module__.partition(".")[0] in HOMES else None
        return NATIVE_ACTIVATIONS[type(module)](module) if type(module) in NATIVE_ACTIVATIONS else None

    def state(self, module: M.Module, node: Node) -> dict[str, NDArray]:
        native = {name: np.array(array) for name, array in module.state_dict().items()}
        if isinstance(module, M.PReLU):  # MegEngine has (1, C, 1, 1) where ours, as PyTorch, has (C,)
            native = {name: array.reshape(-1) for name, array in native.items()}
        return dict(self.layout.to_canonical(node, native)[0])

    def make(self, node: Node, state: Mapping[str, NDArray], old: M.Module, model: M.Module) -> M.Module:
        made = build_module(node, BuildContext("float32"))
        narrow = {
            path: state[path] if param.integer else state[path].astype(np.float32)
            for path, param in spec.named_params(node).items()
        }
        made.load_state_dict(dict(self.layout.to_native(node, narrow)))
        known = next(chain(old.parameters(), model.parameters()), None)
        for tensor in made.tensors() if known is not None else ():
            tensor._reset(tensor.astype(known.dtype).to(known.device))
        made.train(old.training)
        return made

    def replace(self, model: M.Module, path: str, module: M.Module) -> None:
        _put(model, path.split("."), module)

    def observe(self, model: M.Module, example: Any) -> Observed:
        inputs: dict[str, list[Shape]] = {}
        functional: list[str] = []
        running: list[str] = []
        paths: dict[int, list[str]] = {}
        modules = dict(self.sites(model))
        for path, module in modules.items():
            paths.setdefault(id(module), []).append(path)

        own_call = M.Module.__call__

        def enter(module: M.Module, *args: Any, **kwargs: Any) -> Any:
            # Hooks of MegEngine do not see keyword arguments.
            if id(module) not in paths:
                return own_call(module, *args, **kwargs)
            given = next(chain(args, kwargs.values()), None)
            for path in paths[id(module)] if isinstance(given, Tensor) else ():
                inputs.setdefault(path, []).append(given._tuple_shape)
            running.append(paths[id(module)][0])
            try:
                return own_call(module, *args, **kwargs)
            finally:
                running.pop()

        def call(function: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
            # Calls from MegEngine's modules and ours belong to a site.
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.partition(".")[0] not in HOMES:
                functional.append(f"{name} in {running[-1] if running else ''}")
            return function(*args, **kwargs)

        with evaluation_mode(model, model.modules()), ExitStack() as stack:
            stack.enter_context(patch.object(M.Module, "__call__", enter))
            for name in ACTIVATION_FUNCTIONS:
                own = getattr(F, name)
                for namespace in (F, F.nn, F.elemwise):
                    if getattr(namespace, name, None) is own:
                        stack.enter_context(patch.object(namespace, name, partial(call, own, name)))
            model(*example) if isinstance(example, tuple) else model(example)
        return Observed(inputs, functional)

    def parameters(self, model: M.Module) -> Iterator[tuple[str, Any, bool]]:
        for path, parameter, owner in model.named_parameters(with_parent=True):
            # A convolution's bias is 4-D, and so are the weights of norms and of MegEngine's PReLU.
            named = path.split(".")[-1] in ("bias", *surgery.UNDECAYED_NAMES)
            yield path, parameter, parameter.ndim > 1 and not named and not isinstance(owner, UNDECAYED)

    def read(self, module: M.Module, name: str) -> NDArray:
        value = getattr(module, name)
        return to_array(value) if isinstance(value, Tensor) else np.array(value)

    def write(self, module: M.Module, name: str, array: NDArray) -> None:
        value = getattr(module, name)
        if isinstance(value, Tensor):
            value._reset(Tensor(array.astype(value.dtype), device=value.device))
        else:
            setattr(module, name, array.astype(np.asarray(value).dtype))

    def probe(self, module: M.Module, x: NDArray, g: NDArray, names: tuple[str, ...], train: bool) -> Probe:
        own = {name: each for name, each in module.named_parameters() if name in names}
        given = Tensor(x)
        with evaluation_mode(module, module.modules()):
            module.train(train)
            values = [given, *own.values()]
            with GradManager() as manager:
                gradients: list[Any] = [None] * len(values)
                for place, value in enumerate(values):
                    manager.attach([value], callbacks=[partial(_keep, gradients, place)])
                y = module(given)
                manager.backward(y, Tensor(g))
        dx, *rest = [None if each is None else to_array(each) for each in gradients]
        gates = {**dict.fromkeys(names), **dict(zip(own, rest, strict=True))}
        return Probe(to_array(y), to_array(given), np.zeros_like(x) if dx is None else dx, gates)

    def run(self, module: M.Module, x: NDArray) -> NDArray:
        with evaluation_mode(module, module.modules()):
            return to_array(module(Tensor(x)))


def _keep(gradients: list[Any], place: int, _: Tensor, gradient: Tensor) -> Tensor:
    gradients[place] = gradient
    return gradient


def _below(value: Any, path: str) -> Iterator[tuple[str, M.Module]]:
    """Yield the modules in a value: attributes, and items of lists, tuples and dictionaries."""
    if isinstance(value, M.Module):
        yield path, value
        parts: Any = vars(value).items()
    elif isinstance(value, dict):
        parts = value.items()
    else:
        parts = enumerate(value) if isinstance(value, list | tuple) else ()
    for name, part in parts:
        if isinstance(part, M.Module | dict | list | tuple):
            yield from _below(part, spec.join(path, str(name)))


def _put(holder: Any, names: Sequence[str], module: M.Module) -> Any:
    """Put a module where the names lead and return the holder; tuples are replaced."""
    if not names:
        return module
    name, *rest = names
    if isinstance(holder, tuple):
        at = int(name)
        return (*holder[:at], _put(holder[at], rest, module), *holder[at + 1 :])
    if isinstance(holder, list | dict):
        key = int(name) if isinstance(holder, list) else name
        holder[key] = _put(holder[key], rest, module)
    else:
        setattr(holder, name, _put(getattr(holder, name), rest, module))
    return holder


modules = MegEngineModules()
