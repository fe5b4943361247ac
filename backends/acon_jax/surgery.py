"""Access to nnx modules for `acon_core.surgery`, and weight decay for optax."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.traverse_util import unflatten_dict
from numpy.typing import NDArray

from acon_core import spec, surgery
from acon_core.errors import AconError
from acon_core.surgery import Observed, Probe
from acon_jax.activations import CLASSES, Activation
from acon_jax.arrays import precision
from acon_jax.build import BuildContext, make
from acon_jax.checkpoint.layout import layout
from acon_jax.modules import Acon, Function, Graph
from acon_jax.observe import observe
from acon_jax.pointwise import NATIVE_ACTIVATIONS
from acon_jax.stacked import Held, variables

UNDECAYED = (*surgery.UNDECAYED_NAMES, "bias", "scale")
"""Names of parameters that never decay, whatever their shape."""

OURS = {Acon, Function, Graph, *CLASSES.values()}
"""Our classes, by exact type: a user's subclass may compute something else."""


def _node_of_function(function: Any) -> spec.Node | None:
    options: dict[str, Any] = {}
    if isinstance(function, partial) and not function.args:
        function, options = function.func, function.keywords
    try:
        return NATIVE_ACTIVATIONS[function](**options)
    except (KeyError, TypeError):  # not in the table, not hashable, or with an option that the spec does not have
        return None


class NnxModules(surgery.Modules):
    """`acon_core.surgery.Modules` for nnx."""

    layout = layout
    channel_axis = -1

    def sites(self, model: Any) -> Iterator[tuple[str, Any]]:
        yield from _walk(model, "", ())

    def node(self, module: Any) -> spec.Node | None:
        if type(module) in OURS:
            return module.spec
        if type(module) is nnx.PReLU:
            return spec.PReLU()
        return _node_of_function(module.function if isinstance(module, Held) else module)

    def state(self, module: Any, node: spec.Node) -> dict[str, NDArray]:
        if type(module) is nnx.PReLU:
            return {"weight": np.array(module.negative_slope[...]).reshape(1)}
        return dict(layout.to_canonical(node, _arrays(module))[0]) if isinstance(module, nnx.Module) else {}

    def make(self, node: spec.Node, state: Mapping[str, NDArray], old: Any, model: Any) -> nnx.Module:
        models = [each for each in (old, model) if isinstance(each, nnx.Module)]
        values = (value[...] for each in models for _, value in variables(each))
        like = next((value for value in values if jnp.issubdtype(value.dtype, jnp.floating)), np.zeros(0, np.float32))
        dtype = like.dtype
        # An array that is bound to no device goes with any other; one that is bound to one stays
        # there.
        bound = isinstance(like, jax.Array) and like.committed and len(like.devices()) == 1
        with precision(dtype):
            context = BuildContext(dtype)
            if isinstance(old, Activation) and isinstance(node, spec.ChannelwiseActivation) and type(node) in CLASSES:
                made = CLASSES[type(node)](node, context, channel_axis=old._channel_axis)
            else:
                made = make(node, context)
            arrays = {path: jnp.asarray(array, dtype) for path, array in layout.to_native(node, state).items()}
            nnx.update(made, unflatten_dict(jax.device_put(arrays, like.sharding if bound else None), sep="."))
        if next((flag for each in models for flag in _evaluation_flags(each)), False):
            made.eval()
        return made

    def replace(self, model: Any, path: str, module: Any) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            model = getattr(model, parent)
        # Where a plain function was, nnx expects static values.
        setattr(model, name, nnx.static(module.function) if isinstance(module, Held) else nnx.data(module))

    def unfit(self, model: Any) -> str:
        if isinstance(model, nnx.Module):
            return ""
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        if kind.startswith("flax.linen"):
            return f"a {kind} holds no activations that could be replaced; write acon_jax.acon in its code, or use flax.nnx"
        return f"expected a flax.nnx.Module, found a {kind}; give the module itself, before nnx.jit and the like"

    def leaf(self, module: Any) -> bool:
        if not isinstance(module, nnx.Module) or type(module).__module__.partition(".")[0] in ("flax", __package__):
            return False
        return callable(module) and not jax.tree.leaves(nnx.state(module)) and len(list(self.sites(module))) == 1

    def copy(self, site: Any) -> Any:
        if isinstance(site, Held):
            return Held(site.owner, site.name, site.function)
        return copy.copy(site)

    def remark(self, module: Any, model: Any) -> str:
        flags = [] if next(_evaluation_flags(model), None) is not None else list(_evaluation_flags(module))
        if not flags:
            return ""
        mode = "evaluation" if flags[0] else "training"
        return f"in {mode} mode, since nothing in the model says which; call model.eval() or model.train()"

    def settle(self, module: Any, old: Any, model: Any) -> Any:
        if isinstance(module, nnx.Module) and next((flag for flag in _evaluation_flags(model)), False):
            module.eval()
        return module

    def observe(self, model: Any, example: Any, as_used: bool = False) -> Observed:
        return observe(self, model, example)

    def parameters(self, model: Any) -> Iterator[tuple[str, Any, bool]]:
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
            # By name too: layers that are stacked for a scan give every parameter an axis more.
            yield ".".join(map(str, path)), variable, variable.ndim > 1 and path[-1] not in UNDECAYED

    def read(self, module: Any, name: str) -> NDArray:
        value = getattr(module, name)
        return np.array(value[...] if isinstance(value, nnx.Variable) else value)

    def write(self, module: Any, name: str, array: NDArray) -> None:
        value = getattr(module, name)
        with precision(value.dtype):
            array = jnp.asarray(array, value.dtype)
            if isinstance(value, nnx.Variable):
                value[...] = array
            else:
                setattr(module, name, array)

    def probe(self, module: Any, x: NDArray, g: NDArray, names: tuple[str, ...], train: bool) -> Probe:
        with precision(x.dtype):
            copy = nnx.merge(*nnx.split(module)) if isinstance(module, nnx.Module) else module
            if isinstance(copy, nnx.Module):
                copy.train() if train else copy.eval()
            own = [name for name in names if isinstance(getattr(copy, name), nnx.Param)]

            def call(x: Any, values: list[Any]) -> Any:
                if not isinstance(copy, nnx.Module):
                    return copy(x)
                traced = nnx.merge(*nnx.split(copy))
                for name, value in zip(own, values, strict=True):
                    setattr(traced, name, nnx.Param(value))
                return traced(x)

            given = jnp.asarray(x)
            y, pull = jax.vjp(call, given, [getattr(copy, name)[...] for name in own])
            dx, found = pull(jnp.asarray(g, y.dtype))
            gates = {**dict.fromkeys(names), **{name: np.array(each) for name, each in zip(own, found, strict=True)}}
            return Probe(np.array(y), np.array(given), np.array(dx), gates)

    def run(self, module: Any, x: NDArray) -> NDArray:
        with precision(x.dtype):
            if isinstance(module, nnx.Module):
                module = nnx.merge(*nnx.split(module))
                module.eval()
            return np.array(module(jnp.asarray(x)))


