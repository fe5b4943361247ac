"""One run of an nnx model, watched: calls of activations, their places and scales."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from acon_core import spec
from acon_core.surgery import Call, FunctionCall, Modules, Observed, Place, find_place, place_in
from acon_jax.activations import Activation
from acon_jax.pointwise import ACTIVATION_FUNCTIONS, NATIVE_ACTIVATIONS
from acon_jax.stacked import Held, stacked_layers, variables

SCOPE = "acon_site_"
MARK = "_acon_site"
JAX = str(Path(jax.__file__).parent)

_BY_NAME = {function.__name__: kind for function, kind in NATIVE_ACTIVATIONS.items()}
_GELU = {"tanh": "tanh", "erf": "none", "erfc": "none"}
"""The operation of GELU, which JAX puts into the caller's program, by its approximation."""


def observe(modules: Modules, model: Any, example: Any) -> Observed:
    """Run a model once; see `acon_core.surgery.Modules.observe`.

    A copy of the model is traced, since its jaxpr holds every call of an activation function,
    however the model's code got hold of it. It is also run, for the values; an example of shapes
    alone, such as `jax.ShapeDtypeStruct`, has none.
    """
    graphdef, state = nnx.split(model)
    sites = dict(modules.sites(model))
    named = dict(example) if isinstance(example, Mapping) else {}
    given = () if named else example if type(example) is tuple else (example,)  # a NamedTuple is one argument
    leaves, tree = jax.tree.flatten((given, named))
    dynamic = [at for at, leaf in enumerate(leaves) if not isinstance(leaf, bool | int | str)]

    def run(record: _Record, state: nnx.State, *arrays: Any) -> Any:
        copy = nnx.merge(graphdef, state)
        copy.eval()
        filled = [*leaves]
        for at, array in zip(dynamic, arrays, strict=True):
            filled[at] = array
        args, kwargs = jax.tree.unflatten(tree, filled)
        with record.watching(copy):
            return copy(*args, **kwargs)

    traced, record = _Record(modules), _Record(modules)
    arrays = [leaves[at] for at in dynamic]
    closed = jax.make_jaxpr(partial(run, traced))(state, *arrays)
    layers = stacked_layers(sites, traced.inner)
    found = [(_outside(each, layers), x) for each, x in traced.functions(closed.jaxpr, sites)]
    functions = [function for function, _ in found]
    outputs = None
    if not any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
        arrays = [jnp.asarray(each) if isinstance(each, np.ndarray) else each for each in arrays]
        with jax.disable_jit():  # a compiled part of the model would not run its code again
            output = run(record, state, *arrays)
        floats = (leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype"))
        outputs = [np.asarray(leaf) for leaf in floats if jnp.issubdtype(leaf.dtype, jnp.floating)]
        functions = _with_scales(closed, jax.tree.leaves((state, *arrays)), found)
    # A scan runs its layers one by one there.
    calls = traced.calls | {path: made for path, made in record.calls.items() if path not in layers}
    for path in layers.keys() & calls.keys():
        calls[path] = [replace(call, place=None) for call in calls[path]]
    return Observed(calls, functions, outputs, layers)


def _outside(function: FunctionCall, layers: Mapping[str, Any]) -> FunctionCall:
    """Leave a call in stacked layers where it is."""
    stacked = any(f"{function.where}.".startswith(f"{path}.") for path in layers)
    return FunctionCall(function.name, function.where) if stacked else function


def _with_scales(closed: ClosedJaxpr, values: list[Any], found: list[tuple[FunctionCall, Any]]) -> list[FunctionCall]:
    """Return the calls with the scales of their inputs, where the program as a whole has them."""
    inputs = [x for _, x in found if isinstance(x, Var)]
    program = closed.jaxpr.replace(outvars=inputs, debug_info=closed.jaxpr.debug_info.with_unknown_names())
    arrays = iter(jax.core.eval_jaxpr(program, closed.consts, *values))
    functions = []
    for function, x in found:
        scale = _scale(next(arrays)) if isinstance(x, Var) else None
        functions.append(replace(function, call=replace(function.call, scale=scale)) if function.call else function)
    return functions


class _Record:
    """Note every call of a site, and trace it under a scope that counts `_scopes`.

    An entry of `_scopes` is the path of the site, and whether its spec is known. `inner` gets the
    shapes of a module's variables in a call.
    """

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._paths: dict[Any, list[str]] = {}
        self._owners: dict[int, str] = {}
        self._running: list[Any] = []
        self._scopes: list[tuple[str, bool]] = []
        self.calls: dict[str, list[Call]] = {}
        self.inner: dict[str, list[spec.Shape]] = {}

    @contextmanager
    def watching(self, model: nnx.Module) -> Iterator[None]:
        """Run the body with every call of a site of this copy of the model recorded."""
        sites = list(self._modules.sites(model))
        for path, site in sites:
            if isinstance(site, nnx.Module):
                self._owners.setdefault(id(site), path)
                if _key(site) is None:
                    setattr(site, MARK, path)
            self._paths.setdefault(_key(site), []).append(path)
            if isinstance(site, Held):
                setattr(site.owner, site.name, self._held(site))
        # Python looks `__call__` up in the class.
        kinds = {type(site) for _, site in sites if isinstance(site, nnx.Module) and callable(site)}
        own = {kind: vars(kind).get("__call__") for kind in kinds}
        calls = {kind: kind.__call__ for kind in kinds}
        try:
            for kind, call in calls.items():
                kind.__call__ = self._method(call)
            yield
        finally:
            for kind, call in own.items():
                if call is None:
                    del kind.__call__
                else:
                    kind.__call__ = call

    def _held(self, site: Held) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._noted(_key(site), True, -1, site.function, sys._getframe(1), args, kwargs)

        return call

    def _method(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            key = _key(module)
            if key not in self._paths:
                return own(module, *args, **kwargs)
            axis = module._channel_axis if isinstance(module, Activation) else -1
            for path in self._paths[key]:
                self.inner[path] = [variable.shape for _, variable in variables(module)]
            known = self._modules.node(module) is not None
            return self._noted(key, known, axis, partial(own, module), sys._getframe(1), args, kwargs)

        call.__acon_watched__ = own  # type: ignore[attr-defined]
        return call

    def _noted(
        self,
        key: Any,
        known: bool,
        axis: int,
        function: Callable[..., Any],
        frame: FrameType,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self._running and self._running[-1] == key:  # a class that calls its parent's
            return function(*args, **kwargs)
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, jax.Array)]
        calls = [Call(_channels_last(np.shape(x), axis), _scale(x), None, find_place(frame, self._owners)) for x in values[:1]]
        self._running.append(key)
        self._scopes.append((self._paths[key][0], known))
        try:
            with jax.named_scope(f"{SCOPE}{len(self._scopes) - 1}"):
                result = function(*args, **kwargs)
        finally:
            self._running.pop()
        for path in self._paths[key]:
            self.calls.setdefault(path, []).extend(calls)
        return result

    def functions(self, jaxpr: Any, sites: Mapping[str, Any], outer: str = "") -> Iterator[tuple[FunctionCall, Any]]:
        """Yield the activation calls in a jaxpr, in order, that no known site explains.

        With each comes the variable that is its input; None inside of another call.
        """
        for equation in jaxpr.eqns:
            found = re.findall(rf"{SCOPE}(\d+)", str(equation.source_info.name_stack))
            inner = found[-1] if found else outer
            path, known = self._scopes[int(inner)] if inner else ("", False)
            if known:
                continue
            name, node = _function_of(equation)
            if name:
                x = equation.invars[0].aval
                call = Call(x.shape, place=_place(equation, sites.get(path), path))
                yield FunctionCall(name, path, node, call), equation.invars[0]
                continue
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(value):
                    for function, _ in self.functions(getattr(value, "jaxpr", value), sites, inner):
                        yield function, None


def _scale(x: jax.Array) -> float | None:
    if isinstance(x, jax.core.Tracer) or not x.size:
        return None
    return float(jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)))))


