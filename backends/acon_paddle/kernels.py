"""The kernel library on Paddle's tensors: which calls it serves, and its runs on their memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor

from acon_core.kernels import Plan, library, plan

Gate = Tensor | float

_NAMES = {paddle.float32: "float32", paddle.float64: "float64", paddle.bfloat16: "bfloat16", paddle.float16: "float16"}
_HALF = (paddle.bfloat16, paddle.float16)


@dataclass(frozen=True, eq=False)
class Call:
    """What one signature needs: its plan, and the dtype that each argument has in the library."""

    plan: Plan
    dtypes: tuple[Any, ...]


@cache
def _openmp() -> tuple[Callable[[], int], int | None]:
    """Return omp_get_max_threads, and the address of GOMP_parallel, as Paddle's operations use."""
    path = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    if not path.exists():
        return lambda: 1, None
    loaded = ctypes.CDLL(str(path))
    return loaded.omp_get_max_threads, ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value


@lru_cache(maxsize=4096)
def _call(function: str, channel_axis: int, shapes: tuple[Any, ...], dtypes: tuple[Any, ...]) -> Call | None:
    """Plan a call. Shape and dtype of x and of each gate; a constant gate is its value and None."""
    name = _NAMES.get(dtypes[0], "")
    found = None if 0 in shapes[0] else plan(function, name, shapes[0], shapes[1:], channel_axis)
    if found is None:
        return None
    wide = getattr(paddle, found.gate_dtype)
    wanted = (dtypes[0], *(dtypes[0] if like else wide for like in found.like_x))
    for given, needed in zip(dtypes, wanted, strict=True):
        if given not in (None, needed) and not (given in _HALF and needed == paddle.float32):
            return None
    return Call(found, wanted)


def usable(function: str, x: Tensor, gates: Sequence[Gate], channel_axis: int) -> Call | None:
    """Return how the library computes a call, or None: not in dynamic mode, or not on a CPU."""
    if library() is None or not paddle.in_dynamic_mode():
        return None
    shapes: list[Any] = []
    dtypes: list[Any] = []
    for value in (x, *gates):
        if isinstance(value, Tensor):
            if not (value.is_dense() and value.place.is_cpu_place()):
                return None
            shapes.append(tuple(value.shape))
            dtypes.append(value.dtype)
        else:
            shapes.append(float(value))
            dtypes.append(None)
    return _call(function, channel_axis, tuple(shapes), tuple(dtypes))


def _prepared(value: Gate, dtype: Any) -> Gate:
    """Return a tensor as the library reads it: of this dtype, without gaps."""
    if not isinstance(value, Tensor):
        return value
    value = value if value.dtype == dtype else value.astype(dtype)
    return value if value.is_contiguous() else value.contiguous()


def _run(
    call: Call, arguments: Sequence[Gate], out: Tensor | None, g: Tensor | None = None, dgates: Sequence[Any] = ()
) -> None:
    x, *gates = map(_prepared, arguments, call.dtypes)
    threads, parallel = _openmp()
    call.plan.run(
        x.data_ptr(),
        [gate.data_ptr() if isinstance(gate, Tensor) else None for gate in gates],
        None if out is None else out.data_ptr(),
        None if g is None else g.data_ptr(),
        [None if each is None else each.data_ptr() for each in dgates],
        threads(),
        parallel,
    )


def _empty(like: Tensor, dtype: Any) -> Tensor:
    return paddle._C_ops.empty_like(like, dtype, like.place)


def value(call: Call, x: Tensor, *gates: Gate) -> Tensor:
    """Compute the function."""
    y = _empty(x, x.dtype)
    _run(call, (x, *gates), y)
    return y


def gradients(call: Call, needed: Sequence[bool], g: Tensor, x: Tensor, *gates: Gate) -> list[Tensor | None]:
    """Compute the gradient of each argument; None where `needed` is False."""
    arguments = (x, *gates)
    dx, *dgates = (
        _empty(each, dtype) if wanted else None for each, dtype, wanted in zip(arguments, call.dtypes, needed, strict=True)
    )
    _run(call, arguments, dx, _prepared(g, call.dtypes[0]), dgates)
    return [each if each is None else each.astype(like.dtype) for each, like in zip((dx, *dgates), arguments, strict=True)]
