"""Access to Paddle layers for `acon_core.surgery`, and which parameters decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from acon_core import spec, surgery
from acon_core.spec import Node
from acon_core.surgery import Observed, Probe, evaluation_mode, held, put
from acon_paddle import activations  # noqa: F401  (registers the rules of the activations)
from acon_paddle.arrays import to_array, to_tensor
from acon_paddle.build import BuildContext
from acon_paddle.build import make as build_layer
from acon_paddle.checkpoint.layout import layout
from acon_paddle.observe import observe
from acon_paddle.pointwise import NATIVE_ACTIVATIONS

UNDECAYED = (
    nn.layer.norm._BatchNormBase, nn.layer.norm._InstanceNormBase, nn.BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.SpectralNorm,
)  # fmt: skip
"""Layers of Paddle whose parameters never decay, whatever their shape."""


_OWN_ATTRIBUTES = set(vars(nn.Layer()))
_HOOKS = ("_forward_pre_hooks", "_forward_post_hooks")


class InPlace(nn.Layer):
    """An activation that writes its result into its input, as `F.relu_` does.

    Parameters
    ----------
    activation : nn.Layer
        The activation.
    """

    def __init__(self, activation: nn.Layer) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        # The activation keeps what it is given for the backward pass.
        return paddle.assign(self.activation(x.clone()), x)


class PaddleModules(surgery.Modules):
    """`acon_core.surgery.Modules` for Paddle."""

    layout = layout
    channel_axis = 1
    shows_axes = True

    def sites(self, model: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
        yield "", model
        for name, child in model._sub_layers.items():  # named_sublayers leaves out a layer's second path
            if child is not None:
                yield from ((spec.join(name, path) if path else name, layer) for path, layer in self.sites(child))

    def node(self, module: Any) -> Node | None:
        made: Node | None = getattr(module, "spec", None)
        if isinstance(made, Node) and type(module).__module__.partition(".")[0] in ("acon_paddle", "paddle"):
            return made  # a user's subclass of one of our classes may compute something else
        native = NATIVE_ACTIVATIONS.get(type(module))
        return native(module) if native else None

    def state(self, module: nn.Layer, node: Node) -> dict[str, NDArray]:
        arrays = {name: to_array(tensor) for name, tensor in module.state_dict().items()}
        if type(module) is nn.PReLU:
            arrays = {"weight": arrays["_weight"]}
        return dict(layout.to_canonical(node, arrays)[0])

    def make(self, node: Node, state: Mapping[str, NDArray], old: nn.Layer, model: nn.Layer) -> nn.Layer:
        floats = _floats(old, model)
        dtype = str(floats[0].dtype).rpartition(".")[2] if floats else paddle.get_default_dtype()
        layer = build_layer(node, BuildContext(dtype))
        integers = {path for path, param in spec.named_params(node).items() if param.integer}
        cast = {path: array if path in integers else np.asarray(array).astype(dtype) for path, array in state.items()}
        layer.set_state_dict(dict(layout.to_native(node, cast)))
        if floats:
            layer.to(device=floats[0].place)
        if not old.training:
            layer.eval()
        frozen = {name: parameter.stop_gradient for name, parameter in old.named_parameters()}
        for name, parameter in layer.named_parameters():
            parameter.stop_gradient = frozen.get(name, bool(frozen) and all(frozen.values()))
        return layer

    def adopt(self, module: nn.Layer, old: nn.Layer) -> None:
        for name in _HOOKS:  # the handles of hooks remove them from these dictionaries
            setattr(module, name, getattr(old, name))

    def settle(self, module: nn.Layer, old: nn.Layer, model: nn.Layer) -> nn.Layer:
        floats = _floats(old, model)
        if floats:
            module.to(device=floats[0].place, dtype=str(floats[0].dtype).rpartition(".")[2])
        module.train() if old.training else module.eval()
        return module

    def replace(self, model: nn.Layer, path: str, module: nn.Layer) -> None:
        put(model, path.split("."), module)

    def references(self, model: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
        sites = dict(self.sites(model))
        registered = {id(layer) for layer in sites.values()}
        for path, layer in sites.items():
            for name, value in vars(layer).items():
                if name not in _OWN_ATTRIBUTES:
                    for below, found in held(nn.Layer, value, spec.join(path, name)):
                        parts = [("", found)] if id(found) in registered else self.sites(found)
                        yield from ((spec.join(below, part) if part else below, each) for part, each in parts)

    def unfit(self, model: nn.Layer) -> str:
        for path, layer in self.sites(model):
            where = path or "the model"
            if isinstance(layer, paddle.jit.TranslatedLayer):
                return f"{where} was loaded with paddle.jit.load and cannot be changed; replace before paddle.jit.save"
            if type(layer.forward).__name__.endswith("StaticFunction"):
                return f"{where} is compiled; replace the activations of the original model, then call paddle.jit.to_static"
        return ""

    def leaf(self, module: nn.Layer) -> bool:
        home = type(module).__module__.partition(".")[0]
        return home not in ("paddle", "acon_paddle") and not module._sub_layers and not module.state_dict()

    def writing(self, module: nn.Layer) -> nn.Layer:
        made = InPlace(module)
        made.train() if module.training else made.eval()
        return made

    def observe(self, model: nn.Layer, example: Any, as_used: bool = False) -> Observed:
        return observe(self, model, example)

    def parameters(self, model: nn.Layer) -> Iterator[tuple[str, Tensor, bool]]:
        layers = model.sublayers(include_self=True)
        norms = {id(each) for layer in layers if isinstance(layer, UNDECAYED) for each in layer.parameters()}
        for name, parameter in model.named_parameters():
            if not parameter.stop_gradient:
                last = name.rpartition(".")[2]
                free = last in surgery.UNDECAYED_NAMES or "bias" in last or id(parameter) in norms
                yield name, parameter, parameter.ndim > 1 and not free

    def read(self, module: nn.Layer, name: str) -> NDArray:
        return to_array(getattr(module, name))

    def write(self, module: nn.Layer, name: str, array: NDArray) -> None:
        held = getattr(module, name)
        held.set_value(array.astype(held.numpy().dtype))

    def probe(self, module: nn.Layer, x: NDArray, g: NDArray, names: tuple[str, ...], train: bool) -> Probe:
        own = {name: each for name, each in module.named_parameters() if name in names}
        frozen = {name: each.stop_gradient for name, each in own.items()}
        leaf = to_tensor(x)
        leaf.stop_gradient = False
        with evaluation_mode(module, module.sublayers(include_self=True)):
            if train:
                module.train()
            for each in own.values():
                each.stop_gradient = False
            try:
                given = leaf.clone()
                y = module(given)
                found = paddle.grad(y, [leaf, *own.values()], to_tensor(g).astype(y.dtype), allow_unused=True)
            finally:
                for name, each in own.items():
                    each.stop_gradient = frozen[name]
        dx, *rest = [None if each is None else to_array(each) for each in found]
        gates = {**dict.fromkeys(names), **dict(zip(own, rest, strict=True))}
        return Probe(to_array(y), to_array(given), np.zeros_like(x) if dx is None else dx, gates)

    def run(self, module: nn.Layer, x: NDArray) -> NDArray:
        with paddle.no_grad(), evaluation_mode(module, module.sublayers(include_self=True)):
            return to_array(module(to_tensor(x)))


def _floats(old: nn.Layer, model: nn.Layer) -> list[Tensor]:
    """Return the parameters that show dtype and device: of a layer, then of the model."""
    return [each for each in (*old.parameters(), *model.parameters()) if each.is_floating_point()]


modules = PaddleModules()
