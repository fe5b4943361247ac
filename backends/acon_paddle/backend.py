"""The backend for the conformance runner, and the public functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from acon_core import spec
from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.building import recorded_taps
from acon_core.errors import StateError
from acon_core.frontend.functions import Frontend
from acon_core.tensors import check_names
from acon_core.training import Batch, Recipe
from acon_paddle import FRAMEWORK
from acon_paddle.activations import CLASSES, Activation
from acon_paddle.arrays import to_array, to_tensor
from acon_paddle.build import BuildContext, make
from acon_paddle.checkpoint.layout import layout
from acon_paddle.surgery import PaddleModules


def _compile(layer: nn.Layer) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        return layer(x)

    return paddle.jit.to_static(run, full_graph=True)


class PaddleModel:
    """A Paddle layer as an `acon_core.backends.Model`."""

    def __init__(self, node: spec.Node, native: nn.Layer, dtype: str, compiled: bool = False) -> None:
        self.node, self.native, self.dtype = node, native, dtype
        # One program each for evaluation and training: to_static reads only the mode of layers, and
        # a program traced in evaluation has no gradient.
        self._run = [_compile(native), _compile(native)] if compiled else [native, native]

    def load(self, state: Mapping[str, NDArray]) -> None:
        check_state(self.node, state, self.dtype)
        self._set(dict(layout.to_native(self.node, state)))

    def load_file(self, path: Path) -> None:
        loaded = paddle.load(str(path))
        self._set(loaded.get("state_dict", loaded))

    def _set(self, tensors: Mapping[str, Any]) -> None:
        """Replace the state strictly: Paddle only returns wrong names and warns of wrong shapes."""
        expected = self.native.state_dict()
        check_names(expected, tensors)
        for name, tensor in expected.items():
            if tuple(tensors[name].shape) != tuple(tensor.shape):
                raise StateError(f"{name}: expected shape {tuple(tensor.shape)}, found {tuple(tensors[name].shape)}")
        self.native.set_state_dict(tensors)

    def state(self) -> dict[str, NDArray]:
        arrays = {name: to_array(tensor) for name, tensor in self.native.state_dict().items()}
        return dict(layout.to_canonical(self.node, arrays)[0])

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        run = self.native if taps else self._run[train]  # compiled code calls no hooks
        with paddle.no_grad(), recorded_taps(self.node, taps, self._add_hook, to_array) as recorded:
            self._set_mode(train)
            y = run(to_tensor(x))
        return Outputs(to_array(y), recorded)

    def _add_hook(self, path: str, hook: Callable[..., None]) -> Any:
        return dict(self.native.named_sublayers())[path].register_forward_post_hook(hook)

    def _set_mode(self, train: bool) -> None:
        if train:
            self.native.train()
        else:
            self.native.eval()

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        self._set_mode(train)
        leaf = to_tensor(x)
        leaf.stop_gradient = False
        weights = dict(self.native.named_parameters())
        y = self._run[train](leaf)
        dx, *gradients = paddle.grad(y, [leaf, *weights.values()], to_tensor(cotangent))
        native = dict(zip(weights, gradients, strict=True))
        dparams = {
            path: slot.to_canonical(to_array(native[name]))
            for path, param, name, slot in layout.table(self.node)
            if param.kind == "weight" and slot is not None
        }
        return Vjp(to_array(y), to_array(dx), dparams)

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        self._set_mode(True)
        groups = [group for group in frontend.param_groups(self.native, recipe.weight_decay) if group["params"]]
        optimizer = paddle.optimizer.Momentum(recipe.rate, recipe.momentum, groups)
        losses = []
        for rate, (images, classes) in zip(recipe.rates(), batches, strict=True):
            optimizer.set_lr(rate)
            logits = self._run[True](paddle.to_tensor(images, self.dtype))
            loss = nn.functional.cross_entropy(logits, to_tensor(classes), label_smoothing=recipe.label_smoothing)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(loss.item())
        return np.array(losses)


class PaddleBackend:
    """Paddle as an `acon_core.backends.Backend`. The 16-bit dtypes have no kernels on a CPU."""

    name = "paddle"
    dtypes = ("float32", "float64")
    waivers: tuple[Waiver, ...] = ()

    def build(self, node: spec.Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> PaddleModel:
        model = PaddleModel(node, make(node, BuildContext(dtype)), dtype, compiled)
        model.load(spec.initial_state(node, seed, dtype))
        return model


class PaddleFrontend(Frontend[nn.Layer]):
    """The public functions for Paddle."""

    framework, backend, modules, classes = FRAMEWORK, PaddleBackend(), PaddleModules(), CLASSES

    def make(self, node: spec.Node, **own: Any) -> nn.Layer:
        return make(node, Activation._context(**own))

    def param_groups(self, model: nn.Layer, weight_decay: float) -> list[dict[str, Any]]:
        # Paddle's optimizers look at the first parameter of each group.
        return [group for group in super().param_groups(model, weight_decay) if group["params"]]

    def loaded_dtype(self, dtype: str) -> str:
        return dtype if dtype in self.backend.dtypes else "float32"


frontend = PaddleFrontend()
backend = frontend.backend
