"""The gated functions on a CUDA GPU as Pallas kernels: a rule's formula, and its sums, in one pass.

A program computes a tile of rows and columns, several times along one of the two, and stores one
partial sum for each value of a gate that it saw. XLA adds the partial sums. There are no atomics,
so that the same call gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from acon_core.gpu import Tiles, tiles
from acon_core.kernels import Plan

TILE, STEPS, ENOUGH, WARPS = 1024, 16, 2048, 4
_LIKE_X = 8


def _window(chosen: Tiles, cover: int, a: Any, rows: Array, columns: Array) -> tuple[tuple[Any, ...], Array]:
    """Return the indices of a gate's values beside a tile, and which of them are inside."""
    rows = rows if cover & 2 else jnp.zeros((1, 1), jnp.int32)
    columns = columns if cover & 4 else jnp.zeros((1, 1), jnp.int32)
    inside = jnp.ones((1, 1), bool)
    inside = inside & (rows < chosen.sizes[1]) if cover & 2 else inside
    inside = inside & (columns < chosen.sizes[2]) if cover & 4 else inside
    shape = (rows.shape[0], columns.shape[1])
    batch = jnp.broadcast_to(a if cover & 1 else 0, shape)
    return (batch, jnp.broadcast_to(rows, shape), jnp.broadcast_to(columns, shape)), jnp.broadcast_to(inside, shape)


def _kernel(
    *refs: Any, chosen: Tiles, constants: Sequence[float | None], count: int, formula: Callable[..., Sequence[Array]], wide: Any
) -> None:
    """Compute the terms of one program; `count` operands come first, then the results."""
    operands, results = list(refs[:count]), refs[count:]
    x_ref = operands.pop(0)
    a, steps = pl.program_id(0), chosen.steps
    stride = (chosen.rows, chosen.columns * steps) if chosen.along_columns else (chosen.rows * steps, chosen.columns)
    first_row, first_column = pl.program_id(1) * stride[0], pl.program_id(2) * stride[1]
    rows = first_row + jax.lax.broadcasted_iota(jnp.int32, (chosen.rows, 1), 0)
    columns = first_column + jax.lax.broadcasted_iota(jnp.int32, (1, chosen.columns), 1)
    covers = [cover for cover, number in zip(chosen.covers, constants, strict=True) if number is None]
    gate_refs, others = operands[: len(covers)], operands[len(covers) :]  # g is the other one, if any

    def read(ref: Any, cover: int, rows: Array, columns: Array) -> Array:
        where, inside = _window(chosen, cover, a, rows, columns)
        return pltriton.load(ref.at[where], mask=inside, other=0).astype(wide)

    fixed = [None if cover & _LIKE_X else read(ref, cover, rows, columns) for ref, cover in zip(gate_refs, covers, strict=True)]

    def step(index: Any, totals: tuple[Array, ...]) -> tuple[Array, ...]:
        row = rows if chosen.along_columns else rows + index * chosen.rows
        column = columns + index * chosen.columns if chosen.along_columns else columns
        where, inside = _window(chosen, 7, a, row, column)
        gates = [read(ref, 7, row, column) if gate is None else gate for gate, ref in zip(fixed, gate_refs, strict=True)]
        given = iter(gates)
        in_order = [next(given) if number is None else number for number in constants]
        x, *g = (read(ref, 7, row, column) for ref in (x_ref, *others))
        terms = [jnp.broadcast_to(term, x.shape) for term in formula(*g, x, *in_order)]
        wanted = [terms[0], *(term for term, number in zip(terms[1:], constants, strict=False) if number is None)]
        for result, term, cover in zip(results, wanted, [_LIKE_X, *covers], strict=False):
            if cover & _LIKE_X:
                pltriton.store(result.at[where], term.astype(result.dtype), mask=inside)
        # Outside, an infinite gate times 0 is NaN.
        return tuple(total + jnp.where(inside, term, 0) for total, term in zip(totals, wanted[1:], strict=True))

    zeros = jnp.zeros((chosen.rows, chosen.columns), wide)
    count_of_sums = len(covers) if others else 0
    totals = jax.lax.fori_loop(0, steps, step, (zeros,) * count_of_sums) if steps > 1 else step(0, (zeros,) * count_of_sums)
    for result, total, cover in zip(results[1:], totals, covers, strict=False):
        if cover & _LIKE_X:
            continue
        over = tuple(axis for axis, bit in ((0, 2), (1, 4)) if not cover & bit)
        for axis in over:
            total = total.sum(axis, keepdims=True)
        (_, row, column), inside = _window(chosen, cover, a, rows, columns)
        row = row if cover & 2 else jnp.full_like(row, pl.program_id(1))
        column = column if cover & 4 else jnp.full_like(column, pl.program_id(2))
        pltriton.store(result.at[jnp.full_like(row, a), row, column], total, mask=inside)


def run(
    rule: Any, plan: Plan, x: Array, gates: Sequence[Array], g: Array | None = None, interpret: bool = False
) -> tuple[Array, ...]:
    """Return y, or with `g` the gradients of x and of each array among the gates.

    `rule` has `value` and `pullback`. `gates` are the arrays alone, of any shape that the plan
    accepts; other gates are the plan's constants. x lies in C order.
    """
    chosen = tiles(plan, TILE, 1 if g is None else STEPS, ENOUGH)
    wide = jnp.dtype(plan.gate_dtype)
    numbers = [None if each is None else each.value for each in plan.constants]
    arrays = [k for k, number in enumerate(numbers) if number is None]
    shapes = [
        chosen.sizes
        if plan.like_x[k]
        else tuple(size if chosen.covers[k] >> i & 1 else 1 for i, size in enumerate(chosen.sizes))
        for k in arrays
    ]
    operands = [x.reshape(chosen.sizes)]
    operands += [gate if plan.like_x[k] else gate.astype(wide) for gate, k in zip(gates, arrays, strict=True)]
    operands[1:] = [operand.reshape(shape) for operand, shape in zip(operands[1:], shapes, strict=True)]
    results = [jax.ShapeDtypeStruct(chosen.sizes, x.dtype)]
    if g is not None:
        operands.append(g.reshape(chosen.sizes))
        results += [results[0] if plan.like_x[k] else jax.ShapeDtypeStruct(chosen.partial_shape(k), wide) for k in arrays]
    formula = (lambda *a: (rule.value(*a),)) if g is None else rule.pullback
    y, *sums = pl.pallas_call(
        partial(_kernel, chosen=chosen, constants=numbers, count=len(operands), formula=formula, wide=wide),
        results,
        grid=(chosen.sizes[0], *chosen.parts),
        compiler_params=pltriton.CompilerParams(num_warps=WARPS),
        interpret=interpret,
    )(*operands)
    gradients = [
        (each if plan.like_x[k] else each.sum(chosen.summed_axes(k))).reshape(gate.shape).astype(gate.dtype)
        for each, k, gate in zip(sums, arrays, gates, strict=False)
    ]
    return y.reshape(x.shape), *gradients
