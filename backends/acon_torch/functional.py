"""ACON on PyTorch tensors: overflow-safe forward, closed-form gradient that keeps the input alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38


def _to_rank(gate: Tensor, x: Tensor, channel_axis: int) -> Tensor:
    """(1 or N, C, 1, 1) or (C,) as something that broadcasts against x with the channels at `channel_axis`."""
    shape = [1] * x.ndim
    shape[channel_axis] = gate.shape[1] if gate.ndim > 1 else gate.shape[0]
    if gate.ndim > 1:
        shape[0] = gate.shape[0]
    return gate.reshape(shape)


def _forward(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    slope = p1 - p2
    return x * (p2 + slope * torch.sigmoid((beta * slope) * x))


def _wide(*tensors: Tensor) -> list[Tensor]:
    """16-bit tensors in float32: the sums would round too much, and the bound on z does not exist in float16."""
    return [tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor for tensor in tensors]


def _sum_to(term: Tensor, like: Tensor) -> Tensor:
    return term.sum_to_size(like.shape).to(like.dtype)


class _Acon(torch.autograd.Function):
    """x (p2 + (p1 - p2) s), s = sigmoid(beta (p1 - p2) x), with arguments that broadcast against x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
        return _forward(*_wide(x, p1, p2, beta)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def _slopes(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """d y / d p1 / x, d y / d p2 / x and d y / d beta / x."""
        slope = p1 - p2
        z = (beta * slope) * x
        s, t = torch.sigmoid(z), torch.sigmoid(-z)
        st = s * t
        bend = z.clamp(-BOUND, BOUND) * st
        return s + bend, t - bend, slope * (x * (slope * st))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors
        g, x, p1, p2, beta = _wide(g, *saved)
        to_p1, to_p2, to_beta = _Acon._slopes(x, p1, p2, beta)
        gx = g * x
        terms = (g * (p1 * to_p1 + p2 * to_p2), gx * to_p1, gx * to_p2, gx * to_beta)
        return tuple(_sum_to(term, like) for term, like in zip(terms, saved, strict=True))


class _AconWithJvp(_Acon):
    """The same, and forward mode: apart, since torch.compile takes no Function that has a jvp of its own."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dp1: Tensor, dp2: Tensor, dbeta: Tensor) -> Tensor:
        dtype = ctx.saved_tensors[0].dtype
        x, p1, p2, beta = _wide(*ctx.saved_tensors)
        to_p1, to_p2, to_beta = _Acon._slopes(x, p1, p2, beta)
        dy = (p1 * to_p1 + p2 * to_p2) * dx + x * (to_p1 * dp1 + to_p2 * dp2 + to_beta * dbeta)
        return dy.to(dtype)


def acon(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`, the batch first. p1, p2, beta: (C,) or (1 or N, C, 1, 1). Returns the shape and
    dtype of x; 16-bit inputs are computed in float32. Smooth: no kinks. For the backward pass it keeps its arguments alone.
    Works under torch.compile, torch.export, torch.func's grad, vmap and jvp, and twice differentiated.
    Source: Ma et al. 2021, equation 8.
    """
    gates = [_to_rank(gate, x, channel_axis) for gate in (p1, p2, beta)]
    function = _Acon if torch.compiler.is_compiling() else _AconWithJvp
    y: Tensor = function.apply(x, *gates)
    return y
