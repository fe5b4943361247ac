"""Rules that kernels compute: eagerly, or by an operator in compiled code.

On a CPU it is the kernel library, on a CUDA GPU Triton's kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from acon_core import kernels
from acon_core.kernels import Plan
from acon_torch.gradient import Gate, Rule, is_differentiated, to_rank

_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_TYPES = (Tensor, torch.nn.Parameter)
_MAX_GATES = 4
Tensors = Sequence[Tensor | None]

# Names of PyTorch that are not public. Where one is missing, the formula is used.
_keys: Any = getattr(torch._C, "_dispatch_keys", None)
_thread_keys: Any = getattr(torch._C, "_dispatch_tls_local_include_set", None)
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: True)
_AVAILABLE = bool(_keys and _thread_keys and hasattr(forward_ad, "_current_level"))
_NO_MODE: list[Any] = []
for _inference in (False, True) if _AVAILABLE else ():
    with torch.inference_mode(_inference):
        _NO_MODE.append(_thread_keys())
# Compiled code calls the operator on a CPU alone: on a GPU, with PyTorch 2.11, it failed.
_COMPILES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)
_TRITON = torch.version.cuda and find_spec("triton") and not kernels.turned_off()
# The types of devices that have kernels.
_SERVED = [device for device, there in (("cpu", kernels.library()), ("cuda", _TRITON)) if _AVAILABLE and there]
# Starts the threads that PyTorch's own operations use.
_PARALLEL = ctypes.cast(getattr(ctypes.CDLL(None), "GOMP_parallel", None), ctypes.c_void_p).value if _AVAILABLE else None


def _by_library(
    plan: Plan, x: Tensor, gates: Tensors, out: Tensor | None, g: Tensor | None = None, dgates: Tensors = ()
) -> None:
    plan.run(
        x.data_ptr(),
        [None if gate is None else gate.data_ptr() for gate in gates],
        None if out is None else out.data_ptr(),
        None if g is None else g.data_ptr(),
        [None if dgate is None else dgate.data_ptr() for dgate in dgates],
        torch.get_num_threads(),
        _PARALLEL,
    )


@cache
def _runner(device: str) -> Callable[..., None] | None:
    """Return what runs a plan on a type of device, or None where there are no kernels."""
    if device not in _SERVED:
        return None
    if device == "cpu":
        return _by_library
    from acon_torch import triton_kernels

    return triton_kernels.run


@cache
def _plain(device: str) -> list[Any]:
    """Return the dispatch keys of plain tensors on a type of device; none without kernels."""
    found = []
    for inference in (False, True) if _runner(device) else ():
        with torch.inference_mode(inference):
            found.append(_keys(torch.empty(0, device=device)))
    return found


def usable(*values: Tensor) -> bool:
    """Return whether kernels can work on the memory of tensors, here and now.

    The dispatch keys of a tensor tell a plain one from a sparse, negated, batched or wrapped one;
    those of the thread tell whether torch.func, a tracer or a mode such as fake tensors is at work.
    """
    if not _AVAILABLE or _thread_keys() not in _NO_MODE or forward_ad._current_level >= 0:
        return False
    plain = _plain(values[0].device.type)
    for value in values:  # noqa: SIM110  (a generator takes twice as long)
        if type(value) not in _TYPES or _keys(value) not in plain:
            return False
    return True


class Call(NamedTuple):
    """A plan for tensors: x, y, g, dx and gates like x lie in memory with `strides`."""

    run: Callable[..., None]
    plan: Plan
    strides: tuple[int, ...]
    gate_dtype: torch.dtype


@lru_cache(maxsize=4096)
def _find(
    device: str, function: str, channel_axis: int, dtype: torch.dtype, shape: Any, strides: Any, *gates: Any
) -> Call | None:
    run = _runner(device)
    if run is None or 0 in shape:
        return None  # an empty tensor has no address
    # Where x has gaps, it is copied to the memory order of y.
    strides = torch.empty_like(torch.empty_strided(shape, strides, device="meta")).stride()
    # As in to_rank, a gate of one element fits in any shape.
    shapes = tuple(((1,) if gate[0].numel() == 1 else tuple(gate[0])) if isinstance(gate, tuple) else gate for gate in gates)
    plan = kernels.geometry(function, _NAMES.get(dtype, ""), tuple(shape), shapes, channel_axis, strides)
    if plan is None:
        return None
    wide = dtype == torch.float64
    for gate, like_x in zip(gates, plan.like_x, strict=True):
        exact = {dtype} if like_x else _NAMES.keys() - (() if wide else {torch.float64})
        if isinstance(gate, tuple) and gate[1] not in exact:
            return None  # the library would round the gate
    return Call(run, plan, strides, torch.float64 if wide else torch.float32)


def find(function: str, channel_axis: int, x: Tensor, gates: Sequence[Gate]) -> Call | None:
    """Return how the library is called eagerly, or None where the formula is to be used."""
    if not usable(x, *[gate for gate in gates if isinstance(gate, Tensor)]):
        return None
    described = [(gate.shape, gate.dtype) if isinstance(gate, Tensor) else gate for gate in gates]
    return _find(x.device.type, function, channel_axis, x.dtype, x.shape, x.stride(), *described)


def _new(call: Call, like: Tensor) -> Tensor:
    return torch.empty_like(like) if like.stride() == call.strides else like.new_empty_strided(like.shape, call.strides)


def _arrange(call: Call, value: Tensor) -> Tensor:
    """Bring a tensor of the shape of x into its memory order."""
    return value if value.stride() == call.strides else _new(call, value).copy_(value)


def _arrange_gates(call: Call, gates: Tensors) -> list[Tensor | None]:
    """Return the gates as the library wants them, without a copy where they are so."""
    arranged: list[Tensor | None] = []
    for gate, like_x in zip(gates, call.plan.like_x, strict=False):
        if gate is None or (not like_x and gate.dtype is call.gate_dtype and gate.is_contiguous()):
            arranged.append(gate)
        else:
            arranged.append(_arrange(call, gate) if like_x else gate.to(call.gate_dtype).contiguous())
    return arranged


def value(call: Call, x: Tensor, gates: Tensors) -> Tensor:
    """Compute the function. A gate that is a number is None; the plan has it."""
    y = _new(call, x)
    call.run(call.plan, _arrange(call, x), _arrange_gates(call, gates), y)
    return y


def pull(call: Call, needed: Sequence[bool], g: Tensor, x: Tensor, gates: Tensors) -> list[Tensor | None]:
    """Compute the gradients of x and of the gates; None where not needed."""
    arranged = _arrange_gates(call, gates)
    x, g = _arrange(call, x), _arrange(call, g)
    made = [torch.empty_like(each) if wanted else None for wanted, each in zip(needed, (x, *arranged), strict=False)]
    call.run(call.plan, x, arranged, made[0], g, made[1:])
    for place, gate in enumerate(gates[: len(arranged)], 1):
        gradient = made[place]
        if gradient is not None and gate is not None and gradient.dtype is not gate.dtype:
            made[place] = gradient.to(gate.dtype)
    return made


class _Kernel(torch.autograd.Function):
    """A rule computed by the library. It keeps the arguments only.

    The library's gradients have no gradient themselves: where one is asked for, use the formula.
    """

    @staticmethod
    def forward(
        ctx: Any, rule: KernelRule, axis: int, call: Call | None, numbers: list[float], x: Tensor,
        a: Tensor | None, b: Tensor | None, c: Tensor | None, d: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.rule, ctx.axis, ctx.call, ctx.numbers = rule, axis, call, numbers
        ctx.save_for_backward(x, a, b, c, d)
        if call is None:
            y: Tensor = torch.ops.acon.value(rule.kernel, axis, numbers, x, [a, b, c, d])
            return y
        return value(call, x, (a, b, c, d))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        call, needed, (x, *gates) = ctx.call, ctx.needs_input_grad[4:], ctx.saved_tensors
        gradients: list[Any]
        if call is None:
            made = iter(torch.ops.acon.pull(ctx.rule.kernel, ctx.axis, ctx.numbers, x, gates, g, list(needed)))
            gradients = [next(made) if each else None for each in needed]
        elif torch.is_grad_enabled() or not usable(g, x):
            gradients = ctx.rule.gradients_of(needed, g, x, _join(gates, ctx.numbers), ctx.axis)
        else:
            gradients = pull(call, needed, g, x, gates)
        return None, None, None, None, *gradients, *[None] * (1 + _MAX_GATES - len(gradients))


# Without the work of `Function.apply` for torch.func: a fifth of the time of a small call.
_apply = super(torch.autograd.Function, _Kernel).apply


@dataclass(frozen=True)
class KernelRule(Rule):
    """A rule that the library knows as `kernel`. Gates need not have the rank of x.

    Where the library is not used, it is the formula; or `value` alone, where PyTorch knows the
    gradient of `value` (`native`).
    """

    kernel: str
    native: bool = False

    def __post_init__(self) -> None:
        _RULES[self.kernel] = self

    def __call__(self, x: Tensor, *gates: Gate, channel_axis: int = 1) -> Tensor:
        tensors = [gate if isinstance(gate, Tensor) else None for gate in gates]
        padding = (None,) * (_MAX_GATES - len(gates))
        numbers = [float(gate) for gate in gates if not isinstance(gate, Tensor)]
        if torch.compiler.is_compiling():
            if not _compilable(x, tensors):
                return self._formula(x, gates, channel_axis)
            for gate in gates:
                to_rank(gate, x, channel_axis)  # checks the shape; the operator would fail when it runs
            compiled: Tensor = _Kernel.apply(self, channel_axis, None, numbers, x, *tensors, *padding)
            return compiled
        call = find(self.kernel, channel_axis, x, gates)
        if call is None:
            return self._formula(x, gates, channel_axis)
        if not is_differentiated(x, *tensors):
            return value(call, x, tensors)
        y: Tensor = _apply(self, channel_axis, call, numbers, x, *tensors, *padding)
        return y

    def _formula(self, x: Tensor, gates: Sequence[Gate], axis: int) -> Tensor:
        return self.value(x, *gates) if self.native else super().__call__(x, *(to_rank(gate, x, axis) for gate in gates))

    def gradients_of(
        self, needed: Sequence[bool], g: Tensor, x: Tensor, gates: Sequence[Gate], axis: int
    ) -> list[Tensor | None]:
        """Return the gradients by the formula."""
        made = self.gradients(needed, g, x, *(to_rank(gate, x, axis) for gate in gates))
        return [each if each is None else each.reshape(like.shape) for each, like in zip(made, (x, *gates), strict=True)]


_RULES: dict[str, KernelRule] = {}


def _join(gates: Tensors, numbers: Sequence[float]) -> list[Gate]:
    """Return the gates with numbers in the first places of None."""
    left = iter(numbers)
    joined = [next(left, None) if gate is None else gate for gate in gates]
    return [gate for gate in joined if gate is not None]


def _compilable(x: Tensor, gates: Tensors) -> bool:
    """Return whether compiled code is to call the operator. An exported program has no library."""
    if (
        x.device.type != "cpu"
        or "cpu" not in _SERVED
        or not _COMPILES
        or _is_exporting()
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    return x.ndim > 1 and x.dtype in _NAMES and all(each is None or each.device == x.device for each in gates)


def _value_operator(function: str, axis: int, numbers: list[float], x: Tensor, gates: Tensors) -> Tensor:
    joined = _join(gates, numbers)
    call = find(function, axis, x, joined)
    if call:
        return value(call, x, gates)
    return torch.empty_like(x).copy_(_RULES[function].evaluate(x, *(to_rank(gate, x, axis) for gate in joined)))


def _pull_operator(
    function: str, axis: int, numbers: list[float], x: Tensor, gates: Tensors, g: Tensor, needed: list[bool]
) -> list[Tensor]:
    joined = _join(gates, numbers)
    call = find(function, axis, x, joined)
    if call:
        return [each for each in pull(call, needed, g, x, gates) if each is not None]
    made = [each for each in _RULES[function].gradients_of(needed, g, x, joined, axis) if each is not None]
    likes = _like_gradients(function, axis, numbers, x, gates, g, needed)
    return [like.copy_(each) for like, each in zip(likes, made, strict=True)]


def _like_gradients(function: str, axis: int, numbers: Any, x: Tensor, gates: Tensors, g: Tensor, needed: Any) -> list[Tensor]:
    """Return tensors in the form of the gradients that are needed."""
    return [
        each.new_empty(each.shape) if each.shape != x.shape else torch.empty_like(x, dtype=each.dtype)
        for each, wanted in zip((x, *gates), needed, strict=True)
        if each is not None and wanted
    ]


if _AVAILABLE:
    _library = torch.library.Library("acon", "DEF")
    arguments = "str function, int channel_axis, float[] numbers, Tensor x, Tensor?[] gates"
    _library.define(f"value({arguments}) -> Tensor")
    _library.define(f"pull({arguments}, Tensor g, bool[] needed) -> Tensor[]")
    for _device in ("CPU", "CUDA"):
        _library.impl("value", _value_operator, _device)
        _library.impl("pull", _pull_operator, _device)
    torch.library.register_fake("acon::value", lambda function, axis, numbers, x, gates: torch.empty_like(x), lib=_library)
    torch.library.register_fake("acon::pull", _like_gradients, lib=_library)
