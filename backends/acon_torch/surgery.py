"""Access to PyTorch modules for `acon_core.surgery`, and which parameters decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from acon_core import spec, surgery
from acon_core.surgery import Observed, Probe, evaluation_mode
from acon_torch import activations  # noqa: F401  (registers the rules of the activations)
from acon_torch.arrays import to_array, to_tensor
from acon_torch.build import BuildContext, make
from acon_torch.checkpoint.layout import layout
from acon_torch.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS

UNDECAYED = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Modules of PyTorch whose parameters never decay, whatever their shape."""


class _Calls(TorchFunctionMode):
    """Record the calls of activation functions that do not come from a module with a known spec."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, bool]] = []
        self.found: dict[str, None] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "").rstrip("_")
        if name in ACTIVATION_FUNCTIONS and not any(explained for _, explained in self.running):
            self.found[f"{name} in {self.running[-1][0]}"] = None
        return function(*args, **(kwargs or {}))


class TorchModules:
    """`acon_core.surgery.Modules` for PyTorch."""

    layout = layout
    channel_axis = 1

    def sites(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        return model.named_modules(remove_duplicate=False)

    def node(self, module: nn.Module) -> spec.Node | None:
        # A user's subclass of one of our classes may compute something else.
        if type(module).__module__.split(".")[0] == __package__ and isinstance(getattr(module, "spec", None), spec.Node):
            return module.spec  # type: ignore[return-value]
        return NATIVE_ACTIVATIONS[type(module)](module) if type(module) in NATIVE_ACTIVATIONS else None

    def state(self, module: nn.Module, node: spec.Node) -> dict[str, NDArray]:
        return dict(layout.to_canonical(node, {path: to_array(tensor) for path, tensor in module.state_dict().items()})[0])

    def make(self, node: spec.Node, state: Mapping[str, NDArray], old: nn.Module, model: nn.Module) -> nn.Module:
        tensors = (each for part in (old, model) for each in (*part.parameters(), *part.buffers()) if each.is_floating_point())
        example = next(tensors, torch.empty(0))
        frozen = {parameter.requires_grad for parameter in old.parameters()} == {False}
        module = make(node, BuildContext(example.dtype))
        own = module.state_dict()
        values = layout.to_native(node, state)
        module.load_state_dict({path: to_tensor(array).to(own[path].dtype) for path, array in values.items()})
        return module.to(example.device).train(old.training).requires_grad_(not frozen)

    def replace(self, model: nn.Module, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)

    def observe(self, model: nn.Module, example: Any) -> Observed:
        paths: dict[nn.Module, list[str]] = {}
        for path, module in self.sites(model):
            paths.setdefault(module, []).append(path)
        inputs: dict[str, list[spec.Shape]] = {}
        calls = _Calls()
        hooks = []

        def enter(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            values = (*positional, *named.values())
            calls.running.append((paths[module][0] or type(module).__name__, self.node(module) is not None))
            if values and isinstance(values[0], Tensor):
                for path in paths[module]:
                    inputs.setdefault(path, []).append(tuple(values[0].shape))

        def leave(module: nn.Module, values: Any, made: Any) -> None:
            calls.running.pop()

        for module in paths:
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave, always_call=True))
        try:
            with torch.no_grad(), evaluation_mode(model, model.modules()), calls:
                model(*example) if isinstance(example, tuple) else model(example)
        finally:
            for hook in hooks:
                hook.remove()
        return Observed(inputs, list(calls.found))

    def parameters(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
        norms = {id(each) for module in model.modules() if isinstance(module, UNDECAYED) for each in module.parameters(False)}
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                name = path.rpartition(".")[2]
                exempt = "bias" in name or name in surgery.UNDECAYED_NAMES or id(parameter) in norms
                yield path, parameter, parameter.ndim >= 2 and not exempt

    def read(self, module: nn.Module, name: str) -> NDArray:
        return to_array(getattr(module, name))

    def write(self, module: nn.Module, name: str, array: NDArray) -> None:
        with torch.no_grad():
            getattr(module, name).copy_(to_tensor(array))

    def probe(self, module: nn.Module, x: NDArray, g: NDArray, names: tuple[str, ...], train: bool) -> Probe:
        own = {name: each for name, each in module.named_parameters() if name in names}
        device = next((parameter.device for parameter in module.parameters()), None)
        frozen = [each for each in own.values() if not each.requires_grad]
        leaf = to_tensor(x).to(device).requires_grad_()
        with torch.enable_grad(), evaluation_mode(module, module.modules()):
            module.train(train)
            for each in frozen:
                each.requires_grad_()
            try:
                given = leaf.clone()
                y = module(given)
                found = torch.autograd.grad(y, [leaf, *own.values()], to_tensor(g).to(y), allow_unused=True)
            finally:
                for each in frozen:
                    each.requires_grad_(False)
        dx, *rest = [None if each is None else to_array(each) for each in found]
        gates = {**dict.fromkeys(names), **dict(zip(own, rest, strict=True))}
        return Probe(to_array(y), to_array(given), np.zeros_like(x) if dx is None else dx, gates)

    def run(self, module: nn.Module, x: NDArray) -> NDArray:
        device = next((parameter.device for parameter in module.parameters()), None)
        with torch.no_grad(), evaluation_mode(module, module.modules()):
            return to_array(module(to_tensor(x).to(device)))


modules = TorchModules()
