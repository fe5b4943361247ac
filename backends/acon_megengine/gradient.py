"""The one mechanism of our hand-written gradients: arguments that broadcast, kept alone, and sums that repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add
from typing import Any

import megengine.functional as F
from megengine import Tensor
from megengine.autodiff import Function

from acon_core import spec

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38


def bounded(z: Tensor) -> Tensor:
    """`z` held within +-BOUND. F.clip does the same, but is not vectorised on CPU."""
    return F.minimum(F.maximum(z, -BOUND), BOUND)


def above(x: Tensor) -> Tensor:
    """1 where x > 0, else 0. Comparisons and F.where are not vectorised on CPU: they take ten times as long."""
    return F.relu(F.sign(x))


def to_rank(gate: Tensor, x: Tensor, channel_axis: int) -> Tensor:
    """(1,), (C,), (1 or N, 1 or C, 1, 1) or x's own shape as something of x's rank, with the channels at `channel_axis`.

    Raises SpecError for any other shape, before it broadcasts.
    """
    spec.check_gate(gate._tuple_shape, x._tuple_shape, channel_axis)
    if gate._tuple_shape == x._tuple_shape or (gate.ndim == x.ndim and channel_axis == 1):
        return gate
    kept = {channel_axis % x.ndim}
    if gate.ndim > 1:
        gate = F.squeeze(gate, list(range(2, gate.ndim))) if gate.ndim > 2 else gate
        kept.add(0)
    new = [axis for axis in range(x.ndim) if axis not in kept]
    return F.expand_dims(gate, new) if new else gate


def sum_to(term: Tensor, like: Tensor) -> Tensor:
    """What broadcasting does to a gradient: summed to the shape of `like`, in its dtype.

    MegEngine's own way back from a broadcast races on CPU: where tensors are small and many, some sums come out as garbage
    (1.13.0, 8 % of them at worst, unless under trace or with `async_level` 0). Sums over one axis at a time do not.
    """
    # Under trace, `shape` is a tensor; `_tuple_shape` is known while tracing.
    for axis, size in reversed(list(enumerate(like._tuple_shape))):
        if size == 1:
            term = F.sum(term, axis, keepdims=True)
    return term.astype(like.dtype)


class _Custom(Function):
    """See `custom`. MegEngine mixes calls up when an instance is used twice, so `custom` makes one for each."""

    def __init__(self, value: Callable[..., Tensor], gradient: Callable[..., Sequence[Tensor | None]], given: tuple[Any, ...]):
        self.value, self.gradient = value, gradient
        # Tensors are left out: those that forward is called with are to be kept, without a graph behind them.
        self.fixed = [None if isinstance(each, Tensor) else each for each in given]

    def forward(self, *tensors: Tensor) -> Tensor:
        self.saved = tensors
        return self.value(*self._arguments()).astype(tensors[0].dtype)

    def backward(self, g: Tensor) -> tuple[Tensor | None, ...]:
        terms = self.gradient(g.astype("float32"), *self._arguments())
        taken = [term for term, fixed in zip(terms, self.fixed, strict=True) if fixed is None]
        return tuple(None if term is None else sum_to(term, like) for term, like in zip(taken, self.saved, strict=True))

    def _arguments(self) -> list[Any]:
        """Every argument: 16-bit tensors in float32, where sums do not round as much and BOUND exists."""
        tensors = iter(self.saved)
        return [next(tensors).astype("float32") if fixed is None else fixed for fixed in self.fixed]


def custom(
    value: Callable[..., Tensor], gradient: Callable[..., Sequence[Tensor | None]], *arguments: Tensor | float
) -> Tensor:
    """`value(*arguments)` in the dtype of the first, with the gradient by hand; for it, the arguments alone are kept.

    `gradient(g, *arguments)` gives a term an argument, which is summed to the argument's shape; None where there is none.
    Tensors broadcast against the first and have its rank; numbers are fixed: what their terms are does not matter.
    """
    tensors = [each for each in arguments if isinstance(each, Tensor)]
    made: Tensor = _Custom(value, gradient, arguments)(*tensors)
    return made


def shift_by(x: Tensor, bias: Tensor) -> Tensor:
    """x + bias, with the gradient of the bias that `sum_to` has right. bias: x's rank."""
    return custom(add, lambda g, x, bias: (g, g), x, bias)
