"""Rules that the kernel library computes, on the memory of MegEngine's tensors.

MegEngine works behind Python's back: a thread interprets operations, another runs their kernels.
The library works in Python's thread. So a call first waits for both; what is asked of MegEngine
later comes after it. Results lie in memory that MegEngine allocates, and frees in its own order.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from megengine import Tensor
from megengine.core import get_option
from megengine.core._imperative_rt import core2
from megengine.core.autodiff.grad import Grad
from megengine.core.ops.builtin import FillLike
from megengine.core.tensor.dtype import bfloat16
from megengine.functional import reshape
from megengine.jit.tracing import is_tracing

from acon_core import kernels
from acon_core.kernels import Plan
from acon_megengine.gradient import Gate, Rule, call, to_rank

_NAMES = {np.dtype("float32"): "float32", np.dtype("float16"): "float16", np.dtype(bfloat16): "bfloat16"}

# MegEngine's way to new memory of the form of a tensor, which nothing shares. The results of other
# operations on few values may be constants in shared memory.
_ALLOCATE = FillLike(value=0.0)

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes, _pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p


def usable() -> bool:
    """Return whether operations run now, run once, and need no gradients of their gradients."""
    return not (
        kernels.library() is None
        or is_tracing()
        or core2.is_tracing_module()
        or sum(map(len, Grad.stack)) > 1  # grad managers at work
        or get_option("enable_drop")  # MegEngine may drop a result, and allocate it again
    )


def find(function: str, channel_axis: int, x: Tensor, gates: Sequence[Gate]) -> Plan | None:
    """Return the plan of a call, or None where the formula is to be used."""
    device, shape = x.device, x._tuple_shape
    if 0 in shape or not usable() or not _threads(device) or x.format != "default":
        return None
    tensors = [each for each in (x, *gates) if isinstance(each, Tensor)]
    if any(each.dtype not in _NAMES or each.device != device for each in tensors):
        return None
    shapes = tuple(gate._tuple_shape if isinstance(gate, Tensor) else float(gate) for gate in gates)
    plan = kernels.plan(function, _NAMES[x.dtype], shape, shapes, channel_axis)
    if plan and any(like and gate.dtype != x.dtype for like, gate in zip(plan.like_x, gates, strict=True)):
        return None  # the library would round the gate
    return plan


@cache
def _threads(device: Any) -> int:
    """Return the number of threads of a CPU device; 0 for another."""
    kind, _, threads = device.physical_locator
    return {"cpu": 1, "multithread": threads}.get(kind, 0)


@cache
def _parallel() -> int | None:
    """Return the address of GOMP_parallel, if libgomp is installed."""
    path = ctypes.util.find_library("gomp")
    return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value if path else None


def _run(plan: Plan, g: Tensor | None, x: Tensor, *gates: Any) -> list[Tensor | None]:
    """Return [y], or with `g` the gradients of x and of the gates, None for a number."""
    read = [
        gate if like or not isinstance(gate, Tensor) else gate.astype(plan.gate_dtype)
        for like, gate in zip(plan.like_x, gates, strict=True)
    ]
    written = [
        core2.apply(_ALLOCATE, each)[0] if isinstance(each, Tensor) else None for each in (x, *(read if g is not None else ()))
    ]
    capsules = []  # they hold the memory

    def address(value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        capsules.append(core2._to_dlpack(value))
        return ctypes.c_void_p.from_address(_pointer(capsules[-1], b"dltensor")).value

    at_g, at_x, *at_gates = [address(each) for each in (None if g is None else g.astype(x.dtype), x, *read)]
    out, *dgates = [address(each) for each in written]
    core2.full_sync()
    threads = _threads(x.device)
    plan.run(at_x, at_gates, out, at_g, dgates, threads, _parallel() if threads > 1 else None)
    return [each if each is None else each.astype(like.dtype) for each, like in zip(written, (x, *gates), strict=False)]


@dataclass(frozen=True)
class KernelRule(Rule):
    """A rule that the library knows as `kernel`. Gates have any shape that `to_rank` takes."""

    kernel: str

    def __call__(self, x: Tensor, *gates: Gate, channel_axis: int = 1) -> Tensor:
        plan = find(self.kernel, channel_axis, x, gates)
        if plan is None:
            return super().__call__(x, *(to_rank(gate, x, channel_axis) for gate in gates))
        return call(lambda *arguments: _run(plan, None, *arguments)[0], partial(self._pull, plan, channel_axis), x, *gates)

    def _pull(self, plan: Plan, channel_axis: int, g: Tensor, x: Tensor, *gates: Any) -> list[Tensor | None]:
        if usable():
            return _run(plan, g, x, *gates)
        found = self.gradients(g, x, *(to_rank(gate, x, channel_axis) for gate in gates))
        return [
            each if each is None else reshape(each, like._tuple_shape) for each, like in zip(found, (x, *gates), strict=True)
        ]
