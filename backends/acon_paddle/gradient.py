"""Hand-written gradients of the gated functions: a PyLayer, which keeps the arguments only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.jit import not_to_static
from paddle.utils import flatten

from acon_core.errors import AconError, DtypeError
from acon_core.spec import check_gate
from acon_paddle import kernels

Gate = Tensor | float
Terms = Iterable[Tensor | None]

# The largest |z| for which z * sigmoid(z) * sigmoid(-z) is formed. Beyond it the product is 0, but
# infinity * 0 would be NaN.
BOUND = 3e38

_FAILED_TRACES: list[Any] = []


def keep_trace() -> None:
    """Keep the program of a trace that is about to fail; call it before raising.

    Paddle remembers the tensors of a trace by the id of its program, also after a failure. If the
    program were freed, the next one could get its id, and would crash the process.
    """
    if not paddle.in_dynamic_mode():
        _FAILED_TRACES.append(paddle.static.default_main_program())


@not_to_static
def ensure(check: Callable[..., Any], *arguments: Any) -> None:
    """Run a check that raises AconError. In a trace, sizes that are left open are -1."""
    try:
        check(*arguments)
    except AconError:
        keep_trace()
        raise


_FLOATING = (paddle.float32, paddle.float16, paddle.bfloat16, paddle.float64)


def is_floating(x: Tensor) -> bool:
    """Return whether the dtype is one of floating point."""
    return x.dtype in _FLOATING


@not_to_static
def check_floating(function: str, x: Tensor) -> None:
    """Raise DtypeError for integers and booleans."""
    if not is_floating(x):
        keep_trace()
        raise DtypeError.at(function, x.dtype)


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (paddle.float16, paddle.bfloat16)


@not_to_static
def upcast_half(*values: Tensor) -> list[Tensor]:
    """Convert 16-bit tensors to float32: sums round too much, and float16 has no BOUND."""
    return [value.astype("float32") if _is_half(value) else value for value in values]


@not_to_static
def to_rank(gate: Gate, x: Tensor, channel_axis: int) -> Tensor:
    """Reshape a gate so that it broadcasts against x; make a constant of a number.

    (1,) applies to all of x, (C,) and (1 or N, 1 or C, ...) to batch and channels, and the shape of
    x to each element. There are no leading ones: Paddle multiplies by (C, 1, 1) fifteen times as
    fast as by (1, C, 1, 1). Raises SpecError for any other shape.
    """
    if isinstance(gate, int | float):
        return paddle.full([], gate, "float32" if _is_half(x) else x.dtype)
    ensure(check_gate, tuple(gate.shape), tuple(x.shape), channel_axis)
    if list(gate.shape) == list(x.shape):
        return gate
    if all(size == 1 for size in gate.shape):
        return gate.reshape([])
    shape = [1] * x.ndim
    shape[channel_axis] = gate.shape[1] if gate.ndim > 1 else gate.shape[0]
    if gate.ndim > 1:
        shape[0] = gate.shape[0]
    while len(shape) > 1 and shape[0] == 1:
        del shape[0]
    return gate.reshape(shape)


@dataclass(frozen=True)
class Rule:
    """An elementwise function of x and of gates that broadcast against it, with its gradient.

    `value(x, *gates)` is the function. `pullback(needed, g, x, *gates)` yields one term per
    argument, g times the derivative, in any shape that sums to the argument's; None where `needed`
    is False. Terms are summed one by one, so that only one of the size of x exists at a time. Both
    get 16-bit values in float32. `kernel` is its name in the kernel library.
    """

    value: Callable[..., Tensor]
    pullback: Callable[..., Terms]
    kernel: str = ""


class _Dynamic(PyLayer):
    """A call in dynamic mode as one operation of its trainable tensors.

    They are one list: of several arguments, `paddle.grad` with respect to some would refuse the
    gradients of the others.
    """

    @staticmethod
    def forward(ctx: Any, how: tuple[Any, ...], trainable: list[Tensor]) -> Tensor:
        tensors, value, ctx.gradients, ctx.needed = how
        ctx.save_for_backward(*tensors)
        return value(tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[list[Tensor]]:
        return ([each for each in ctx.gradients(ctx.needed, g, ctx.saved_tensor()) if each is not None],)


def _run(tensors: Sequence[Tensor], value: Callable[..., Tensor], gradients: Callable[..., Sequence[Tensor | None]]) -> Tensor:
    """Return value(tensors), with the gradients that `gradients(needed, g, tensors)` returns."""
    needed = [not tensor.stop_gradient for tensor in tensors]
    if True in needed and paddle.is_grad_enabled():
        y: Tensor = _Dynamic.apply((tensors, value, gradients, needed), list(compress(tensors, needed)))
        return y
    return value(tensors)


class _Traced(PyLayer):
    """A rule in a trace, which has no list. Its methods call what to_static leaves alone."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, *arguments: Tensor) -> Tensor:
        return _traced_value(ctx, rule, arguments)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _traced_gradients(ctx, g)


