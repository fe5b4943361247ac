"""The backend for the conformance runner, and the public functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acon_core import spec
from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.building import recorded_taps
from acon_core.frontend.functions import Frontend
from acon_core.training import Batch, Recipe
from acon_torch import FRAMEWORK
from acon_torch.activations import CLASSES, Activation
from acon_torch.arrays import to_array, to_tensor
from acon_torch.build import BuildContext, make
from acon_torch.surgery import TorchModules

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}

# The prefixes that DataParallel and torch.compile put before every name.
WRAPPED = re.compile(r"(?:(?<=\.)|^)(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class TorchModel:
    """A PyTorch module as an `acon_core.backends.Model`."""

    def __init__(self, node: spec.Node, native: nn.Module, dtype: str, compiled: bool = False) -> None:
        self.node, self.native, self.dtype = node, native, dtype
        if compiled:
            # All graphs share one `forward`. After eight compilations of it, PyTorch would silently
            # run the rest eagerly.
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
        with torch.no_grad(), recorded_taps(self.node, taps, self._add_hook, to_array) as recorded:
            self.native.train(train)
            y = self._run(to_tensor(x))
        return Outputs(to_array(y), recorded)

    def _add_hook(self, path: str, hook: Callable[..., None]) -> Any:
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
        optimizer = torch.optim.SGD(frontend.param_groups(self.native, recipe.weight_decay), recipe.rate, recipe.momentum)
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
    """PyTorch as an `acon_core.backends.Backend`."""

    name = "torch"
    dtypes = tuple(DTYPES)
    waivers: tuple[Waiver, ...] = ()

    def build(self, node: spec.Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> TorchModel:
        model = TorchModel(node, make(node, BuildContext(DTYPES[dtype])), dtype, compiled)
        model.load(spec.initial_state(node, seed, dtype))
        return model


class TorchFrontend(Frontend[nn.Module]):
    """The public functions for PyTorch."""

    framework, backend, modules, classes = FRAMEWORK, TorchBackend(), TorchModules(), CLASSES

    def make(self, node: spec.Node, **own: Any) -> nn.Module:
        return make(node, Activation._context(**own))


frontend = TorchFrontend()
backend = frontend.backend
