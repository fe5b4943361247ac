"""The verbs that the conformance runner calls, and `create` and `load` for users."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acon_core import spec
from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.checkpoint import NetworkQuery, load_network
from acon_core.networks import create as create_network
from acon_core.training import Batch, Recipe
from acon_torch import activations  # noqa: F401  (registers its rules)
from acon_torch.arrays import to_array, to_tensor
from acon_torch.build import BuildContext, make
from acon_torch.surgery import param_groups

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What DataParallel and torch.compile put before every name.
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")


class TorchModel:
    """A PyTorch module under the verbs of `acon_core.backends.Model`."""

    def __init__(self, node: spec.Node, native: nn.Module, dtype: str, compiled: bool = False) -> None:
        self.node, self.native, self.dtype = node, native, dtype
        if compiled:
            # All graphs share one `forward`: after eight compilations of it, PyTorch would run the rest eagerly and not say so.
            torch.compiler.reset()
        self._run = torch.compile(native) if compiled else native

    def load(self, state: Mapping[str, NDArray]) -> None:
        check_state(self.node, state, self.dtype)
        self.native.load_state_dict({path: to_tensor(array) for path, array in state.items()})

    def load_file(self, path: Path) -> None:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        tensors = loaded.get("state_dict", loaded)
        self.native.load_state_dict({WRAPPED.sub("", name): tensor for name, tensor in tensors.items()})

    def state(self) -> dict[str, NDArray]:
        return {path: to_array(tensor) for path, tensor in self.native.state_dict().items()}

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        recorded: dict[str, NDArray] = {}
        hooks = [self._record(tap, recorded) for tap in taps]
        self.native.train(train)
        try:
            with torch.no_grad():
                y = self._run(to_tensor(x))
        finally:
            for hook in hooks:
                hook.remove()
        return Outputs(to_array(y), recorded)

    def _record(self, tap: str, recorded: dict[str, NDArray]) -> torch.utils.hooks.RemovableHandle:
        path, index = spec.producer(self.node, tap)

        def hook(module: nn.Module, arguments: object, made: Tensor | tuple[Tensor, ...]) -> None:
            recorded[tap] = to_array(made[index] if isinstance(made, tuple) else made)

        return self.native.get_submodule(path).register_forward_hook(hook)

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        self.native.train(train)
        leaf = to_tensor(x).requires_grad_()
        weights = dict(self.native.named_parameters())
        y = self._run(leaf)
        gradients = torch.autograd.grad(y, [leaf, *weights.values()], to_tensor(cotangent))
        dparams = {path: to_array(gradient) for path, gradient in zip(weights, gradients[1:], strict=True)}
        return Vjp(to_array(y), to_array(gradients[0]), dparams)

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        self.native.train()
        optimizer = torch.optim.SGD(param_groups(self.native, recipe.weight_decay), recipe.rate, recipe.momentum)
        losses = []
        for rate, (images, classes) in zip(recipe.rates(), batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits = self._run(to_tensor(images).to(DTYPES[self.dtype]))
            loss = nn.functional.cross_entropy(logits, to_tensor(classes), label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return np.array(losses)


class TorchBackend:
    """PyTorch under the verbs of `acon_core.backends.Backend`."""

    name = "torch"
    dtypes = tuple(DTYPES)
    waivers: tuple[Waiver, ...] = ()

    def build(self, node: spec.Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> TorchModel:
        model = TorchModel(node, make(node, BuildContext(DTYPES[dtype])), dtype, compiled)
        model.load(spec.initial_state(node, seed, dtype))
        return model


backend = TorchBackend()


def create(
    name: str,
    act: spec.Node | str | None = None,
    num_classes: int | None = None,
    *,
    features: Sequence[str] = (),
    dtype: str = "float32",
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """A published network with its published initial values: `create("acon/shufflenet_v2_x0_5", act="meta_acon")`.

    `act`, `num_classes`: as published where they are not given. Attribute names are the published code's, so that its state
    dict loads. (N, 3, H, W) -> (N, num_classes). `features`: names of stages, whose values (N, C, H', W') come out instead, as
    a tuple; what none of them needs is left out. `options`: the network's own, such as `repeats=(1, 1, 1)`. Raises SpecError
    for a name or an option that does not exist.
    """
    network = create_network(name, act, num_classes, features=features, **options)
    return backend.build(network.graph, dtype=dtype, seed=seed).native


def load(
    path: str | PathLike[str],
    network: str | None = None,
    act: str | None = None,
    dialect: str | None = None,
    features: Sequence[str] = (),
    **options: Any,
) -> nn.Module:
    """The network of a checkpoint of any of the frameworks, in evaluation mode.

    `network`, `act`: where the tensors' names and shapes leave a choice. `dialect`: whose names they are, where another
    published code has its own. `features`, `options`: as for `create`; a file of this package's with metadata says its options
    itself, any other must be told those that change no shape, such as `replace_stride_with_dilation`. Raises CheckpointError,
    StateError or SpecError, each of which says what was expected, what was found and the way out.
    """
    checkpoint = load_network(path, NetworkQuery(network, act, dialect, options), features)
    model = backend.build(checkpoint.network.graph, dtype=checkpoint.dtype, seed=None)
    model.load(checkpoint.state)
    return model.native.eval()
