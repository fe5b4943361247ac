"""Access to nnx modules for `acon_core.surgery`, and weight decay for optax."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.extend.core import ClosedJaxpr, Jaxpr
from numpy.typing import NDArray

from acon_core import spec, surgery
from acon_core.errors import AconError
from acon_core.surgery import Layers, Observed, Probe
from acon_jax.activations import CLASSES, Activation
from acon_jax.arrays import precision
from acon_jax.build import BuildContext, make
from acon_jax.checkpoint.layout import layout
from acon_jax.modules import Acon, Function, Graph
from acon_jax.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS

SCOPE = "acon_site_"
MARK = "_acon_site"
UNDECAYED = (*surgery.UNDECAYED_NAMES, "bias", "scale")
"""Names of parameters that never decay, whatever their shape."""

OURS = {Acon, Function, Graph, *CLASSES.values()}
"""Our classes, by exact type: a user's subclass may compute something else."""


@dataclass(frozen=True, eq=False)
class Held:
    """A function that a module holds as an attribute, `self.act = nnx.relu`: also a site."""

    owner: nnx.Module
    name: str
    function: Callable[..., Any]


def _node_of_function(function: Any) -> spec.Node | None:
    options: dict[str, Any] = {}
    if isinstance(function, partial) and not function.args:
        function, options = function.func, function.keywords
    try:
        return NATIVE_ACTIVATIONS[function](**options)
    except (KeyError, TypeError):  # not in the table, not hashable, or with an option that the spec does not have
        return None


class NnxModules:
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
        values = (value[...] for each in models for _, value in _variables(each))
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
        setattr(model, name, nnx.data(module))  # where a plain function was, nnx expects static values

    def observe(self, model: Any, example: Any) -> Observed:
        # Traced, not run: a copy of the model stands in for it, so that nothing of it can change,
        # and its jaxpr holds every call of an activation function, however the model's code got
        # hold of it.
        graphdef, state = nnx.split(model)
        inputs: dict[str, list[spec.Shape]] = {}
        scopes: list[tuple[str, bool]] = []
        inner: dict[str, list[spec.Shape]] = {}
        arguments = example if type(example) is tuple else (example,)  # a NamedTuple is one argument
        options = [index for index, each in enumerate(arguments, 1) if isinstance(each, bool | int | str)]

        def run(state: nnx.State, *arguments: Any) -> Any:
            copy = nnx.merge(graphdef, state)
            copy.eval()
            with _recorded(self, copy, inputs, scopes, inner):
                return copy(*arguments)

        closed = jax.make_jaxpr(run, static_argnums=options)(state, *arguments)
        return Observed(inputs, list(_functional(closed.jaxpr, scopes, "")), _stacked_layers(dict(self.sites(model)), inner))

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


def _variables(module: nnx.Module) -> Iterator[tuple[str, Any]]:
    """All variables of a module by dotted path, random streams apart."""
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState))):
        yield ".".join(map(str, path)), variable


def _arrays(module: nnx.Module) -> dict[str, NDArray]:
    return {path: np.array(variable[...]) for path, variable in _variables(module)}


def _evaluation_flags(model: nnx.Module) -> Iterator[bool]:
    """Yield the flags of all modules that say whether they are in evaluation mode."""
    for _, module in modules.sites(model):
        for name in ("use_running_average", "deterministic"):
            if isinstance(flag := getattr(module, name, None), bool):
                yield flag


def _channels_last(shape: spec.Shape, axis: int) -> spec.Shape:
    """Move the channels of a shape last. Our own modules may have them at any axis."""
    sizes = list(shape)
    last = [sizes.pop(axis)] if sizes else []
    return (*sizes, *last)


def _stacked_layers(sites: Mapping[str, Any], inner: Mapping[str, list[spec.Shape]]) -> dict[str, Layers]:
    """Return the layers of every site that a scan or vmap divides, by the shapes inside it.

    A site without variables is divided as the module is that holds it, or else as others in that.
    """
    variables = {path: [variable.shape for _, variable in _variables(sites[path])] for path in inner}
    calls = {path: (outside[0], inside[0]) for path, inside in inner.items() if (outside := variables[path])}
    found = {}
    for path, site in sites.items():
        holder = path.rpartition(".")[0]
        near = [path, holder, *(other for other in calls if other.startswith(f"{holder}." if holder else ""))]
        whole, part = next((calls[other] for other in near if other in calls), ((), ()))
        if whole != part:
            leading = whole[: len(whole) - len(part)]
            found[path] = Layers(
                partial(_unstacked, path, site, (*leading, *part) == whole, leading), partial(_stacked, leading)
            )
    return found


