"""Operations on models of one's own: other activations, weight decay, closed forms, and what is wrong with a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from acon_core import spec, surgery
from acon_core.surgery import Diagnosis, GradientBounds, Replacements
from acon_core.surgery.modules import Observed
from acon_torch import activations  # noqa: F401  (registers its rules)
from acon_torch.arrays import to_array, to_tensor
from acon_torch.build import BuildContext, make
from acon_torch.checkpoint.layout import layout
from acon_torch.pointwise import PYTORCH_SOFTPLUS_THRESHOLD

# PyTorch's own activations as what they are in the spec; of a type exactly, since a subclass may compute anything.
_NODES: dict[type[nn.Module], Any] = {
    nn.Identity: lambda module: spec.Identity(),
    nn.ReLU: lambda module: spec.ReLU(),
    nn.ReLU6: lambda module: spec.ReLU6(),
    nn.LeakyReLU: lambda module: spec.LeakyReLU(module.negative_slope),
    nn.PReLU: lambda module: spec.PReLU() if module.num_parameters == 1 else spec.PReLU(module.num_parameters, shared=False),
    nn.ELU: lambda module: spec.ELU(module.alpha),
    nn.SELU: lambda module: spec.SELU(),
    nn.CELU: lambda module: spec.CELU(module.alpha),
    nn.GELU: lambda module: spec.GELU(module.approximate),
    nn.SiLU: lambda module: spec.SiLU(),
    nn.Mish: lambda module: spec.Mish(),
    # Below PyTorch's own threshold it would be another function.
    nn.Softplus: lambda module: spec.Softplus(module.beta) if module.threshold >= PYTORCH_SOFTPLUS_THRESHOLD else None,
    nn.Hardswish: lambda module: spec.HardSwish(),
    nn.Hardsigmoid: lambda module: spec.HardSigmoid(),
    nn.Sigmoid: lambda module: spec.Sigmoid(),
}
_FUNCTIONS = {kind.__name__.lower() for kind in _NODES} - {"identity"} | {"leaky_relu"}
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_GATES = ("p1", "p2", "beta")


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """In evaluation and without gradients; every module's mode is as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Calls(TorchFunctionMode):
    """The calls of activation functions, however they are spelled, that no activation module explains."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, bool]] = []
        self.found: dict[str, None] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "").rstrip("_")
        if name in _FUNCTIONS and not any(explained for _, explained in self.running):
            self.found[f"{name} in {self.running[-1][0]}"] = None
        return function(*args, **(kwargs or {}))


class TorchModules:
    """The verbs of `acon_core.surgery.modules.Modules` on `nn.Module`s."""

    layout = layout
    channel_axis = 1

    def sites(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        return model.named_modules(remove_duplicate=False)

    def node(self, module: nn.Module) -> spec.Node | None:
        # Ours, and not a subclass of ours in somebody else's package, which may compute anything.
        if type(module).__module__.split(".")[0] == __package__ and isinstance(getattr(module, "spec", None), spec.Node):
            return module.spec  # type: ignore[return-value]
        return _NODES[type(module)](module) if type(module) in _NODES else None

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
            with _evaluated(model), calls:
                model(*example) if isinstance(example, tuple) else model(example)
        finally:
            for hook in hooks:
                hook.remove()
        return Observed(inputs, list(calls.found))

    def parameters(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
        norms = {id(each) for module in model.modules() if isinstance(module, _NORMS) for each in module.parameters(False)}
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                name = path.rpartition(".")[2]
                exempt = "bias" in name or name in _GATES or id(parameter) in norms
                yield path, parameter, parameter.ndim >= 2 and not exempt

    def read(self, module: nn.Module, name: str) -> NDArray:
        return to_array(getattr(module, name))

    def write(self, module: nn.Module, name: str, array: NDArray) -> None:
        with torch.no_grad():
            getattr(module, name).copy_(to_tensor(array))

    def run(self, module: nn.Module, x: NDArray) -> NDArray:
        device = next((parameter.device for parameter in module.parameters()), None)
        with _evaluated(module):
            return to_array(module(to_tensor(x).to(device)))


modules = TorchModules()


def replace_activations(
    model: nn.Module,
    replacements: Mapping[str, str | spec.Node],
    example: Any,
    *,
    channel_axis: int = 1,
    beta: float = 100.0,
) -> Replacements:
    """Replace the activations of any model in place, old names to new: `{"silu": "acon_c", "relu": "repact(variant=1)"}`.

    The function is kept where the new activation can: SiLU into ACON-C with p1, p2, beta = 1, 0, 1 exactly; ReLU into ACON
    with `beta`, to 0.2785 / beta; into RepAct exactly; others start at their initial values. Widths are found by running
    `example`, a tensor or a tuple of arguments, once, in evaluation and without gradients; mode and statistics stay.
    `channel_axis`: where the activations' inputs have their channels, 1 or, for tokens, -1. New modules have the model's
    dtype, device and mode. Returns what was done, site by site, and why the rest was kept; functional calls such as
    `F.relu(x)`, which nothing can replace, are listed. An optimizer made before must be made anew.
    Raises SpecError for names that do not exist, AconError for a model that is itself an activation.
    """
    return surgery.replace_activations(modules, model, replacements, example, channel_axis=channel_axis, beta=beta)


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, for any optimizer: those that weight decay applies to, and those it does not.

    Never to p1, p2, beta, branch weights, biases and norms, by the spec of each activation; in modules that no spec made, to
    what has two axes or more. `torch.optim.SGD(acon_torch.param_groups(model, 4e-5), lr=0.1, momentum=0.9)`.
    Returns `[{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}]`, every parameter
    once, in the model's order; parameters that are frozen are in neither.
    """
    decays = surgery.decays(modules, model)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for path, parameter, _ in modules.parameters(model):
        groups[decays[path]].append(parameter)
    return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]


