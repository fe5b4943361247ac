"""What the functions share: 16-bit tensors made wide, exact numbers, gates brought to the rank of x, gradients summed back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import paddle
from paddle import Tensor
from paddle.jit import not_to_static

from acon_core.errors import SpecError
from acon_core.spec import check_gate

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38

_FAILED_TRACES: list[Any] = []


def keep_trace() -> None:
    """To be called before an error. Paddle remembers the tensors of a trace by the id of its program, and does not forget
    them when the trace fails. Were the program freed, the next could have its id, and would crash the process."""
    if not paddle.in_dynamic_mode():
        _FAILED_TRACES.append(paddle.static.default_main_program())


@not_to_static
def ensure(check: Callable[..., Any], *arguments: Any) -> None:
    """Run a check of shapes, in a trace too, where sizes left open are -1. Raises SpecError where it does."""
    try:
        check(*arguments)
    except SpecError:
        keep_trace()
        raise


@not_to_static
def constant(value: float, like: Tensor) -> Tensor:
    """A number in the dtype of a tensor: as a Python float, to_static would round it to float32."""
    return paddle.full([], value, like.dtype)


@not_to_static
def exp(z: Tensor) -> Tensor:
    """exp(z), and 0 where it is below the smallest normal number: Paddle's own stops there, at 1e-38 in float32, which times
    3e38 is not nothing."""
    return paddle.exp(z) * (z > (-708 if z.dtype == paddle.float64 else -87)).astype(z.dtype)


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.dtype in (paddle.float16, paddle.bfloat16)


@not_to_static
def wide(*tensors: Tensor) -> list[Tensor]:
    """16-bit tensors in float32: the sums would round too much, and the bound on z does not exist in float16."""
    return [tensor.astype("float32") if _is_narrow(tensor) else tensor for tensor in tensors]


@not_to_static
def to_rank(gate: Tensor | float, x: Tensor, channel_axis: int) -> Tensor:
    """A number, (1,), (C,), (1 or N, 1 or C, 1, 1) or the shape of x as something that broadcasts against x.

    Without leading ones: Paddle multiplies by (C, 1, 1) fifteen times as fast as by (1, C, 1, 1). A number is a constant,
    frozen like any other, so that it has no gradient. Raises SpecError for a tensor of another shape.
    """
    if isinstance(gate, int | float):
        return paddle.full([], gate, "float32" if _is_narrow(x) else x.dtype)
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


@not_to_static
def keep(ctx: Any, *tensors: Tensor) -> None:
    """Keep the arguments of a PyLayer for its backward pass, and which of them are frozen: in a trace, what is saved does
    not say."""
    ctx.save_for_backward(*tensors)
    ctx.frozen = [tensor.stop_gradient for tensor in tensors]


@not_to_static
def gradient(term: Tensor, like: Tensor) -> Tensor:
    """The term summed to the shape that it is the gradient of; Paddle would take any shape.

    Added up in float64: in float32, Paddle's sum over a few thousand elements is wrong by 7e-6.
    """
    lead = term.ndim - like.ndim
    axes = [axis for axis in range(term.ndim) if axis < lead or (like.shape[axis - lead] == 1 and term.shape[axis] != 1)]
    return (term.sum(axes, dtype="float64").reshape(like.shape) if axes else term).astype(like.dtype)


@not_to_static
def gradients(
    saved: Sequence[Tensor], frozen: Sequence[bool], terms: Sequence[Callable[[], Tensor]]
) -> tuple[Tensor | None, ...]:
    """What a PyLayer's backward returns: the gradient of each argument, from the term that it is the sum of, and None,
    with nothing computed, for those that are frozen: Paddle takes nothing else for them."""
    rows = zip(saved, frozen, terms, strict=True)
    return tuple(None if stop else gradient(term(), like) for like, stop, term in rows)
