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
_CPU = paddle.CPUPlace()
_empty_like: Any = paddle._C_ops.empty_like  # a third of the time of paddle.empty_like


@dataclass(frozen=True, eq=False)
class Call:
    """What one signature needs: its plan, the dtype of each argument in it, and those to cast."""

    plan: Plan
    dtypes: tuple[Any, ...]
    casts: tuple[Any, ...]


@cache
def _openmp() -> tuple[Callable[[], int], int | None]:
    """Return omp_get_max_threads, and the address of GOMP_parallel, as Paddle's operations use."""
    path = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    if not path.exists():
        return lambda: 1, None
    loaded = ctypes.CDLL(str(path))
    return loaded.omp_get_max_threads, ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value


@lru_cache(maxsize=4096)
def _call(function: str, channel_axis: int, *signature: Any) -> Call | None:
    """Plan a call. Shape and dtype of x and of each gate; a constant gate is its value and None."""
    shapes, dtypes = signature[::2], signature[1::2]
    name = _NAMES.get(dtypes[0], "")
    found = None if 0 in shapes[0] else plan(function, name, shapes[0], shapes[1:], channel_axis)
    if found is None:
        return None
    wide = getattr(paddle, found.gate_dtype)
    wanted = (dtypes[0], *(dtypes[0] if like else wide for like in found.like_x))
    for given, needed in zip(dtypes, wanted, strict=True):
        if given not in (None, needed) and not (given in _HALF and needed == paddle.float32):
            return None
    casts = (None if given in (None, needed) else needed for given, needed in zip(dtypes, wanted, strict=True))
    return Call(found, wanted, tuple(casts))


def usable(function: str, x: Tensor, gates: Sequence[Gate], channel_axis: int) -> Call | None:
    """Return how the library computes a call, or None: not in dynamic mode, or not on a CPU."""
    if library() is None or not paddle.in_dynamic_mode():
        return None
    signature: list[Any] = []
    for value in (x, *gates):
        if not isinstance(value, Tensor):
            signature += float(value), None
        elif value.is_dense() and value.place.is_cpu_place():
            signature += tuple(value.shape), value.dtype
        else:
            return None
    return _call(function, channel_axis, *signature)


def _prepared(value: Gate, cast: Any = None) -> Gate:
    """Return a tensor as the library reads it: of its dtype, without gaps."""
    if not isinstance(value, Tensor):
        return value
    value = value if cast is None else value.astype(cast)
    return value if value.is_contiguous() else value.contiguous()


def _run(call: Call, arguments: Sequence[Gate], *results: Tensor | None, g: Tensor | None = None) -> None:
    values = [_prepared(value, cast) for value, cast in zip(arguments, call.casts, strict=True)]
    x, *gates = [value.data_ptr() if isinstance(value, Tensor) else None for value in values]
    out, *dgates = [None if result is None else result.data_ptr() for result in results]
    threads, parallel = _openmp()
    call.plan.run(x, gates, out, None if g is None else g.data_ptr(), dgates, threads(), parallel)


def value(call: Call, x: Tensor, *gates: Gate) -> Tensor:
    """Compute the function."""
    y = _empty_like(x, call.dtypes[0], _CPU)
    _run(call, (x, *gates), y)
    return y


def gradients(call: Call, needed: Sequence[bool], g: Tensor, *arguments: Gate) -> list[Tensor | None]:
    """Compute the gradient of each argument; None where `needed` is False."""
    found = [
        _empty_like(like, dtype, _CPU) if wanted else None
        for like, dtype, wanted in zip(arguments, call.dtypes, needed, strict=True)
    ]
    _run(call, arguments, *found, g=_prepared(g))
    for index, cast in enumerate(call.casts):
        if cast is not None and needed[index]:
            found[index] = found[index].astype(arguments[index].dtype)
    return found