def fuse(model: nn.Module) -> nn.Module:
    """The model with every RepAct in its closed form y = A x + B relu(x) + H hardswish(x) + c, for inference.

    Exact; with RepAct III's norm, whose running statistics go into A, B, H and c, in evaluation. A = w0 + alpha w2,
    B = w1 + (1 - alpha) w2, H = w3, of II's softmax likewise. Activations are exchanged in place, in their dtype, on their
    device and in their mode; a model that a spec made as a whole comes back as a new one. The result can be trained.
    Raises AconError where there is no RepAct.
    """
    fused: nn.Module = surgery.fuse(modules, model)
    return fused


def fold(model: nn.Module) -> nn.Module:
    """The model with the batch norms of every Meta-ACON generator folded into its two convolutions, for inference.

    Exact in evaluation, since the generator is linear up to its sigmoid: beta = sigmoid(fc2(fc1(mean))) with
    weight <- weight gain, bias <- (bias - mean) gain + shift. The result has norm `none`, and so no error for a batch of one.
    Activations are exchanged in place, in their dtype, on their device and in their mode; a model that a spec made as a
    whole comes back as a new one. Raises AconError where there is no such generator.
    """
    folded: nn.Module = surgery.fold(modules, model)
    return folded


def doctor(module: nn.Module, *, channel_axis: int = 1) -> Diagnosis:
    """Whether anyone's module computes ACON-C: its exact identities, run on it one by one; what fails says what is wrong.

    `module`: with parameters or buffers `p1`, `p2`, `beta` of C elements each, in whatever shape; they are set to values that
    differ in every channel, and put back. `channel_axis`: where its input has the channels. It is run in evaluation, in its
    own dtype and on its own device. Returns the findings, each with its error and what rounding explains; `print` it.
    Raises AconError where there are no such parameters or the module cannot be run.
    """
    return surgery.doctor(modules, module, channel_axis)


def gradient_bounds(model: nn.Module) -> dict[str, GradientBounds]:
    """Between which values dy / dx lies, channel by channel, for every ACON activation of a model, by path.

    The ends are kappa p1 + (1 - kappa) p2 and the same with p1 and p2 exchanged, kappa = 1.0998: what the activation has
    learnt to do with its two slopes. Each has `low`, `high`, (C,); `beta`, None where it is generated; and `linear`, the
    channels that have gone linear. Source: Ma et al. 2021, section 3.2.
    """
    bounds: dict[str, GradientBounds] = surgery.gradient_bounds(modules, model)
    return bounds
