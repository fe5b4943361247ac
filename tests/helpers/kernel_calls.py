"""Calls of the kernel library on NumPy arrays, and what the reference says that they return.

It knows kernels.h alone: not how acon_core plans calls.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_int32, c_int64, c_uint, c_void_p
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from acon_core import spec
from acon_core.reference import forward

DTYPES = {"float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
GATES = {"acon": 3, "slopes": 2, "attention_slopes": 2, "branches": 4, "two_lines": 4, "maximum": 1}
LIKE_X = 8

Array = NDArray[Any]
Pointers = c_void_p * 4
Work = CFUNCTYPE(None, c_void_p)


class CPlan(Structure):
    _fields_ = (("function", c_int32), ("type", c_int32), ("sizes", c_int64 * 3), ("covers", c_int32 * 4))


@cache
def entry() -> Any:
    import acon_kernels

    apply = ctypes.CDLL(str(acon_kernels.library)).acon_apply
    apply.argtypes = [POINTER(CPlan), c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_uint, c_void_p]
    apply.restype = c_int
    return apply


def width() -> int:
    """Return the bytes of the vectors in use."""
    found: int = entry()(None, None, None, None, None, None, 0, None)
    return found


@CFUNCTYPE(None, Work, c_void_p, c_uint, c_uint)
def parallel(work: Any, data: int, threads: int, flags: int) -> None:
    """Run work(data) on Python's threads: as GOMP_parallel, which ctypes' calls let run at once."""
    started = [threading.Thread(target=work, args=(data,)) for _ in range(threads - 1)]
    for thread in started:
        thread.start()
    work(data)
    for thread in started:
        thread.join()


def plan(function: str, dtype: str, sizes: Sequence[int], covers: Sequence[int]) -> CPlan:
    return CPlan(list(GATES).index(function), list(DTYPES).index(dtype), (c_int64 * 3)(*sizes), (c_int32 * 4)(*covers))


def address(array: Array | None) -> int | None:
    return None if array is None else array.ctypes.data


def run(plan: CPlan, x: Array, gates: Sequence[Array | None], out: Array | None, g: Array | None = None,
        dgates: Sequence[Array | None] = (), threads: int = 1) -> int:  # fmt: skip
    code: int = entry()(
        plan, address(x), address(g), Pointers(*map(address, gates)), address(out), Pointers(*map(address, dgates)),
        threads, ctypes.cast(parallel, c_void_p) if threads > 1 else None,
    )  # fmt: skip
    return code


def gate_shape(sizes: Sequence[int], cover: int) -> tuple[int, ...]:
    """Return a shape that broadcasts against x."""
    return tuple(size if cover == LIKE_X or cover >> axis & 1 else 1 for axis, size in enumerate(sizes))


def displaced(shape: Sequence[int], dtype: Any) -> Array:
    """Make an array of NaN at an address aligned to nothing; its memory ends with it."""
    dtype = np.dtype(dtype)
    offset = dtype.itemsize // 2
    memory = np.empty(offset + int(np.prod(shape)) * dtype.itemsize, np.uint8)
    array: Array = memory[offset:].view(dtype).reshape(shape)
    array.fill(np.nan)
    return array


class Case:
    """Random arguments of a call with given covers, at addresses that are aligned to nothing."""

    def __init__(
        self, function: str, dtype: str, sizes: Sequence[int], covers: Sequence[int], seed: int = 0, spread: float = 2.0
    ):
        random = np.random.default_rng(seed)
        self.function, self.dtype, self.sizes, self.covers = function, dtype, tuple(sizes), tuple(covers)
        self.plan = plan(function, dtype, sizes, covers)
        self.gate_type = np.float64 if dtype == "float64" else np.float32
        types = [DTYPES[dtype] if cover == LIKE_X else self.gate_type for cover in covers]
        self.x, self.g, *self.gates = (
            displaced(shape, type) for shape, type in
            [(sizes, DTYPES[dtype])] * 2 + [(gate_shape(sizes, cover), type) for cover, type in zip(covers, types, strict=True)]
        )  # fmt: skip
        for array, scale in zip((self.x, self.g, *self.gates), (spread, 1.0, *[1.0] * len(covers)), strict=True):
            array[...] = (random.normal(size=array.shape) * scale).astype(array.dtype)

    def value(self, threads: int = 1) -> Array:
        y = displaced(self.sizes, self.x.dtype)
        assert run(self.plan, self.x, self.gates, y, threads=threads) == 0
        return y

    def pull(self, threads: int = 1) -> list[Array]:
        out = [displaced(array.shape, array.dtype) for array in (self.x, *self.gates)]
        assert run(self.plan, self.x, self.gates, out[0], self.g, out[1:], threads) == 0
        return out

    def expected(self) -> tuple[list[Array], list[Array]]:
        """Return y, dx and the gradients of the gates in float64, and the scales of errors."""
        x, g, *gates = (np.asarray(array, np.float64) for array in (self.x, self.g, *self.gates))
        with np.errstate(all="ignore"):
            y, terms, scales = reference(self.function, x, g, [np.broadcast_to(gate, x.shape) for gate in gates])
            exact, scale = [y, terms[0]], scales[:2]
            for gate, term, size in zip(gates, terms[1:], scales[2:], strict=True):
                axes = tuple(axis for axis in range(3) if gate.shape[axis] == 1 and x.shape[axis] != 1)
                exact.append(term.sum(axes, keepdims=True))
                scale.append(size.sum(axes, keepdims=True))
        return exact, scale


def reference(function: str, x: Array, g: Array, gates: Sequence[Array]) -> tuple[Array, list[Array], list[Array]]:
    """Compute y and, element by element, the gradients of x and gates, by acon_core.reference.

    The scales bound what rounding x, z and each term once may change: those of y, x and each gate.
    """
    magnitude, size = np.abs(x), np.abs(g)
    weight = sum((np.abs(gate) for gate in gates), np.zeros(x.shape))
    if function in ("slopes", "two_lines"):
        if function == "slopes":
            positive, negative = gates
            slope = np.where(x > 0, positive, negative)
            y, terms = x * slope, [g * slope, g * np.maximum(x, 0.0), g * np.minimum(x, 0.0)]
        else:
            a1, a2, b1, b2 = gates
            result = forward(spec.Maximum(), {}, [a1 * x + b1, a2 * x + b2])
            first, second = result.vjp((g,)).inputs
            y, terms = result.values[0], [first * a1 + second * a2, first * x, second * x, first, second]
        return y, terms, [weight * (magnitude + 1), weight * size, *(np.abs(term) for term in terms[1:])]
    node = {"acon": spec.Acon(), "attention_slopes": spec.AReLUFunction(), "branches": spec.RepActFunction(shift=True),
            "maximum": spec.Maximum()}[function]  # fmt: skip
    result = forward(node, {}, [x, *gates])
    gradients = result.vjp((g,))
    scales = list(gradients.input_scales)
    if function == "acon":  # z is rounded: an error of |z| units in exp(z)
        p1, p2, beta = np.abs(gates)
        z = beta * (p1 + p2) * magnitude
        scales = [size * (p1 + p2), *(scale * (1.0 + z) for scale in scales[1:])]
    elif function != "maximum":
        scales = [(weight + 2.0) * size, *scales[1:]]
    of_y = magnitude if function == "maximum" else (weight + 2.0) * (magnitude + 1.0)
    return result.values[0], list(gradients.inputs), [of_y if function != "acon" else magnitude * (p1 + p2), *scales]
