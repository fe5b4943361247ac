"""The backend for the conformance runner, and the public functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, serialization
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from numpy.typing import NDArray

from acon_core import spec
from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.errors import SpecError
from acon_core.frontend.functions import Frontend
from acon_core.training import Batch, Recipe
from acon_jax import FRAMEWORK
from acon_jax.activations import CLASSES, Activation
from acon_jax.arrays import on_device, precision, to_array, to_tensor
from acon_jax.build import BuildContext, make
from acon_jax.checkpoint.layout import layout
from acon_jax.modules import call
from acon_jax.surgery import NnxModules, decay_of

DTYPES = {"float32": jnp.float32, "float64": jnp.float64, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def _forward(model: nnx.Module, x: Array, rngs: nnx.Rngs, taps: tuple[str, ...]) -> tuple[Array, dict[str, Array]]:
    recorded: dict[str, Array] = {}
    y = call(model, x, rngs=rngs, taps=recorded)
    return y, {tap: recorded[tap] for tap in taps}


def _vjp(model: nnx.Module, x: Array, cotangent: Array, rngs: nnx.Rngs) -> tuple[Array, Array, nnx.State]:
    def loss(model: nnx.Module, x: Array, rngs: nnx.Rngs) -> tuple[Array, Array]:
        y = call(model, x, rngs=rngs, taps=None)
        return (y * cotangent).sum(), y

    (_, y), (dparams, dx) = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(model, x, rngs)
    return y, dx, dparams


@nnx.jit(static_argnames="smoothing")
def _step(model: nnx.Module, optimizer: nnx.Optimizer, x: Array, classes: Array, rngs: nnx.Rngs, *, smoothing: float) -> Array:
    """Take one step of training and return the loss before it."""

    def loss(model: nnx.Module, rngs: nnx.Rngs) -> Array:
        logits = call(model, x, rngs=rngs, taps=None)
        targets = optax.smooth_labels(jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype), smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    value, gradients = nnx.value_and_grad(loss)(model, rngs)
    optimizer.update(model, gradients)
    return value


def _arrays(state: nnx.State) -> dict[str, NDArray]:
    """Native arrays by dotted path."""
    return {path: np.array(array) for path, array in flatten_dict(nnx.to_pure_dict(state), sep=".").items()}


class JaxModel:
    """An nnx module as an `acon_core.backends.Model`. Converts to channels last and back."""

    def __init__(self, node: spec.Node, native: nnx.Module, dtype: str, compiled: bool = False, seed: int = 0) -> None:
        self.node, self.native, self.dtype = node, native, dtype
        self.rngs = nnx.Rngs(seed)
        self._forward = nnx.jit(_forward, static_argnames="taps") if compiled else _forward
        self._vjp = nnx.jit(_vjp) if compiled else _vjp

    def load(self, state: Mapping[str, NDArray]) -> None:
        check_state(self.node, state, self.dtype)
        with precision(self.dtype):
            arrays = {path: on_device(array) for path, array in layout.to_native(self.node, state).items()}
            nnx.update(self.native, unflatten_dict(arrays, sep="."))

    def load_file(self, path: Path) -> None:
        with precision(self.dtype):
            tree = nnx.to_pure_dict(nnx.state(self.native))
            nnx.update(self.native, jax.tree.map(on_device, serialization.from_bytes(tree, path.read_bytes())))

    def state(self) -> dict[str, NDArray]:
        return dict(layout.to_canonical(self.node, _arrays(nnx.state(self.native)))[0])

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        for tap in taps:
            spec.producer(self.node, tap)
        self._set_mode(train)
        with precision(self.dtype):
            y, recorded = self._forward(self.native, to_tensor(x), self.rngs, taps=tuple(taps))
        return Outputs(to_array(y), {tap: to_array(value) for tap, value in recorded.items()})

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        self._set_mode(train)
        with precision(self.dtype):
            y, dx, gradients = self._vjp(self.native, to_tensor(x), to_tensor(cotangent), self.rngs)
        found = _arrays(gradients)
        dparams = {
            path: np.ascontiguousarray(slot.to_canonical(found[native]))
            for path, param, native, slot in layout.table(self.node)
            if param.kind == "weight" and native is not None and slot is not None
        }
        return Vjp(to_array(y), to_array(dx), dparams)

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        self._set_mode(True)
        with precision(self.dtype):
            decayed = decay_of(self.native, recipe.weight_decay)
            # A table of rates: optax's own schedules compute in float32.
            rates = on_device(np.array(recipe.rates(), jnp.dtype(self.dtype)))
            descent = optax.chain(decayed, optax.sgd(lambda step: rates[step], recipe.momentum))
            optimizer = nnx.Optimizer(self.native, descent, wrt=nnx.Param)
            losses = []
            for _, (images, classes) in zip(range(recipe.steps), batches, strict=True):
                x = to_tensor(images.astype(jnp.dtype(self.dtype)))
                smoothing = recipe.label_smoothing
                losses.append(_step(self.native, optimizer, x, on_device(classes), self.rngs, smoothing=smoothing))
        return np.array(losses, np.float64)

    def _set_mode(self, train: bool) -> None:
        if train:
            self.native.train()
        else:
            self.native.eval()


class JaxBackend:
    """JAX with Flax as an `acon_core.backends.Backend`."""

    name = "jax"
    dtypes = tuple(DTYPES)
    waivers: tuple[Waiver, ...] = ()

    def build(self, node: spec.Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> JaxModel:
        with precision(dtype):
            model = JaxModel(node, make(node, BuildContext(DTYPES[dtype])), dtype, compiled, seed or 0)
        model.load(spec.initial_state(node, seed, dtype))
        return model


class JaxFrontend(Frontend[nnx.Module]):
    """The public functions for JAX."""

    framework, backend, modules, classes = FRAMEWORK, JaxBackend(), NnxModules(), CLASSES

    def make(self, node: spec.Node, **own: Any) -> nnx.Module:
        return make(node, Activation._context(**own))

    def param_groups(self, model: nnx.Module, weight_decay: float) -> optax.GradientTransformation:
        return decay_of(model, weight_decay)

    def check_dtype(self, dtype: str) -> None:
        if dtype == "float64" and not jax.config.jax_enable_x64:
            raise SpecError(
                "float64 is disabled in JAX, which would silently compute in float32; "
                "call jax.config.update('jax_enable_x64', True) first"
            )


frontend = JaxFrontend()
backend = frontend.backend
