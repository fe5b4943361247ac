"""The verbs that the conformance runner calls, and `create` and `load` for users."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial, reduce
from os import PathLike
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
from megengine.utils.hook import HookHandler
from numpy.typing import NDArray

from acon_core import spec
from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.checkpoint import NetworkQuery, load_network
from acon_core.errors import SpecError
from acon_core.networks import create as create_network
from acon_core.training import Batch, Recipe
from acon_megengine import activations  # noqa: F401  (registers its rules)
from acon_megengine.arrays import to_array, to_tensor
from acon_megengine.build import BuildContext, make
from acon_megengine.checkpoint.layout import layout
from acon_megengine.surgery import param_groups

DTYPES = ("float32",)

# Whose NaN becomes a number in `maximum`, `minimum`, `relu` or the vectorised body of `sigmoid`.
SWALLOWED = ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "softplus", "hardsigmoid", "sigmoid")


class MegEngineModel:
    """A MegEngine module under the verbs of `acon_core.backends.Model`."""

    def __init__(self, node: spec.Node, native: M.Module, compiled: bool = False) -> None:
        self.node, self.native, self.compiled = node, native, compiled
        self._traces: dict[Hashable, trace] = {}

    def load(self, state: Mapping[str, NDArray]) -> None:
        check_state(self.node, state, *DTYPES)
        native = layout.to_native(self.node, state)
        # load_state_dict and state_dict reshape every statistic once a module: seconds, where there are hundreds.
        for name, tensor in self.native.named_tensors():
            tensor._reset(Tensor(native[name].reshape(tensor.shape), no_cache=True))

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
        groups = param_groups(self.native, recipe.weight_decay)
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
        """The function's result; when compiled, through a trace of its own for each kind of call and shape of input."""
        if not self.compiled:
            return function(*tensors)
        # An error leaves a trace that cannot be used again, so it is put back only when it has run.
        key = (*kind, tensors[0].shape)
        run = self._traces.pop(key, None) or trace(function, symbolic=True)
        made = run(*tensors)
        self._traces[key] = run
        return made

    def _forward(self, taps: Sequence[str], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        recorded: dict[str, Tensor] = {}
        hooks = [self._record(tap, recorded) for tap in taps]
        try:
            return self._apply(x), recorded
        finally:
            for hook in hooks:
                hook.remove()

    def _apply(self, x: Tensor) -> Tensor:
        """The network on a copy: one that returns its input itself has no gradient, and nothing to trace."""
        return self.native(F.copy(x))

    def _record(self, tap: str, recorded: dict[str, Tensor]) -> HookHandler:
        path, index = spec.producer(self.node, tap)

        def hook(module: M.Module, inputs: object, made: Tensor | tuple[Tensor, ...]) -> None:
            recorded[tap] = made[index] if isinstance(made, tuple) else made

        return reduce(getattr, path.split("."), self.native).register_forward_hook(hook)

    def _backward(self, x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        weights = dict(self.native.named_parameters())
        leaves = [x, *weights.values()]
        # Gradients accumulate in `grad`; the user's are put back.
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
    """MegEngine under the verbs of `acon_core.backends.Backend`."""

    name = "megengine"
    dtypes = DTYPES
    waivers = (
        Waiver("max_pool2d/ties", "dx", "MegEngine gives the whole gradient to every one of equal values"),
        *(Waiver(f"act/{name}/not_finite", "y", "MegEngine's kernels swallow NaN") for name in SWALLOWED),
    )

    def build(self, node: spec.Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> MegEngineModel:
        if dtype not in DTYPES:
            raise SpecError(f"MegEngine: expected dtype {' or '.join(DTYPES)}, found {dtype!r}; cast the state with .astype")
        model = MegEngineModel(node, make(node, BuildContext()), compiled)
        model.load(spec.initial_state(node, seed, dtype))
        return model


backend = MegEngineBackend()


def create(
    name: str,
    act: spec.Node | str | None = None,
    num_classes: int | None = None,
    *,
    features: Sequence[str] = (),
    dtype: str = "float32",
    seed: int = 0,
    **options: Any,
) -> M.Module:
    """A published network with its published initial values: `create("acon/shufflenet_v2_x0_5", act="meta_acon")`.

    `act`, `num_classes`: as published where they are not given.
    Attribute names are the published code's. (N, 3, H, W) -> (N, num_classes), any H and W, except in ViT and
    DCN; `dtype` is float32.
    `features`: names of stages; the module is then a backbone, whose outputs are a tuple of those stages' values
    (N, C, H', W') and that has no more than they need. `options`: the network's own, such as `repeats=(1, 1, 1)`.
    Raises SpecError for a name or option that does not exist, or another dtype.
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
) -> M.Module:
    """The network of a checkpoint of any of the frameworks, in evaluation mode.

    `network`, `act`: where the tensors' names and shapes leave a choice. `dialect`: other people's names, where they are
    not recognised. `features`, `options`: as in `create`; a file of this package's with metadata says its options itself, any
    other must be told those that change no shape, such as `replace_stride_with_dilation`. Raises CheckpointError, StateError
    or SpecError, each of which says what was expected, what was found and the way out.
    """
    checkpoint = load_network(path, NetworkQuery(network, act, dialect, options), features)
    model = backend.build(checkpoint.network.graph, dtype=checkpoint.dtype, seed=None)
    model.load(checkpoint.state)
    model.native.eval()
    return model.native
