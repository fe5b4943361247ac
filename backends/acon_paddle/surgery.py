"""Operations on Paddle layers of anyone's: activations replaced, branches fused, norms folded, ACON checked."""

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
from acon_core.surgery import Diagnosis, GradientBounds, Observed, Replacements
from acon_paddle import activations  # noqa: F401  (registers its rules)
from acon_paddle.build import BuildContext
from acon_paddle.build import make as build_layer
from acon_paddle.checkpoint.layout import layout


def _selu(layer: nn.SELU) -> Node | None:
    return spec.SELU() if (layer._scale, layer._alpha) == (nn.SELU()._scale, nn.SELU()._alpha) else None


def _softplus(layer: nn.Softplus) -> Node | None:
    """Below a threshold of 20, the jump to x at the threshold is more than rounding."""
    return spec.Softplus(float(layer._beta)) if layer._threshold >= 20 else None


def _prelu(layer: nn.PReLU) -> Node:
    if layer._num_parameters == 1:
        return spec.PReLU()
    axis = 1 if layer._data_format.startswith("NC") else -1
    return spec.PReLU(layer._num_parameters, shared=False, channel_axis=axis)


NATIVE: dict[type[nn.Layer], Callable[[Any], Node | None]] = {
    nn.Identity: lambda layer: spec.Identity(),
    nn.ReLU: lambda layer: spec.ReLU(),
    nn.ReLU6: lambda layer: spec.ReLU6(),
    nn.LeakyReLU: lambda layer: spec.LeakyReLU(float(layer._negative_slope)),
    nn.PReLU: _prelu,
    nn.ELU: lambda layer: spec.ELU(float(layer._alpha)),
    nn.SELU: _selu,
    nn.CELU: lambda layer: spec.CELU(float(layer._alpha)),
    nn.GELU: lambda layer: spec.GELU("tanh" if layer._approximate in (True, "tanh") else "none"),
    nn.Silu: lambda layer: spec.SiLU(),
    nn.Swish: lambda layer: spec.SiLU(),
    nn.Mish: lambda layer: spec.Mish(),
    nn.Softplus: _softplus,
    nn.Hardswish: lambda layer: spec.HardSwish(),
    nn.Hardsigmoid: lambda layer: spec.HardSigmoid(),
    nn.Sigmoid: lambda layer: spec.Sigmoid(),
}
"""Paddle's own activations, as what they compute; None where that is another function."""

# What F.relu, paddle.sigmoid, x.sigmoid() and the like all call, by whatever name a model's file has imported them.
OPERATORS = (
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "softplus", "hardswish",
    "hardsigmoid", "sigmoid",
)  # fmt: skip


_NORMS = (
    nn.layer.norm._BatchNormBase, nn.layer.norm._InstanceNormBase, nn.BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.SpectralNorm,
)  # fmt: skip


