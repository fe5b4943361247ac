"""Access to PyTorch modules for `acon_core.surgery`, and which parameters decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from acon_core import spec, surgery
from acon_core.surgery import Observed, Probe, evaluation_mode, held, put
from acon_torch import activations  # noqa: F401  (registers the rules of the activations)
from acon_torch.arrays import to_array, to_tensor
from acon_torch.build import BuildContext, make
from acon_torch.checkpoint.layout import layout
from acon_torch.observe import observe
from acon_torch.pointwise import NATIVE_ACTIVATIONS

UNDECAYED = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Modules of PyTorch whose parameters never decay, whatever their shape."""

_OWN_ATTRIBUTES = set(vars(nn.Module()))
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


class _Pure(nn.Module):
    """A module that leaves its input as it is."""

    def __init__(self, site: nn.Module) -> None:
        super().__init__()
        self.site = site

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(each.clone() if isinstance(each, Tensor) else each for each in args)
        return self.site(*args, **{name: each.clone() if isinstance(each, Tensor) else each for name, each in kwargs.items()})


class InPlace(nn.Module):
    """An activation that writes its result into its input, as `nn.ReLU(inplace=True)` does.

    Parameters
    ----------
    activation : nn.Module
        The activation.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        # The activation keeps what it is given for the backward pass.
        return input.copy_(self.activation(input.clone()))


class TorchModules(surgery.Modules):
    """`acon_core.surgery.Modules` for PyTorch."""

    layout = layout
    channel_axis = 1
    shows_axes = True

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
        example = _example(old, model)
        frozen = {parameter.requires_grad for parameter in old.parameters()} == {False}
        module = make(node, BuildContext(example.dtype))
        own = module.state_dict()
        values = layout.to_native(node, state)
        module.load_state_dict({path: to_tensor(array).to(own[path].dtype) for path, array in values.items()})
        return module.to(example.device).train(old.training).requires_grad_(not frozen)

    def adopt(self, module: nn.Module, old: nn.Module) -> None:
        for name in _HOOKS:  # the handles of hooks remove them from these dictionaries
            setattr(module, name, getattr(old, name))

    def settle(self, module: nn.Module, old: nn.Module, model: nn.Module) -> nn.Module:
        example = _example(old, model)
        return module.to(example.device, example.dtype).train(old.training)

    def replace(self, model: nn.Module, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        put(model, path.split("."), module)
        if path in dict(model.named_modules(remove_duplicate=False)):
            _mend_fast_path(model, model.get_submodule(parent), type(module) in (nn.ReLU, nn.GELU) and name == "activation")

    def references(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        registered = {id(module) for module in model.modules()}
        for path, module in model.named_modules():
            for name, value in vars(module).items():
                if name not in _OWN_ATTRIBUTES:
                    for below, found in held(nn.Module, value, spec.join(path, name)):
                        parts = [("", found)] if id(found) in registered else found.named_modules()
                        yield from ((spec.join(below, part) if part else below, each) for part, each in parts)

    def unfit(self, model: nn.Module) -> str:
        for path, module in model.named_modules():
            where = path or "the model"
            if isinstance(module, torch.jit.ScriptModule):
                return f"{where} is a TorchScript module, which cannot be changed; replace before torch.jit.script or trace"
            if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
                return f"{where} is compiled; replace the activations of the original model, then call torch.compile"
        return ""

    def leaf(self, module: nn.Module) -> bool:
        home = type(module).__module__.split(".")[0]
        own = next(module.children(), None) is None and not module.state_dict() and next(module.parameters(), None) is None
        return own and home not in ("torch", __package__)

    def pure(self, site: nn.Module) -> nn.Module:
        return _Pure(site)

    def writing(self, module: nn.Module) -> nn.Module:
        return InPlace(module).train(module.training)

    def observe(self, model: nn.Module, example: Any, as_used: bool = False) -> Observed:
        return observe(self, model, example, as_used)

    def parameters(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
        norms = {id(each) for module in model.modules() if isinstance(module, UNDECAYED) for each in module.parameters(False)}
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                name = path.rpartition(".")[2]
                exempt = "bias" in name or name in surgery.UNDECAYED_NAMES or id(parameter) in norms
                matrix = isinstance(parameter, nn.UninitializedParameter) or parameter.ndim >= 2
                yield path, parameter, matrix and not exempt

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


def _example(old: nn.Module, model: nn.Module) -> Tensor:
    """Return a tensor with the dtype and the device of a module, or else of the model."""
    tensors = (each for part in (old, model) for each in (*part.parameters(), *part.buffers()) if each.is_floating_point())
    return next(tensors, torch.empty(0))


def _mend_fast_path(model: nn.Module, layer: nn.Module, fits: bool) -> None:
    """Let PyTorch's transformer use its fused kernels only with the activations they have."""
    if not isinstance(layer, nn.TransformerEncoderLayer):
        return
    own = {nn.ReLU: 1, nn.GELU: 2}.get(type(layer.activation), {F.relu: 1, F.gelu: 2}.get(layer.activation, 0))
    layer.activation_relu_or_gelu = own if fits else 0
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and encoder.use_nested_tensor and not fits:
            encoder.use_nested_tensor = layer not in encoder.layers


modules = TorchModules()
