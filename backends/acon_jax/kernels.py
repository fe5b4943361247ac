"""The kernel library in JAX's programs: one primitive, lowered to a call of it or to the formula."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
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
    """Return `formula(rule, fixed, *arrays)`, by the kernel library where it is there and serves it."""
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


def _on_one_device(context: Any) -> bool:
    """Return whether the program runs as it is written, on one device or as one part of several.

    XLA cannot divide a call of the library among devices. An exported program runs without it.
    """
    devices = context.axis_context
    if hasattr(devices, "manual_axes"):  # inside shard_map
        return devices.manual_axes == frozenset(devices.mesh.axis_names)
    return getattr(devices, "num_devices", 0) == 1


def _planned(rule: Any, fixed: tuple[float | None, ...], x: Any, *arrays: Any) -> Plan | None:
    given = iter(arrays)
    gates = [next(given) if number is None else number for number in fixed]
    shapes = [gate.shape for gate in gates if not isinstance(gate, float)]
    for axis in range(1, x.ndim):
        # A gate's own axes: batch and channels. That of x may have two sizes merged in one.
        others = [a for a in range(1, x.ndim) if a != axis]
        if any(shape != x.shape and any(shape[a] != 1 for a in others) for shape in shapes):
            continue
        described = tuple(
            gate if isinstance(gate, float) else x.shape if gate.shape == x.shape else (gate.shape[0], gate.shape[axis], *[1] * len(others))
            for gate in gates
        )
        found = plan(rule.kernel, str(x.dtype), x.shape, described, axis)
        if found is None:
            continue
        wanted = [str(x.dtype) if like else found.gate_dtype for like in found.like_x]
        fits = all(isinstance(gate, float) or str(gate.dtype) == dtype for gate, dtype in zip(gates, wanted, strict=True))
        return found if fits and all(str(g.dtype) == str(x.dtype) for g in given) else None
    return None


def _lowered(context: Any, *operands: Any, **how: Any) -> Any:
    module = context.module_context
    found = None
    if _on_one_device(module) and not module.lowering_parameters.for_export:
        found = _planned(how["rule"], how["fixed"], *context.avals_in)
    if found is None:
        return mlir.lower_fun(partial(_formula, **how), multiple_results=True)(context, *operands)
    arrays = sum(1 << k for k, constant in enumerate(found.constants) if constant is None)
    constants = b"".join(bytes(constant or ctypes.c_double()).ljust(8, b"\0") for constant in found.constants).ljust(32, b"\0")
    call = np.frombuffer(bytes(found.structure) + arrays.to_bytes(8, "little") + constants, np.int64)
    return jax.ffi.ffi_lowering(_TARGET)(context, *operands, plan=call)


_primitive.def_impl(_formula)
_primitive.def_abstract_eval(_results)
ad.primitive_jvps[_primitive] = _tangents
batching.primitive_batchers[_primitive] = _batched
mlir.register_lowering(_primitive, mlir.lower_fun(_formula, multiple_results=True))
mlir.register_lowering(_primitive, _lowered, platform="cpu")
