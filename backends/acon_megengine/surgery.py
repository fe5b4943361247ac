"""Access to MegEngine modules for `acon_core.surgery`, and which parameters decay."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager
from megengine.module.batchnorm import _BatchNorm
from numpy.typing import NDArray

from acon_core import spec, surgery
from acon_core.spec import Node
from acon_core.surgery import Observed, Probe, evaluation_mode, put
from acon_megengine.arrays import to_array
from acon_megengine.build import BuildContext
from acon_megengine.build import make as build_module
from acon_megengine.checkpoint.layout import layout as megengine_layout
from acon_megengine.observe import HOMES, observe
from acon_megengine.pointwise import NATIVE_ACTIVATIONS

UNDECAYED = (_BatchNorm, M.LayerNorm, M.GroupNorm, M.InstanceNorm, M.GeneralNorm, M.PReLU)
"""Modules of MegEngine whose parameters never decay, whatever their shape."""

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


class MegEngineModules(surgery.Modules):
    """`acon_core.surgery.Modules` for MegEngine."""

    layout = megengine_layout
    channel_axis = 1
    shows_axes = True

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
        return self.settle(made, old, model)

    def replace(self, model: M.Module, path: str, module: M.Module) -> None:
        put(model, path.split("."), module)

    def unfit(self, model: M.Module) -> str:
        for path, module in self.sites(model):
            if type(module).__module__.startswith("megengine.traced_module"):
                return f"{path or 'the model'} is a traced module, which cannot be changed; replace before trace_module"
        return ""

    def copy(self, site: M.Module) -> M.Module:
        made = copy.copy(site)
        made._name = made._short_name = None  # MegEngine warns where a module gets a second name
        return made

    def leaf(self, module: M.Module) -> bool:
        home = type(module).__module__.partition(".")[0]
        return home not in HOMES and next(module.children(), None) is None and not module.state_dict()

    def adopt(self, module: M.Module, old: M.Module) -> None:
        for name in _HOOKS:  # the handles of hooks remove them from these dictionaries
            setattr(module, name, getattr(old, name))

    def settle(self, module: M.Module, old: M.Module, model: M.Module) -> M.Module:
        known = next(chain(old.parameters(), model.parameters()), None)
        for tensor in module.tensors() if known is not None else ():
            tensor._reset(tensor.astype(known.dtype).to(known.device))
        module.train(old.training)
        return module

    def observe(self, model: M.Module, example: Any, as_used: bool = False) -> Observed:
        return observe(self, model, example)

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


modules = MegEngineModules()