@not_to_static
def _traced_value(ctx: Any, rule: Rule, arguments: Any) -> Tensor:
    arguments = flatten(arguments)  # to_static passes a tuple of a tuple
    ctx.save_for_backward(*arguments)
    # Paddle only accepts None as the gradient of a frozen argument. A trace forgets which are.
    ctx.rule, ctx.needed = rule, [not argument.stop_gradient for argument in arguments]
    return _value(rule, arguments)


@not_to_static
def _traced_gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return _pull(ctx.rule, ctx.needed, g, ctx.saved_tensor())


def _value(rule: Rule, arguments: Sequence[Tensor]) -> Tensor:
    return rule.value(*upcast_half(*arguments)).astype(arguments[0].dtype)


def _pull(rule: Rule, needed: Sequence[bool], g: Tensor, arguments: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    terms = rule.pullback(needed, *upcast_half(g, *arguments))
    return tuple(None if term is None else _sum_to(term, like) for term, like in zip(terms, arguments, strict=True))


def _pull_kernel(
    rule: Rule, call: kernels.Call, channel_axis: int, needed: Sequence[bool], g: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    if not paddle.is_grad_enabled():
        return kernels.gradients(call, needed, g, tensors)
    # With create_graph, these gradients are differentiated: they are the formula's.
    given, wanted = iter(tensors), iter(needed)
    x, *gates = [next(given) if number is None else number for number in call.fixed]
    of_each = [next(wanted) if number is None else False for number in call.fixed]
    terms = _pull(rule, of_each, g, [x, *(to_rank(gate, x, channel_axis) for gate in gates)])
    of_tensors = [term for term, number in zip(terms, call.fixed, strict=True) if number is None]
    return tuple(t if t is None else t.reshape(like.shape) for t, like in zip(of_tensors, tensors, strict=True))


@not_to_static
def by_kernel(rule: Rule, x: Tensor, gates: Sequence[Gate], channel_axis: int) -> Tensor | None:
    """Compute a rule by the kernel library, or return None where the library does not serve it."""
    call = kernels.usable(rule.kernel, x, gates, channel_axis)
    if call is None:
        return None
    tensors = [x, *[gate for gate in gates if isinstance(gate, Tensor)]]
    return _run(tensors, partial(kernels.value, call), partial(_pull_kernel, rule, call, channel_axis))


@not_to_static
def _ranked(x: Tensor, gates: Any, channel_axis: int) -> list[Tensor]:
    return [to_rank(gate, x, channel_axis) for gate in flatten(gates)]


def gated(rule: Rule, x: Tensor, *gates: Gate, channel_axis: int = 1) -> Tensor:
    """Compute a rule of gates of any accepted shape, with its gradient."""
    y = by_kernel(rule, x, gates, channel_axis)
    return apply(rule, x, *_ranked(x, gates, channel_axis)) if y is None else y


def apply(rule: Rule, x: Tensor, *gates: Tensor) -> Tensor:
    """Compute a rule by operations of Paddle, with its gradient."""
    if paddle.in_dynamic_mode():
        return _run((x, *gates), partial(_value, rule), partial(_pull, rule))
    y: Tensor = _Traced.apply(rule, x, *gates)
    return y


def _sum_to(term: Tensor, like: Tensor) -> Tensor:
    """Sum a term to the shape of its argument; Paddle would accept any shape.

    In float64: in float32, Paddle's sum over a few thousand elements is off by 7e-6.
    """
    lead = term.ndim - like.ndim
    axes = [axis for axis in range(term.ndim) if axis < lead or (like.shape[axis - lead] == 1 and term.shape[axis] != 1)]
    return (term.sum(axes, dtype="float64").reshape(like.shape) if axes else term).astype(like.dtype)