modules = NnxModules()


def _walk(module: nnx.Module, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    yield path, module
    for name, value in vars(module).items():
        if isinstance(value, nnx.Module):
            if id(value) not in above:  # a module may hold the one that holds it
                yield from _walk(value, spec.join(path, name), (*above, id(module)))
        elif not isinstance(module, Function) and _node_of_function(value) is not None:
            yield spec.join(path, name), Held(module, name, value)


def _arrays(module: nnx.Module) -> dict[str, NDArray]:
    return {path: np.array(variable[...]) for path, variable in variables(module)}


def _evaluation_flags(model: nnx.Module) -> Iterator[bool]:
    """Yield the flags of all modules that say whether they are in evaluation mode."""
    for _, module in modules.sites(model):
        for name in ("use_running_average", "deterministic"):
            if isinstance(flag := getattr(module, name, None), bool):
                yield flag


def decay_of(model: nnx.Module, weight_decay: float) -> optax.GradientTransformation:
    """Return the transformation that adds weight decay to the parameters it is meant for."""
    decays = surgery.decays(modules, model)

    def decays_at(keys: Any, _: Any) -> bool:
        path = jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")
        if path not in decays:
            raise AconError(f"param_groups: {path!r} is no parameter of the model that the groups were made for")
        return decays[path]

    return optax.add_decayed_weights(weight_decay, lambda tree: jax.tree_util.tree_map_with_path(decays_at, tree))
