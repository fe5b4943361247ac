"""Hand-written gradients of the gated functions: one Function, which keeps the arguments only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any

import megengine.functional as F
import numpy as np
from megengine import Tensor
from megengine.autodiff import Function
from megengine.core.tensor.dtype import bfloat16

from acon_core.errors import DtypeError
from acon_core.spec import check_gate

Gate = Tensor | float
Terms = Sequence[Tensor | None]

# The largest |z| for which z * sigmoid(z) * sigmoid(-z) is formed. Beyond it the product is 0, but
# infinity * 0 would be NaN.
BOUND = 3e38

_FLOATING = {np.dtype("float32"), np.dtype("float16"), np.dtype(bfloat16)}


def is_floating(x: Tensor) -> bool:
    """Return whether the dtype is one of floating point."""
    return x.dtype in _FLOATING


def check_floating(function: str, x: Tensor) -> None:
    """Raise DtypeError for integers and booleans."""
    if not is_floating(x):
        raise DtypeError.at(function, x.dtype)


def bounded(z: Tensor) -> Tensor:
    """Clip z to +-BOUND. F.clip is not vectorised on CPU."""
    return F.minimum(F.maximum(z, -BOUND), BOUND)


def above(x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0. Comparisons are not vectorised: ten times slower."""
    return F.relu(F.sign(x))


def upcast_half(*values: Gate) -> list[Any]:
    """Convert 16-bit tensors to float32: sums round too much, and float16 has no BOUND."""
    return [value.astype("float32") if isinstance(value, Tensor) else value for value in values]


def to_rank(gate: Gate, x: Tensor, channel_axis: int) -> Gate:
    """Reshape a gate so that it broadcasts against x; numbers stay as they are.

    (1,) applies to all of x, (C,) and (1 or N, 1 or C, ...) to batch and channels, and the shape of
    x to each element. Raises SpecError for any other shape.
    """
    if not isinstance(gate, Tensor):
        return float(gate)
    check_gate(gate._tuple_shape, x._tuple_shape, channel_axis)
    if gate._tuple_shape == x._tuple_shape or (gate.ndim == x.ndim and channel_axis == 1):
        return gate
    kept = {channel_axis % x.ndim}
    if gate.ndim > 1:
        gate = F.squeeze(gate, list(range(2, gate.ndim))) if gate.ndim > 2 else gate
        kept.add(0)
    new = [axis for axis in range(x.ndim) if axis not in kept]
    return F.expand_dims(gate, new) if new else gate


def sum_to(term: Tensor, like: Tensor) -> Tensor:
    """Sum a term to the shape of its argument, in its dtype.

    MegEngine's own gradient of a broadcast races on CPU: where tensors are small and many, up to
    8 % of the sums are garbage (1.13.0, unless under trace or with `async_level` 0). Sums over one
    axis at a time are right.
    """
    # Under trace, `shape` is a tensor; `_tuple_shape` is known while tracing.
    for axis, size in reversed(list(enumerate(like._tuple_shape))):
        if size == 1:
            term = F.sum(term, axis, keepdims=True)
    return term.astype(like.dtype)


@dataclass(frozen=True)
class Rule:
    """A function of x and of gates that broadcast against it, in the dtype of x, with its gradient.

    `value(x, *gates)` is the function. `pullback(g, x, *gates)` returns one term per argument, g
    times the derivative, in any shape that sums to the argument's; None for no gradient. Both get
    16-bit values in float32. Tensors have the rank of x; terms of numbers are ignored.
    """

    value: Callable[..., Tensor]
    pullback: Callable[..., Terms]

    def __call__(self, x: Tensor, *gates: Gate) -> Tensor:
        return call(self.evaluate, self.gradients, x, *gates)

    def evaluate(self, x: Tensor, *gates: Gate) -> Tensor:
        """Return the value in the dtype of x."""
        return self.value(*upcast_half(x, *gates)).astype(x.dtype)

    def gradients(self, g: Tensor, *arguments: Gate) -> list[Tensor | None]:
        """Return the gradient of each argument in its shape and dtype, or None if it has none."""
        terms = self.pullback(*upcast_half(g, *arguments))
        return [
            None if term is None or not isinstance(like, Tensor) else sum_to(term, like)
            for term, like in zip(terms, arguments, strict=True)
        ]


class _Function(Function):
    """One call of a function with hand-written gradients."""

    def __init__(self, value: Callable[..., Tensor], gradients: Callable[..., Terms], arguments: Sequence[Gate]) -> None:
        self.value, self.gradients = value, gradients
        # Not the tensors: those that `forward` gets are kept, without a graph behind them.
        self.fixed = [None if isinstance(each, Tensor) else each for each in arguments]

    def forward(self, *tensors: Tensor) -> Tensor:
        self.saved = tensors
        return self.value(*self._arguments())

    def backward(self, g: Tensor) -> tuple[Tensor | None, ...]:
        found = self.gradients(g, *self._arguments())
        return tuple(each for each, fixed in zip(found, self.fixed, strict=True) if fixed is None)

    def _arguments(self) -> list[Any]:
        tensors = iter(self.saved)
        return [next(tensors) if fixed is None else fixed for fixed in self.fixed]


def call(value: Callable[..., Tensor], gradients: Callable[..., Terms], *arguments: Gate) -> Tensor:
    """Return `value(*arguments)`, with `gradients(g, *arguments)`, one for each argument."""
    tensors = [each for each in arguments if isinstance(each, Tensor)]
    # MegEngine mixes up the calls of an instance that is used twice.
    y: Tensor = _Function(value, gradients, arguments)(*tensors)
    return y


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias of the rank of x; its gradient is summed by `sum_to`."""
    return Rule(add, lambda g, x, bias: (g, g))(x, bias)
