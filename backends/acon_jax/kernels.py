"""The kernel library in JAX's programs: a primitive that becomes a call of it, or the formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from acon_core.kernels import INTERFACE, Plan, library, plan

_TARGET = f"acon_kernels_{INTERFACE}"

# Operands: x, the gates that are arrays, all of its rank, and for gradients g. Results: y, or the
# gradients of x and of those gates. `formula(rule, fixed, *operands)` computes them.
_primitive = Primitive("acon_kernel")
_primitive.multiple_results = True


@cache
def _registered() -> bool:
    loaded = library()
    if loaded is not None:
        jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(loaded.acon_xla), platform="cpu")
    return loaded is not None


def run(formula: Callable[..., Any], rule: Any, fixed: tuple[float | None, ...], arrays: Sequence[Array]) -> Any:
    """Return `formula(rule, fixed, *arrays)`, by the library where it is there and serves it."""
    if not _registered():
        return formula(rule, fixed, *arrays)
    x = arrays[0]
    # The library reads 16 bits where an array is as large as x.
    wide = [a if a.shape == x.shape else a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays]
    results = _primitive.bind(*wide, formula=formula, rule=rule, fixed=fixed)
    return tuple(result.astype(array.dtype) for result, array in zip(results, arrays, strict=False))


def _formula(*arrays: Array, formula: Callable[..., Any], rule: Any, fixed: tuple[float | None, ...]) -> Any:
    return formula(rule, fixed, *arrays)


def _results(*arguments: Any, **how: Any) -> Any:
    return jax.make_jaxpr(partial(_formula, **how))(*arguments).out_avals


def _tangents(primals: Sequence[Array], tangents: Sequence[Any], **how: Any) -> Any:
    moved = tuple(map(ad.instantiate_zeros, tangents))
    return _primitive.bind(*primals, **how), jax.jvp(partial(_formula, **how), tuple(primals), moved)[1]


def _batched(arrays: Sequence[Array], axes: Sequence[int | None], **how: Any) -> Any:
    """Give every argument the new axis in front: also the gradient of one that lacks it has it."""
    (size,) = {array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None}
    rows = [
        jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    results = _primitive.bind(*rows, **how)
    return results, [0] * len(results)


def _runs_as_written(module: Any) -> bool:
    """Return whether a program runs here, and on one device or as one part of several.

    XLA cannot divide a call of the library among devices, and gathers its operands instead. An
    exported program runs where the library is not.
    """
    devices = module.axis_context
    if hasattr(devices, "manual_axes"):  # inside shard_map
        alone = devices.manual_axes == frozenset(devices.mesh.axis_names)
    else:
        alone = getattr(devices, "num_devices", 0) == 1
    return alone and not module.lowering_parameters.for_export


def _planned(rule: Any, fixed: tuple[float | None, ...], x: Any, *rest: Any, axis: int) -> Plan | None:
    """Return the plan of a call whose gates vary along the first axis and `axis` alone."""
    gates, cotangents = rest[: fixed.count(None)], rest[fixed.count(None) :]
    ones = (1,) * (x.ndim - 2)
    shapes = [x.shape if gate.shape == x.shape else (gate.shape[0], gate.shape[axis], *ones) for gate in gates]
    if any(prod(gate.shape) != prod(shape) for gate, shape in zip(gates, shapes, strict=True)):
        return None
    given = iter(shapes)
    described = tuple(next(given) if number is None else number for number in fixed)
    found = plan(rule.kernel, str(x.dtype), x.shape, described, axis)
    if found is None:
        return None
    likes = [like for like, number in zip(found.like_x, fixed, strict=True) if number is None]
    fits = all(gate.dtype == (x.dtype if like else found.gate_dtype) for gate, like in zip(gates, likes, strict=True))
    return found if fits and all(g.dtype == x.dtype for g in cotangents) else None


def _attribute(found: Plan) -> Any:
    """Return a plan as xla.cpp reads it: the structure, which gates are arrays, the constants."""
    arrays = sum(constant is None and 1 << k for k, constant in enumerate(found.constants))
    constants = b"".join((b"" if number is None else bytes(number)).ljust(8, b"\0") for number in found.constants)
    return np.frombuffer(bytes(found.structure) + arrays.to_bytes(8, "little") + constants.ljust(32, b"\0"), np.int64)


def _lowered(context: Any, *operands: Any, **how: Any) -> Any:
    if _runs_as_written(context.module_context):
        for axis in range(1, context.avals_in[0].ndim):
            found = _planned(how["rule"], how["fixed"], *context.avals_in, axis=axis)
            if found is not None:
                return jax.ffi.ffi_lowering(_TARGET)(context, *operands, plan=_attribute(found))
    return mlir.lower_fun(_formula, multiple_results=True)(context, *operands, **how)


_primitive.def_impl(_formula)
_primitive.def_abstract_eval(_results)
ad.primitive_jvps[_primitive] = _tangents
batching.primitive_batchers[_primitive] = _batched
mlir.register_lowering(_primitive, mlir.lower_fun(_formula, multiple_results=True))
mlir.register_lowering(_primitive, _lowered, platform="cpu")