@contextmanager
def _evaluation(model: nn.Layer) -> Iterator[None]:
    """Every layer in evaluation, without gradients; afterwards, each in the mode that it was in."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        with paddle.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training


class PaddleModules:
    """Paddle layers under the verbs of `acon_core.surgery.Modules`."""

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
            return made  # a user's subclass of one of ours may compute anything
        native = NATIVE.get(type(module))
        return native(module) if native else None

    def state(self, module: nn.Layer, node: Node) -> dict[str, NDArray]:
        arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
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

        with _evaluation(model), _followed(ran), _watched(called):
            model(*example) if isinstance(example, tuple) else model(example)
        return Observed(inputs, functional)

    def parameters(self, model: nn.Layer) -> Iterator[tuple[str, Tensor, bool]]:
        layers = model.sublayers(include_self=True)
        norms = {id(each) for layer in layers if isinstance(layer, _NORMS) for each in layer.parameters()}
        for name, parameter in model.named_parameters():
            if not parameter.stop_gradient:
                last = name.rpartition(".")[2]
                free = last in ("p1", "p2", "beta") or "bias" in last or id(parameter) in norms
                yield name, parameter, parameter.ndim > 1 and not free

    def read(self, module: nn.Layer, name: str) -> NDArray:
        array: NDArray = getattr(module, name).numpy().copy()
        return array

    def write(self, module: nn.Layer, name: str, array: NDArray) -> None:
        held = getattr(module, name)
        held.set_value(array.astype(held.numpy().dtype))

    def run(self, module: nn.Layer, x: NDArray) -> NDArray:
        with _evaluation(module):
            y: NDArray = module(paddle.to_tensor(x)).numpy()
        return y


@contextmanager
def _followed(ran: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """Enter a context, of the layer and what it is given, for every call of a layer meanwhile. No hooks: not every version of
    Paddle tells them what is given by keyword."""
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
    """Tell of every activation that Paddle computes meanwhile, in place or not."""
    kept = {name: getattr(_C_ops, name) for each in OPERATORS for name in (each, f"{each}_") if hasattr(_C_ops, name)}

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


def replace_activations(
    model: nn.Layer, replacements: Mapping[str, str | Node], example: Any, *, channel_axis: int = 1, beta: float = 100.0
) -> Replacements:
    """Replace activations of a model in place: `replace_activations(net, {"relu": "acon_c", "silu": "meta_acon"}, x)`.

    `replacements`: old names to new, both as `activation` takes them, or specs. `example`: a tensor or a tuple of arguments, on
    which the model is run once, in evaluation, to find the widths. `channel_axis`: where the activations' inputs have their
    channels. `beta`: for ReLU and the like into ACON. Where the new activation can be the old function it starts as it: SiLU
    into ACON exactly, ReLU and PReLU into ACON to 0.2785 / beta. New layers take the dtype and device of the old one's
    parameters, else of the model's, and the old one's mode, and are frozen where it was; make the optimizer afterwards.
    Returns what was replaced, what stayed and why, and the functional calls (`F.relu(x)`), which nothing can replace.
    Raises SpecError for names that do not exist, AconError for a model that is itself an activation.
    """
    return surgery.replace_activations(modules, model, replacements, example, channel_axis=channel_axis, beta=beta)


def param_groups(model: nn.Layer, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for a Paddle optimizer: parameters under weight decay, and p1, p2, beta, biases, norms, branch weights.

    `paddle.optimizer.AdamW(parameters=param_groups(net, 0.05))`. With p1, p2 and beta under decay, ACON loses accuracy.
    Layers that no spec made follow the usual rule: what has two axes or more decays, but for norms, biases and whatever is
    named p1, p2 or beta. Frozen parameters are left out.
    Returns [{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}].
    """
    decays = surgery.decays(modules, model)
    groups: list[dict[str, Any]] = []
    for wanted, value in ((True, weight_decay), (False, 0.0)):
        members = [parameter for name, parameter, _ in modules.parameters(model) if decays[name] is wanted]
        groups.append({"params": members, "weight_decay": value})
    return groups


def fuse(model: nn.Layer) -> nn.Layer:
    """The model for inference with every RepAct in its exact closed form: y = A x + B relu(x) + H hardswish(x) (+ c).

    The function in evaluation is the same, RepAct III's norm included; computed in float64 on the way. `model`: a network of
    ours or one of yours that has our RepActs. Returns the model, changed in place, or a new one where all of it was made from
    one spec. Raises AconError where there is no RepAct.
    """
    fused: nn.Layer = surgery.fuse(modules, model)
    return fused


def fold(model: nn.Layer) -> nn.Layer:
    """The model for inference with the batch norms of every Meta-ACON generator folded into its two convolutions.

    The function in evaluation is the same, since the generator is linear up to its sigmoid; computed in float64 on the way.
    Saves 2 (hidden + C) parameters and as many statistics a layer. Returns the model, changed in place, or a new one where
    all of it was made from one spec. Raises AconError where there is no such generator.
    """
    folded: nn.Layer = surgery.fold(modules, model)
    return folded


def doctor(module: nn.Layer, *, channel_axis: int = 1) -> Diagnosis:
    """Run the exact identities of ACON-C on anyone's layer with `p1`, `p2`, `beta`: `print(doctor(layer))` says what fails.

    Among them: f(x; p1, p2) = f(x; p2, p1), f(x) - f(-x) = (p1 + p2) x, and max(p1 x, p2 x) for a large beta. A beta that
    varies between samples fails. `channel_axis`: where the layer takes its channels. The parameters are put back afterwards.
    Returns a Diagnosis, whose `healthy` says whether all hold. Raises AconError for a layer without such parameters.
    """
    return surgery.doctor(modules, module, channel_axis)


def gradient_bounds(model: nn.Layer) -> dict[str, GradientBounds]:
    """The interval that dy / dx of each ACON activation lies in, per channel, by path: what its parameters have learnt.

    The ends are k p1 + (1 - k) p2 and k p2 + (1 - k) p1 with k = 1.0998, whatever beta is. Returns for each layer `low`,
    `high`, `beta` (None where it is generated) and `linear`, which channels have gone linear; empty where there is no ACON.
    Source: Ma et al. 2021, equations 9 and 10.
    """
    return surgery.gradient_bounds(modules, model)