def _function_of(equation: Any) -> tuple[str, spec.Node | None]:
    """Return the name of the activation function that an equation is the call of, and its spec."""
    primitive, name = equation.primitive.name, equation.params.get("name", "")
    if primitive in _GELU:
        gelu = any(code.co_name == "gelu" and code.co_filename.startswith(JAX) for code, _ in _frames(equation))
        return ("gelu", spec.GELU(_GELU[primitive])) if gelu else ("", None)
    if primitive == "logistic":
        return "sigmoid", spec.Sigmoid()
    if primitive == "custom_jvp_call":  # what it holds may have been traced for an earlier call
        inside = equation.params["call_jaxpr"].jaxpr.eqns
        name = inside[0].params.get("name", "") if len(inside) == 1 else ""
    if name not in ACTIVATION_FUNCTIONS:
        return "", None
    options = equation.invars[1:]
    if not all(isinstance(option, Literal) for option in options):
        return name, None
    return name, _BY_NAME[name](*(float(option.val) for option in options))


def _frames(equation: Any) -> list[tuple[CodeType, int]]:
    """Return the code that made an equation and the instructions it was at, the innermost first."""
    traceback = equation.source_info.traceback
    return list(zip(*traceback.raw_frames(), strict=True)) if traceback else []


def _place(equation: Any, owner: Any, path: str) -> Place | None:
    """Return the call expression in a method of `owner` that called JAX."""
    if not isinstance(owner, nnx.Module):
        return None
    for code, instruction in _frames(equation):
        if not code.co_filename.startswith(JAX):
            return place_in(owner, path, code, instruction, 0)
    return None


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _key(site: Any) -> Any:
    # In a transformation, such as nnx.scan, a module is another object, which has the same marks.
    return (id(site.owner), site.name) if isinstance(site, Held) else vars(site).get(MARK)


def _channels_last(shape: spec.Shape, axis: int) -> spec.Shape:
    """Move the channels of a shape last. Our own modules may have them at any axis."""
    sizes = list(shape)
    last = [sizes.pop(axis)] if sizes else []
    return (*sizes, *last)
