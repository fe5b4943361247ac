"""ACON on MegEngine tensors: overflow-safe forward, closed-form gradient that keeps the input alone."""

from __future__ import annotations

import megengine.functional as F
from megengine import Tensor
from megengine.autodiff import Function

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38


def _to_rank(gate: Tensor, x: Tensor, channel_axis: int) -> Tensor:
    """(1 or N, C, 1, 1) or (C,) as something that broadcasts against x with the channels at `channel_axis`."""
    if gate.ndim == x.ndim and channel_axis == 1:
        return gate
    kept = {channel_axis % x.ndim}
    if gate.ndim > 1:
        gate = F.flatten(gate, 1)
        kept.add(0)
    new = [axis for axis in range(x.ndim) if axis not in kept]
    return F.expand_dims(gate, new) if new else gate


def _wide(*tensors: Tensor) -> list[Tensor]:
    """16-bit tensors in float32: the sums would round too much, and the bound on z does not exist in float16."""
    return [tensor.astype("float32") for tensor in tensors]


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


class _Acon(Function):
    """x (p2 + (p1 - p2) s), s = sigmoid(beta (p1 - p2) x), with arguments that broadcast against x; one call an instance."""

    def forward(self, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        self.saved = (x, p1, p2, beta)
        x, p1, p2, beta = _wide(x, p1, p2, beta)
        slope = p1 - p2
        y = x * (p2 + slope * F.sigmoid((beta * slope) * x))
        return y.astype(self.saved[0].dtype)

    def backward(self, g: Tensor) -> tuple[Tensor, ...]:
        g, x, p1, p2, beta = _wide(g, *self.saved)
        slope = p1 - p2
        z = (beta * slope) * x
        s, t = F.sigmoid(z), F.sigmoid(-z)
        st = s * t
        # F.clip does the same, but is not vectorised on CPU.
        bend = F.minimum(F.maximum(z, -BOUND), BOUND) * st
        to_p1, to_p2, to_beta = s + bend, t - bend, slope * (x * (slope * st))
        gx = g * x
        terms = (g * (p1 * to_p1 + p2 * to_p2), gx * to_p1, gx * to_p2, gx * to_beta)
        return tuple(sum_to(term, like) for term, like in zip(terms, self.saved, strict=True))


def acon(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`, the batch first. p1, p2, beta: (C,) or (1 or N, C, 1, 1). Returns the shape and
    dtype of x; 16-bit inputs are computed in float32. Smooth: no kinks. For the backward pass it keeps its arguments alone.
    Works under trace, symbolic or not; when gates are per sample, batches of 1 and of more need traces of their own for
    gradients (else TraceError). MegEngine's kernels swallow NaN: so does this.
    Source: Ma et al. 2021, equation 8.
    """
    gates = [_to_rank(gate, x, channel_axis) for gate in (p1, p2, beta)]
    y: Tensor = _Acon()(x, *gates)
    return y
