"""ACON on Paddle tensors: overflow-safe forward, closed-form gradient that keeps the input alone; SiLU the same way."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.jit import not_to_static

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38


@not_to_static
def _to_rank(gate: Tensor, x: Tensor, channel_axis: int) -> Tensor:
    """(1 or N, C, 1, 1) or (C,) as something that broadcasts against x with the channels at `channel_axis`.

    Without leading ones: Paddle multiplies by (C, 1, 1) fifteen times as fast as by (1, C, 1, 1).
    """
    shape = [1] * x.ndim
    shape[channel_axis] = gate.shape[1] if gate.ndim > 1 else gate.shape[0]
    if gate.ndim > 1:
        shape[0] = gate.shape[0]
    while len(shape) > 1 and shape[0] == 1:
        del shape[0]
    return gate.reshape(shape)


@not_to_static
def _wide(*tensors: Tensor) -> list[Tensor]:
    """16-bit tensors in float32: the sums would round too much, and the bound on z does not exist in float16."""
    return [tensor.astype("float32") if tensor.dtype in (paddle.float16, paddle.bfloat16) else tensor for tensor in tensors]


@not_to_static
def _gradient(term: Tensor, like: Tensor, frozen: bool) -> Tensor | None:
    """The term summed to the shape that it is the gradient of; Paddle would take any shape, but nothing for a frozen input."""
    if frozen:
        return None
    lead = term.ndim - like.ndim
    axes = [axis for axis in range(term.ndim) if axis < lead or (like.shape[axis - lead] == 1 and term.shape[axis] != 1)]
    return (term.sum(axes).reshape(like.shape) if axes else term).astype(like.dtype)


class _Acon(PyLayer):
    """x (p2 + (p1 - p2) s), s = sigmoid(beta (p1 - p2) x), with arguments that broadcast against x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(x, p1, p2, beta)
        ctx.frozen = [tensor.stop_gradient for tensor in (x, p1, p2, beta)]
        dtype = x.dtype
        x, p1, p2, beta = _wide(x, p1, p2, beta)
        slope = p1 - p2
        return (x * (p2 + slope * F.sigmoid((beta * slope) * x))).astype(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensor()
        g, x, p1, p2, beta = _wide(g, *saved)
        slope = p1 - p2
        z = (beta * slope) * x
        s, t = F.sigmoid(z), F.sigmoid(-z)
        st = s * t
        bend = z.clip(-BOUND, BOUND) * st
        to_p1, to_p2 = s + bend, t - bend
        gx = g * x
        terms = (g * (p1 * to_p1 + p2 * to_p2), gx * to_p1, gx * to_p2, gx * (slope * (x * (slope * st))))
        return tuple(map(_gradient, terms, saved, ctx.frozen))


def acon(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`, the batch first. p1, p2, beta: (C,) or (1 or N, C, 1, 1). Returns the shape and
    dtype of x; 16-bit inputs are computed in float32. Smooth: no kinks. For the backward pass it keeps its arguments alone.
    Works under paddle.jit.to_static; Paddle differentiates it once only, since it has no second derivative of a PyLayer.
    Source: Ma et al. 2021, equation 8.
    """
    y: Tensor = _Acon.apply(x, *(_to_rank(gate, x, channel_axis) for gate in (p1, p2, beta)))
    return y


class _SiLU(PyLayer):
    """x s, s = sigmoid(x), whose derivative is s + x s sigmoid(-x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        (wide,) = _wide(x)
        return (wide * F.sigmoid(wide)).astype(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensor()
        wide_g, wide = _wide(g, x)
        s, t = F.sigmoid(wide), F.sigmoid(-wide)
        return (wide_g * (s + wide * (s * t))).astype(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU: y = x sigmoid(x), of any shape, with a gradient that is right for every finite x.

    Paddle's own `silu` has the gradient NaN below -88.7 (float32) or -710 (float64), its `swish` 0 where 1 is right (3e38).
    Keeps x alone for the backward pass. Works under paddle.jit.to_static; Paddle differentiates it once only.
    """
    y: Tensor = _SiLU.apply(x)
    return y