def _unstacked(path: str, site: Any, in_front: bool, leading: spec.Shape) -> list[Any]:
    if not in_front:
        raise AconError(f"replace_activations: {path}: expected layers that are stacked along the first axis, found another")
    if isinstance(site, Held):
        return [site] * math.prod(leading)
    graphdef, state = nnx.split(site)
    return [nnx.merge(graphdef, jax.tree.map(itemgetter(index), state)) for index in np.ndindex(leading)]


def _stacked(leading: spec.Shape, made: Sequence[nnx.Module]) -> nnx.Module:
    graphdef, states = nnx.split(made[0])[0], [nnx.state(each) for each in made]

    def stack(*values: jax.Array) -> jax.Array:
        with precision(values[0].dtype):
            return jnp.stack(values).reshape(*leading, *values[0].shape)

    return nnx.merge(graphdef, jax.tree.map(stack, *states))


def _key(site: Any) -> Any:
    # In a transformation, such as nnx.scan, a module is another object, which has the same marks.
    return (id(site.owner), site.name) if isinstance(site, Held) else vars(site).get(MARK)


@contextmanager
def _recorded(
    modules: NnxModules,
    model: nnx.Module,
    inputs: dict[str, list[spec.Shape]],
    scopes: list[tuple[str, bool]],
    inner: dict[str, list[spec.Shape]],
) -> Iterator[None]:
    """Note every call of a site in `inputs`, and trace it under a scope that counts `scopes`.

    An entry of `scopes` is the path of the site, and whether its spec is known. `inner` gets the
    shapes of a module's variables in a call.
    """
    paths: dict[Any, list[str]] = {}
    running: list[Any] = []

    def noted(key: Any, known: bool, axis: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if running and running[-1] == key:  # a class that calls its parent's
            return call(*args, **kwargs)
        shapes = [np.shape(value) for value in (*args, *kwargs.values()) if isinstance(value, jax.Array)]
        running.append(key)
        scopes.append((paths[key][0], known))
        try:
            with jax.named_scope(f"{SCOPE}{len(scopes) - 1}"):
                result = call(*args, **kwargs)
        finally:
            running.pop()
        for path in paths[key]:
            inputs.setdefault(path, []).extend(_channels_last(shape, axis) for shape in shapes[:1])
        return result

    def replaced(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted_call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _key(self) not in paths:
                return call(self, *args, **kwargs)
            axis = self._channel_axis if isinstance(self, Activation) else -1
            for path in paths[_key(self)]:
                inner[path] = [variable.shape for _, variable in _variables(self)]
            return noted(_key(self), modules.node(self) is not None, axis, partial(call, self), *args, **kwargs)

        return noted_call

    sites = list(modules.sites(model))
    for path, site in sites:
        if isinstance(site, nnx.Module) and _key(site) is None:
            setattr(site, MARK, path)
        paths.setdefault(_key(site), []).append(path)
        if isinstance(site, Held):  # of the copy
            setattr(site.owner, site.name, partial(noted, _key(site), True, -1, site.function))
    # Python looks `__call__` up in the class.
    kinds = {type(site) for _, site in sites if isinstance(site, nnx.Module) and callable(site)}
    own = {kind: vars(kind).get("__call__") for kind in kinds}
    calls = {kind: kind.__call__ for kind in kinds}
    try:
        for kind, call in calls.items():
            kind.__call__ = replaced(call)
        yield
    finally:
        for kind, call in own.items():
            if call is None:
                del kind.__call__
            else:
                kind.__call__ = call


def _functional(jaxpr: Any, scopes: list[tuple[str, bool]], outer: str) -> Iterator[str]:
    """Yield the activation calls in a jaxpr, in order, that no site with a known spec explains."""
    for equation in jaxpr.eqns:
        found = re.findall(rf"{SCOPE}(\d+)", str(equation.source_info.name_stack))
        inner = found[-1] if found else outer
        path, known = scopes[int(inner)] if inner else ("", False)
        name = "sigmoid" if equation.primitive.name == "logistic" else equation.params.get("name")
        if known:
            continue
        if name in ACTIVATION_FUNCTIONS or name == "sigmoid":
            yield f"{name} in {path or 'the model'}"
            continue
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from _functional(getattr(value, "jaxpr", value), scopes, inner)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def decay_of(model: nnx.Module, weight_decay: float) -> optax.GradientTransformation:
    """Return the transformation that adds weight decay to the parameters it is meant for."""
    decays = surgery.decays(modules, model)

    def decays_at(keys: Any, _: Any) -> bool:
        path = jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")
        if path not in decays:
            raise AconError(f"param_groups: {path!r} is no parameter of the model that the groups were made for")
        return decays[path]

    return optax.add_decayed_weights(weight_decay, lambda tree: jax.tree_util.tree_map_with_path(decays_at, tree))
