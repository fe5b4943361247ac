"""The kernel library on Paddle's tensors: which calls it serves, and its runs on their memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor

from acon_core.kernels import DTYPES, Plan, library, plan

Gate = Tensor | float

_DTYPES = {id(getattr(paddle, name)): getattr(paddle, name) for name in DTYPES}  # a dtype is one object; its own hash is slow
_HALF = (paddle.bfloat16, paddle.float16)
_CPU = paddle.CPUPlace()
_empty_like: Any = paddle._C_ops.empty_like  # a third of the time of paddle.empty_like


@dataclass(frozen=True, eq=False)
class Call:
    """What one signature needs: its plan, and for each tensor the dtype in the library.

    `casts` has the dtypes that differ from the tensors' own, else None. `fixed` has an entry an
    argument: its value where it is a number, else None.
    """

    plan: Plan
    dtypes: tuple[Any, ...]
    casts: tuple[Any, ...]
    fixed: tuple[float | None, ...]

    def addresses(self, tensors: Iterable[Tensor | None]) -> list[int | None]:
        """Return the address of each argument; None for a number and for None."""
        found = iter([tensor if tensor is None else tensor.data_ptr() for tensor in tensors])
        return [next(found) if number is None else None for number in self.fixed]


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
    """Plan a call: shape and id of the dtype of x and each gate; of a number, its value and 0."""
    shapes, dtypes = signature[::2], [_DTYPES.get(each) for each in signature[1::2]]
    name = str(dtypes[0]).removeprefix("paddle.")
    found = None if 0 in shapes[0] else plan(function, name, shapes[0], shapes[1:], channel_axis)
    if found is None:
        return None
    wide = getattr(paddle, found.gate_dtype)
    wanted = (dtypes[0], *(dtypes[0] if like else wide for like in found.like_x))
    of_tensors = [
        pair for pair, shape in zip(zip(dtypes, wanted, strict=True), shapes, strict=True) if isinstance(shape, tuple)
    ]
    if any(given != needed and not (given in _HALF and needed == paddle.float32) for given, needed in of_tensors):
        return None
    casts = tuple(None if given == needed else needed for given, needed in of_tensors)
    fixed = tuple(None if isinstance(shape, tuple) else shape for shape in shapes)
    return Call(found, tuple(needed for _, needed in of_tensors), casts, fixed)


def usable(function: str, x: Tensor, gates: Sequence[Gate], channel_axis: int) -> Call | None:
    """Return how the library computes a call, or None: not in dynamic mode, or not on a CPU."""
    if library() is None or not paddle.in_dynamic_mode():
        return None
    signature: list[Any] = []
    for value in (x, *gates):
        if not isinstance(value, Tensor):
            signature += float(value), 0
        elif value.is_dense() and value.place.is_cpu_place():
            signature += tuple(value.shape), id(value.dtype)
        else:
            return None
    return _call(function, channel_axis, *signature)


def _prepared(tensor: Tensor, cast: Any = None) -> Tensor:
    """Return a tensor as the library reads it: of its dtype, without gaps."""
    tensor = tensor if cast is None else tensor.astype(cast)
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _run(call: Call, tensors: Iterable[Tensor], results: Iterable[Tensor | None], g: Tensor | None = None) -> None:
    read = list(map(_prepared, tensors, call.casts))
    x, *gates = call.addresses(read)
    out, *dgates = call.addresses(results)
    threads, parallel = _openmp()
    call.plan.run(x, gates, out, None if g is None else g.data_ptr(), dgates, threads(), parallel)


def value(call: Call, tensors: Sequence[Tensor]) -> Tensor:
    """Compute the function of its tensors; the call has the numbers."""
    y: Tensor = _empty_like(tensors[0], call.dtypes[0], _CPU)
    _run(call, tensors, (y, *[None] * (len(tensors) - 1)))
    return y


def gradients(call: Call, needed: Sequence[bool], g: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Compute the gradient of each tensor; None where `needed` is False."""
    of_each = zip(tensors, call.dtypes, needed, strict=True)
    found: list[Any] = [_empty_like(like, dtype, _CPU) if wanted else None for like, dtype, wanted in of_each]
    _run(call, tensors, found, _prepared(g))
    if any(cast is not None for cast in call.casts):
        found = [None if each is None else each.astype(like.dtype) for each, like in zip(found, tensors, strict=True)]
    return tuple(found)
