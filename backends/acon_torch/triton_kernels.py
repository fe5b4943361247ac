"""The gated functions on a CUDA GPU, as Triton kernels: value, and gradients with reduced sums.

One kernel serves all functions and layouts. It is driven by the plan that the CPU library gets too:
x is A x B x D, and each gate varies along some of the sizes. A program computes a tile of rows (of
B) and columns (of D), several times along one of the two. Gradients of gates are summed in two
passes, without atomics, so that the same call gives the same bits: each program stores one partial
sum for each value of a gate that it saw, and PyTorch adds the partial sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from acon_core.gpu import Tiles, tiles
from acon_core.kernels import FUNCTIONS, Plan

TILE = 1024
"""Elements of a tile of the forward pass."""

PULL_TILE = 512
"""Elements of a tile of the backward pass: with more, registers run out and fewer programs run."""

STEPS = 16
"""The most tiles that a program of the backward pass adds up."""

WARPS = 4
"""Warps of 32 threads that compute a tile."""

ENOUGH = 2048
"""Programs that keep a GPU of about 100 multiprocessors busy: with fewer, they take fewer steps."""

_LIKE_X = tl.constexpr(8)


@triton.jit
def _exponential(x, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Compute exp(x), x <= 0, to 1 ulp. tl.exp of float32 multiplies by log2(e) in one rounding."""
    if FAST or x.dtype == tl.float64:
        result = tl.exp(x)
    else:
        x = tl.where(x < -104.5, -104.5, x)  # keeps NaN
        shifted = x * 1.4426950408889634 + 12582912.0
        n = shifted - 12582912.0
        r = x - n * 0.693145751953125 - n * 1.42860677e-06
        q = r * 0.0013814319 + 0.008368851
        q = q * r + 0.0416684
        q = q * r + 0.1666652
        q = q * r + 0.49999994
        # 2^(n + 64) is never denormal; the last product rounds a denormal result once.
        power = ((shifted.to(tl.int32, bitcast=True) + 191) << 23).to(tl.float32, bitcast=True)
        result = (q * (r * r) + r + 1.0) * power * 5.421010862427522e-20
    return result


