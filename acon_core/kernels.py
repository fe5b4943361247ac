"""The kernel library on the CPU: whether it is there, and how arrays are laid out for it.

`acon-kernels` (the folder kernels/) computes the gated functions and their gradients. A backend
asks for a `Plan`, once for each signature of a call, and runs it on the memory of its tensors.
Without the library, or where there is no plan, a backend computes the same formula by operations of
its framework.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_int, c_int32, c_int64, c_uint, c_void_p
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import Any, ClassVar

from acon_core.errors import AconError
from acon_core.spec.gated import check_gate
from acon_core.spec.param import Shape

FUNCTIONS = ("acon", "slopes", "attention_slopes", "branches", "two_lines", "maximum")
"""The functions of the library; the position is the number in kernels.h."""

DTYPES = ("float32", "float64", "bfloat16", "float16")
"""The storage types of x; the position is the number in kernels.h."""

INTERFACE = 1
"""The version of kernels.h that this module is written for."""

Gate = Shape | float
"""The shape of a gate, or its value where it is a constant."""

_MAX_GATES = 4
_MAX_SIZES = 3
_LIKE_X = 8
_VECTORS = {16: "128-bit vectors", 32: "256-bit vectors", 64: "512-bit vectors"}


class _CPlan(Structure):
    _fields_ = (("function", c_int32), ("type", c_int32), ("sizes", c_int64 * _MAX_SIZES), ("covers", c_int32 * _MAX_GATES))


_Pointers = c_void_p * _MAX_GATES


@cache
def turned_off() -> bool:
    """Say whether ``ACON_KERNELS=0`` turns all kernels off; it is read once.

    Returns
    -------
    bool
        Whether the formulas are to be used.
    """
    return os.environ.get("ACON_KERNELS") == "0"


@cache
def _load() -> tuple[Any, str]:
    """Return the loaded library, or None, and a text on the outcome."""
    if turned_off():
        return None, "turned off by ACON_KERNELS=0"
    if find_spec("acon_kernels") is None:
        return None, "acon-kernels is not installed"
    package = import_module("acon_kernels")
    if package.INTERFACE != INTERFACE:
        found = f"acon-kernels {package.__version__} has interface {package.INTERFACE}"
        return None, f"{found}, expected {INTERFACE}; install the version of this release"
    try:
        loaded = ctypes.CDLL(str(package.library))
    except OSError as error:
        return None, f"{package.library} cannot be loaded: {error}"
    apply = loaded.acon_apply
    apply.argtypes = [
        POINTER(_CPlan), c_void_p, c_void_p, POINTER(c_void_p), c_void_p, POINTER(c_void_p), c_uint, c_void_p,
    ]  # fmt: skip
    apply.restype = c_int
    width = apply(None, None, None, None, None, None, 0, None)
    return loaded, f"acon-kernels {package.__version__} with {_VECTORS[width]}"


def library() -> ctypes.CDLL | None:
    """Return the kernel library, or None where it is not installed or is turned off.

    The environment variable ``ACON_KERNELS=0`` turns it off; it is read once.

    Returns
    -------
    ctypes.CDLL or None
        The library. Its functions are described in kernels/src/kernels.h.
    """
    loaded: ctypes.CDLL | None = _load()[0]
    return loaded


def status() -> str:
    """Say which way the gated functions are computed on a CPU, and why.

    Returns
    -------
    str
        A text such as ``"acon-kernels 0.1.0 with 256-bit vectors"`` or ``"operations of the
        framework: acon-kernels is not installed"``.
    """
    loaded, text = _load()
    return text if loaded else f"operations of the framework: {text}"


@dataclass(frozen=True, eq=False)
class Plan:
    """How the library computes one function for arrays of given shapes.

    Parameters
    ----------
    structure : ctypes.Structure
        The plan in C.
    constants : tuple of ctypes number or None
        The values of constant gates; None for an array.
    like_x : tuple of bool
        Whether a gate has the shape of x. It must have the dtype and the memory order of x too.
        Other gates are C-contiguous, of dtype ``gate_dtype``.
    gate_dtype : str
        ``"float64"`` beside float64, else ``"float32"``.
    """

    structure: Any
    constants: tuple[Any, ...]
    like_x: tuple[bool, ...]
    gate_dtype: str
    runs: ClassVar[int] = 0
    """How often the library has run in this process."""

    @cached_property
    def _constant_addresses(self) -> tuple[int | None, ...]:
        """The address of each constant, None for an array; empty without constants."""
        if all(constant is None for constant in self.constants):
            return ()
        return tuple(None if constant is None else ctypes.addressof(constant) for constant in self.constants)

    def run(
        self,
        x: int,
        gates: Sequence[int | None],
        out: int | None,
        g: int | None = None,
        dgates: Sequence[int | None] = (),
        threads: int = 1,
        parallel: int | None = None,
    ) -> None:
        """Compute the function, or with `g` its gradients, on memory given by addresses.

        Parameters
        ----------
        x, gates, out : int
            Addresses of the input, of each gate (None for a constant) and of the result: y, or dx
            if `g` is given (None if dx is not needed).
        g : int, optional
            Address of the gradient of y.
        dgates : sequence of int or None
            Addresses of the gradients of the gates; None for one that is not needed.
        threads : int
            Number of threads that `parallel` starts.
        parallel : int, optional
            Address of a function with the signature of GOMP_parallel. Without one, a single thread
            works.

        Raises
        ------
        MemoryError
            If there is no memory for partial sums.
        """
        if self._constant_addresses:
            gates = [gate or constant for gate, constant in zip(gates, self._constant_addresses, strict=True)]
        apply = _load()[0].acon_apply
        code = apply(self.structure, x, g, _Pointers(*gates), out, _Pointers(*dgates), threads, parallel)
        Plan.runs += 1
        if code == 1:
            raise MemoryError("acon-kernels: no memory for partial sums")
        if code:
            raise AconError(f"acon-kernels refused a plan (code {code}); set ACON_KERNELS=0 and report this")


def _covered(gate: Shape, x: Shape, channel_axis: int) -> frozenset[int]:
    """Return the axes of x along which a gate varies; axes of size 1 do not count."""
    if prod(gate) == 1:
        return frozenset()
    batch = len(gate) > 1 and gate[0] == x[0] and x[0] != 1
    channels = prod(gate[1:] if len(gate) > 1 else gate) != 1
    return frozenset([0] * batch + [channel_axis] * channels)


def _memory_order(shape: Shape, strides: Shape | None) -> list[int] | None:
    """Return the axes of size other than 1, outermost first, or None if there are gaps."""
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    if strides is None or 0 in shape:
        return axes
    axes.sort(key=lambda axis: -strides[axis])
    expected = 1
    for axis in reversed(axes):
        if strides[axis] != expected:
            return None
        expected *= shape[axis]
    return axes


@lru_cache(maxsize=4096)
def plan(
    function: str, dtype: str, shape: Shape, gates: tuple[Gate, ...], channel_axis: int, strides: Shape | None = None
) -> Plan | None:
    """Plan a call of the library, or return None without it: `geometry` has the rest.

    Parameters
    ----------
    function, dtype, shape, gates, channel_axis, strides
        As for `geometry`.

    Returns
    -------
    Plan or None
        None without the library, and where `geometry` is None.
    """
    found = geometry(function, dtype, shape, gates, channel_axis, strides)
    return None if library() is None else found


@lru_cache(maxsize=4096)
def geometry(
    function: str, dtype: str, shape: Shape, gates: tuple[Gate, ...], channel_axis: int, strides: Shape | None = None
) -> Plan | None:
    """Plan a call of any kernel, of the library or on a GPU, or return None where none serves it.

    Parameters
    ----------
    function : str
        One of `FUNCTIONS`.
    dtype : str
        The dtype of x. Without one of `DTYPES` there is no plan.
    shape : tuple of int
        Shape of x, the batch first.
    gates : tuple of (tuple of int or float)
        Shape of each gate, or its value where it is a constant, in the order of kernels.h.
    channel_axis : int
        Axis of the channels of x.
    strides : tuple of int, optional
        Strides of x in elements. C order by default.

    Returns
    -------
    Plan or None
        None for arrays with gaps, and for gates that need more than three merged sizes. Only
        `Plan.run` needs the library.

    Raises
    ------
    SpecError
        If the shape of a gate does not fit x.
    """
    for gate in gates:
        if isinstance(gate, tuple) and gate != shape:
            check_gate(gate, shape, channel_axis)
    order = _memory_order(shape, strides)
    if dtype not in DTYPES or len(shape) < 2 or order is None:
        return None
    channel_axis %= len(shape)
    small = tuple(size if axis in (0, channel_axis) else 1 for axis, size in enumerate(shape))
    like_x = tuple(gate == shape and gate != small for gate in gates)
    if any(like_x[:-1]):
        return None
    covers = [
        frozenset() if like or not isinstance(gate, tuple) else _covered(gate, shape, channel_axis)
        for gate, like in zip(gates, like_x, strict=True)
    ]
    if any({0, channel_axis} <= cover for cover in covers) and order.index(0) > order.index(channel_axis):
        return None  # the gate is dense in another order than x
    runs: list[tuple[tuple[bool, ...], int]] = []
    for axis in order:
        covering = tuple(axis in cover for cover in covers)
        if runs and runs[-1][0] == covering:
            runs[-1] = covering, runs[-1][1] * shape[axis]
        else:
            runs.append((covering, shape[axis]))
    if len(runs) > _MAX_SIZES:
        return None
    runs = [((False,) * len(gates), 1)] * (_MAX_SIZES - len(runs)) + runs
    bits = [
        _LIKE_X if like else sum(covering[gate] << size for size, (covering, _) in enumerate(runs))
        for gate, like in enumerate(like_x)
    ]
    gate_dtype = "float64" if dtype == "float64" else "float32"
    number = ctypes.c_double if dtype == "float64" else ctypes.c_float
    return Plan(
        _CPlan(
            FUNCTIONS.index(function),
            DTYPES.index(dtype),
            (c_int64 * _MAX_SIZES)(*(size for _, size in runs)),
            (c_int32 * _MAX_GATES)(*bits),
        ),
        tuple(None if isinstance(gate, tuple) else number(gate) for gate in gates),
        like_x,
        gate_dtype,
    )
