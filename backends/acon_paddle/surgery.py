"""Access to Paddle layers for `acon_core.surgery`, and which parameters decay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, _C_ops, nn

from acon_core import spec, surgery
from acon_core.spec import Node, Shape
from acon_core.surgery import Observed, Probe, evaluation_mode
from acon_paddle import activations  # noqa: F401  (registers the rules of the activations)
from acon_paddle.arrays import to_array, to_tensor
from acon_paddle.build import BuildContext
from acon_paddle.build import make as build_layer
from acon_paddle.checkpoint.layout import layout
from acon_paddle.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS

UNDECAYED = (
    nn.layer.norm._BatchNormBase, nn.layer.norm._InstanceNormBase, nn.BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.SpectralNorm,
)  # fmt: skip
"""Layers of Paddle whose parameters never decay, whatever their shape."""


class PaddleModules:
    """`acon_core.surgery.Modules` for Paddle."""

    layout = layout
    channel_axis = 1

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
        floats = [each for each in (*old.parameters(), *model.parameters()) if each.is_floating_point()]
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

    def replace(self, model: nn.Layer, path: str, module: nn.Layer) -> None:
        parent, _, name = path.rpartition(".")
        dict(self.sites(model))[parent]._sub_layers[name] = module

    def observe(self, model: nn.Layer, example: Any) -> Observed:
        paths: dict[int, list[str]] = {}
        for path, layer in self.sites(model):
            paths.setdefault(id(layer), []).append(path)
        inputs: dict[str, list[Shape]] = {}
        functional: list[str] = []
        running: list[nn.Layer] = []

        @contextmanager
        def ran(layer: nn.Layer, *given: Any) -> Iterator[None]:
            running.append(layer)
            if given and isinstance(given[0], Tensor):
                for path in paths.get(id(layer), ()):
                    inputs.setdefault(path, []).append(tuple(given[0].shape))
            try:
                yield
            finally:
                running.pop()

        def called(operator: str) -> None:
            if all(self.node(layer) is None for layer in running):
                where = next((paths[id(layer)][0] for layer in reversed(running) if id(layer) in paths), "")
                functional.append(f"{operator} in {where or 'the model'}")

        with paddle.no_grad(), evaluation_mode(model, model.sublayers(include_self=True)), _followed(ran), _watched(called):
            model(*example) if isinstance(example, tuple) else model(example)
        return Observed(inputs, functional)

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


@contextmanager
def _followed(ran: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """Enter `ran(layer, *inputs)` around every call. Older hooks do not see keyword arguments."""
    kept = nn.Layer.__call__

    def call(layer: nn.Layer, *given: Any, **named: Any) -> Any:
        with ran(layer, *given, *named.values()):
            return kept(layer, *given, **named)

    nn.Layer.__call__ = call
    try:
        yield
    finally:
        nn.Layer.__call__ = kept


@contextmanager
def _watched(called: Callable[[str], None]) -> Iterator[None]:
    """Call `called` with the name of every activation operator that runs, in place or not."""
    kept = {
        name: getattr(_C_ops, name) for each in ACTIVATION_FUNCTIONS for name in (each, f"{each}_") if hasattr(_C_ops, name)
    }

    def telling(name: str, operator: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            called(name)
            return operator(*args, **options)

        return run

    try:
        for name, operator in kept.items():
            setattr(_C_ops, name, telling(name.rstrip("_"), operator))
        yield
    finally:
        for name, operator in kept.items():
            setattr(_C_ops, name, operator)


modules = PaddleModules()