@triton.jit
def _sigmoids(z, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return sigmoid(z), sigmoid(-z) and their product, each to full relative precision."""
    e = _exponential(-tl.abs(z), FAST)
    if FAST or z.dtype == tl.float64:
        high = 1.0 / (1.0 + e)
    else:
        high = tl.div_rn(tl.full(e.shape, 1.0, e.dtype), 1.0 + e)
    low = e * high
    return tl.where(z < 0, low, high), tl.where(z < 0, high, low), low * high


@triton.jit
def _positive(x):  # type: ignore[no-untyped-def]
    return tl.where(x <= 0, 0.0, x)  # keeps NaN


@triton.jit
def _hard_sigmoid(x):  # type: ignore[no-untyped-def]
    return tl.where(x <= -3, 0.0, tl.where(x >= 3, 1.0, (x + 3.0) * 0.16666666666666666))


@triton.jit
def _attention(a, b, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the positive and the negative slope, and the slope of the former by b."""
    s, _, st = _sigmoids(b, FAST)
    return 1.0 + s, tl.where(a < 0.01, 0.01, tl.where(a > 0.99, 0.99, a)), st


@triton.jit
def _value(x, a, b, c, d, FUNCTION: tl.constexpr, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    if FUNCTION == "acon":
        slope = a - b
        s, _, _ = _sigmoids((c * slope) * x, FAST)
        y = x * (b + slope * s)
    elif FUNCTION == "slopes":
        y = _positive(x) * a + tl.where(x > 0, 0.0, x) * b
    elif FUNCTION == "attention_slopes":
        up, down, _ = _attention(a, b, FAST)
        y = _positive(x) * up + tl.where(x > 0, 0.0, x) * down
    elif FUNCTION == "branches":
        y = x * a + _positive(x) * b + (x * _hard_sigmoid(x)) * c + d
    else:
        if FUNCTION == "two_lines":
            one = x * a + c
            two = x * b + d
        else:
            one, two = x, a
        y = tl.where((one > two) | (one != one), one, two)
    return y


@triton.jit
def _pull(x, g, a, b, c, d, FUNCTION: tl.constexpr, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return g times the derivative by x and by each gate; zeros for gates that there are not."""
    zero = g * 0.0
    if FUNCTION == "acon":
        slope = a - b
        z = (c * slope) * x
        s, t, st = _sigmoids(z, FAST)
        bend = tl.where(z > 3e38, 3e38, tl.where(z < -3e38, -3e38, z)) * st
        first, second = s + bend, t - bend
        gx = g * x
        terms = g * (a * first + b * second), gx * first, gx * second, gx * (slope * (x * (slope * st))), zero
    elif FUNCTION == "slopes":
        terms = g * tl.where(x > 0, a, b), tl.where(x > 0, g * x, 0.0), tl.where(x > 0, 0.0, g * x), zero, zero
    elif FUNCTION == "attention_slopes":
        up, down, curve = _attention(a, b, FAST)
        below = tl.where((a >= 0.01) & (a <= 0.99), tl.where(x > 0, 0.0, g * x), 0.0)
        terms = g * tl.where(x > 0, up, down), below, tl.where(x > 0, g * x, 0.0) * curve, zero, zero
    elif FUNCTION == "branches":
        curve = tl.where(x <= -3, 0.0, tl.where(x >= 3, 1.0, x * 0.3333333333333333 + 0.5))
        gx = g * x
        dx = g * (a + tl.where(x > 0, b, 0.0) + curve * c)
        terms = dx, gx, tl.where(x > 0, gx, 0.0), gx * _hard_sigmoid(x), g
    else:
        if FUNCTION == "two_lines":
            one = x * a + c
            two = x * b + d
        else:
            one, two = x, a
        first = g * tl.where(one > two, 1.0, tl.where(one == two, 0.5, 0.0))
        second = g - first
        if FUNCTION == "two_lines":
            terms = first * a + second * b, first * x, second * x, first, second
        else:
            terms = first, second, zero, zero, zero
    return terms


@triton.jit
def _gate(gates, k: tl.constexpr, a, rows, columns, B, D, COVERS: tl.constexpr, CONSTANTS: tl.constexpr, WIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load gate k, to broadcast against the tile. One as large as x is loaded later."""
    if gates[k] is None or COVERS[k] == _LIKE_X:
        value = tl.full([1, 1], CONSTANTS[k], WIDE)
    else:
        at = tl.zeros([1, 1], tl.int64)
        inside = tl.full([1, 1], 1, tl.int1)
        size = tl.full([], 1, tl.int64)
        if COVERS[k] & 4:
            at += columns
            inside = inside & (columns < D)
            size = size * D
        if COVERS[k] & 2:
            at = at + rows * size
            inside = inside & (rows < B)
            size = size * B
        if COVERS[k] & 1:
            at = at + a * size
        value = tl.load(gates[k] + at, inside, 0.0)
    return value


@triton.jit
def _store(sums, k: tl.constexpr, total, a, rows, columns, B, D, part_b, part_d, parts_b, parts_d, COVERS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store a program's sum for each value of gate k, at [a, row or part, column or part]."""
    if sums[k] is not None and COVERS[k] != _LIKE_X:
        inside = tl.full([1, 1], 1, tl.int1)
        if COVERS[k] & 2:
            row, height = rows, B
            inside = inside & (rows < B)
        else:
            row, height = part_b, parts_b
            total = tl.sum(total, 0, keep_dims=True)
        if COVERS[k] & 4:
            column, width = columns, D
            inside = inside & (columns < D)
        else:
            column, width = part_d, parts_d
            total = tl.sum(total, 1, keep_dims=True)
        at = (a * height + row) * width + column + tl.zeros([1, 1], tl.int64)
        tl.store(sums[k] + at, total, inside)


@triton.jit
def _kernel(  # type: ignore[no-untyped-def]
    x, gates, out, g, sums, B, D, parts_b, parts_d, STEPS: tl.constexpr,
    FUNCTION: tl.constexpr, COVERS: tl.constexpr, CONSTANTS: tl.constexpr, WIDE: tl.constexpr, FAST: tl.constexpr,
    ALONG_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    part_d = (program % parts_d).to(tl.int64)
    part_b = (program // parts_d % parts_b).to(tl.int64)
    a = (program // parts_d // parts_b).to(tl.int64)
    steps_b, steps_d = (1, STEPS) if ALONG_D else (STEPS, 1)
    rows = part_b * (ROWS * steps_b) + tl.arange(0, ROWS)[:, None].to(tl.int64)
    columns = part_d * (COLUMNS * steps_d) + tl.arange(0, COLUMNS)[None, :].to(tl.int64)
    # With more than one step, no gate varies along the size of the steps.
    v0 = _gate(gates, 0, a, rows, columns, B, D, COVERS, CONSTANTS, WIDE)
    v1 = _gate(gates, 1, a, rows, columns, B, D, COVERS, CONSTANTS, WIDE)
    v2 = _gate(gates, 2, a, rows, columns, B, D, COVERS, CONSTANTS, WIDE)
    v3 = _gate(gates, 3, a, rows, columns, B, D, COVERS, CONSTANTS, WIDE)
    t0 = tl.zeros([ROWS, COLUMNS], WIDE)
    t1 = tl.zeros([ROWS, COLUMNS], WIDE)
    t2 = tl.zeros([ROWS, COLUMNS], WIDE)
    t3 = tl.zeros([ROWS, COLUMNS], WIDE)
    for step in range(STEPS):
        row = rows if ALONG_D else rows + step * ROWS
        column = columns + step * COLUMNS if ALONG_D else columns
        inside = (row < B) & (column < D)
        at = (a * B + row) * D + column
        value = tl.load(x + at, inside, 0.0).to(WIDE)
        w0, w1, w2, w3 = v0, v1, v2, v3
        # Only the last gate of a function may be as large as x.
        if COVERS[0] == _LIKE_X:
            w0 = tl.load(gates[0] + at, inside, 0.0).to(WIDE)
        if COVERS[1] == _LIKE_X:
            w1 = tl.load(gates[1] + at, inside, 0.0).to(WIDE)
        if COVERS[2] == _LIKE_X:
            w2 = tl.load(gates[2] + at, inside, 0.0).to(WIDE)
        if COVERS[3] == _LIKE_X:
            w3 = tl.load(gates[3] + at, inside, 0.0).to(WIDE)
        if g is None:
            tl.store(out + at, _value(value, w0, w1, w2, w3, FUNCTION, FAST), inside)
        else:
            slope = tl.load(g + at, inside, 0.0).to(WIDE)
            dx, d0, d1, d2, d3 = _pull(value, slope, w0, w1, w2, w3, FUNCTION, FAST)
            if out is not None:
                tl.store(out + at, dx, inside)
            if COVERS[0] == _LIKE_X and sums[0] is not None:
                tl.store(sums[0] + at, d0, inside)
            if COVERS[1] == _LIKE_X and sums[1] is not None:
                tl.store(sums[1] + at, d1, inside)
            if COVERS[2] == _LIKE_X and sums[2] is not None:
                tl.store(sums[2] + at, d2, inside)
            if COVERS[3] == _LIKE_X and sums[3] is not None:
                tl.store(sums[3] + at, d3, inside)
            # Outside, an infinite gate times 0 is NaN.
            t0 += tl.where(inside, d0, 0.0)
            t1 += tl.where(inside, d1, 0.0)
            t2 += tl.where(inside, d2, 0.0)
            t3 += tl.where(inside, d3, 0.0)
    if g is not None:
        _store(sums, 0, t0, a, rows, columns, B, D, part_b, part_d, parts_b, parts_d, COVERS)
        _store(sums, 1, t1, a, rows, columns, B, D, part_b, part_d, parts_b, parts_d, COVERS)
        _store(sums, 2, t2, a, rows, columns, B, D, part_b, part_d, parts_b, parts_d, COVERS)
        _store(sums, 3, t3, a, rows, columns, B, D, part_b, part_d, parts_b, parts_d, COVERS)


@lru_cache(maxsize=4096)
def _launch(plan: Plan, pull: bool) -> tuple[Tiles, dict[str, Any]]:
    """Choose the tiles, and the options that a kernel is compiled for."""
    chosen = tiles(plan, PULL_TILE if pull else TILE, STEPS if pull else 1, ENOUGH)
    unused = 4 - len(plan.constants)
    options = {
        "FUNCTION": FUNCTIONS[plan.structure.function],
        "COVERS": (*chosen.covers, *[0] * unused),
        "CONSTANTS": (*(0.0 if each is None else each.value for each in plan.constants), *[0.0] * unused),
        "WIDE": tl.float64 if plan.gate_dtype == "float64" else tl.float32,
        "FAST": plan.structure.type >= 2,  # float32's last digits do not reach 16 bits
        "STEPS": chosen.steps,
        "ALONG_D": chosen.along_columns,
        "ROWS": chosen.rows,
        "COLUMNS": chosen.columns,
        "num_warps": WARPS,
    }
    return chosen, options


def run(
    plan: Plan,
    x: Tensor,
    gates: Sequence[Tensor | None],
    out: Tensor | None,
    g: Tensor | None = None,
    dgates: Sequence[Tensor | None] = (),
) -> None:
    """Compute the function, or with `g` its gradients: as Plan.run, on tensors of a GPU.

    Gates and their gradients are contiguous, of dtype plan.gate_dtype; one like x has its dtype and
    memory order, as `g` and `out` have.
    """
    chosen, options = _launch(plan, g is not None)
    a, b, d = chosen.sizes
    if 0 in chosen.sizes:
        for each in dgates:
            if each is not None:
                each.zero_()
        return
    sums: list[Tensor | None] = [None] * 4
    for k, gradient in enumerate(dgates):
        if gradient is not None:
            sums[k] = gradient if plan.like_x[k] else gradient.new_empty(chosen.partial_shape(k))
    given = (*gates, *[None] * (4 - len(gates)))
    with torch.cuda.device_of(x):
        _kernel[(a * chosen.parts[0] * chosen.parts[1],)](x, given, out, g, tuple(sums), b, d, *chosen.parts, **options)
        for k, gradient in enumerate(dgates):
            partial = sums[k]
            if gradient is not None and partial is not None and not plan.like_x[k]:
                over = chosen.summed_axes(k)
                kept = gradient.view([size for axis, size in enumerate(partial.shape) if axis not in over])
                torch.sum(partial, over, out=kept) if over else kept.copy_(partial)
