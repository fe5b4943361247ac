"""The backend for the conformance runner, and the public functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager
from megengine.jit import trace
from megengine.optimizer import SGD
from numpy.typing import NDArray

from acon_core import spec
from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.building import recorded_taps
from acon_core.errors import SpecError
from acon_core.frontend.functions import Frontend
from acon_core.training import Batch, Recipe
from acon_megengine import FRAMEWORK
from acon_megengine.activations import CLASSES, Activation
from acon_megengine.arrays import set_state, to_array, to_tensor
from acon_megengine.build import BuildContext, make
from acon_megengine.checkpoint.layout import layout
from acon_megengine.surgery import MegEngineModules

DTYPES = ("float32",)

# In these, NaN becomes a number in `maximum`, `minimum`, `relu` or the vectorised body of
# `sigmoid`.
SWALLOWED = ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "softplus", "hardsigmoid", "sigmoid")


class MegEngineModel:
    """A MegEngine module as an `acon_core.backends.Model`."""

    def __init__(self, node: spec.Node, native: M.Module, compiled: bool = False) -> None:
        self.node, self.native, self.compiled = node, native, compiled
        self._traces: dict[Hashable, trace] = {}

    def load(self, state: Mapping[str, NDArray]) -> None:
        check_state(self.node, state, *DTYPES)
        set_state(self.native, layout.to_native(self.node, state))

    def load_file(self, path: Path) -> None:
        self.native.load_state_dict(mge.load(str(path)), strict=True)

    def state(self) -> dict[str, NDArray]:
        shapes = layout.native_shapes(self.node)
        native = {name: to_array(tensor).reshape(shapes[name]) for name, tensor in self.native.named_tensors()}
        return dict(layout.to_canonical(self.node, native)[0])

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        self.native.train(train)
        y, recorded = self._run(partial(self._forward, taps), (train, *taps), to_tensor(x))
        return Outputs(to_array(y), {tap: to_array(value) for tap, value in recorded.items()})

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        self.native.train(train)
        y, dx, dweights = self._run(self._backward, ("vjp", train), to_tensor(x), to_tensor(cotangent))
        shapes = layout.native_shapes(self.node)
        dparams = {
            path: slot.to_canonical(to_array(dweights[native]).reshape(shapes[native]))
            for path, param, native, slot in layout.table(self.node)
            if param.kind == "weight"
        }
        return Vjp(to_array(y), to_array(dx), dparams)

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        self.native.train()
        groups = frontend.param_groups(self.native, recipe.weight_decay)
        optimizer = SGD(groups, lr=recipe.rate, momentum=recipe.momentum)
        manager = GradManager().attach(self.native.parameters())
        losses = []
        for rate, (images, classes) in zip(recipe.rates(), batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.clear_grad()
            with manager:
                logits = self.native(to_tensor(images))
                labels = Tensor(classes.astype(np.int32))
                loss = F.nn.cross_entropy(logits, labels, label_smooth=recipe.label_smoothing)
                manager.backward(loss)
            optimizer.step()
            losses.append(float(loss.item()))
        return np.array(losses)

    def _run(self, function: Callable[..., Any], kind: tuple[Hashable, ...], *tensors: Tensor) -> Any:
        """Call the function; if compiled, through one trace per kind of call and input shape."""
        if not self.compiled:
            return function(*tensors)
        # A trace cannot be used again after an error, so it is stored only after it has run.
        key = (*kind, tensors[0].shape)
        run = self._traces.pop(key, None) or trace(function, symbolic=True)
        made = run(*tensors)
        self._traces[key] = run
        return made

    def _forward(self, taps: Sequence[str], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with recorded_taps(self.node, taps, self._add_hook, lambda value: value) as recorded:
            return self._apply(x), recorded

    def _apply(self, x: Tensor) -> Tensor:
        """Run the network on a copy: one that returns its input has no gradient and no trace."""
        return self.native(F.copy(x))

    def _add_hook(self, path: str, hook: Callable[..., None]) -> Any:
        return reduce(getattr, path.split("."), self.native).register_forward_hook(hook)

    def _backward(self, x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        weights = dict(self.native.named_parameters())
        leaves = [x, *weights.values()]
        # Gradients accumulate in `grad`: keep the user's and restore them.
        kept = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None
        with GradManager().attach(leaves) as gm:
            y = self._apply(x)
            gm.backward(y, cotangent)
        gradients = [leaf.grad for leaf in leaves]
        for leaf, grad in zip(leaves, kept, strict=True):
            leaf.grad = grad
        return y, gradients[0], dict(zip(weights, gradients[1:], strict=True))


class MegEngineBackend:
    """MegEngine as an `acon_core.backends.Backend`."""

    name = "megengine"
    dtypes = DTYPES
    waivers = (
        Waiver("max_pool2d/ties", "dx", "MegEngine gives the whole gradient to every one of equal values"),
        *(Waiver(f"act/{name}/not_finite", "y", "MegEngine's kernels swallow NaN") for name in SWALLOWED),
    )

    def build(self, node: spec.Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> MegEngineModel:
        if dtype not in DTYPES:
            raise SpecError(f"MegEngine: expected dtype {' or '.join(DTYPES)}, found {dtype!r}; cast the state with .astype")
        model = MegEngineModel(node, make(node, BuildContext("float32")), compiled)
        model.load(spec.initial_state(node, seed, dtype))
        return model


class MegEngineFrontend(Frontend[M.Module]):
    """The public functions for MegEngine."""

    framework, backend, modules, classes = FRAMEWORK, MegEngineBackend(), MegEngineModules(), CLASSES

    def make(self, node: spec.Node, **own: Any) -> M.Module:
        return make(node, Activation._context(**own))


frontend = MegEngineFrontend()
backend = frontend.backend
