"""The functions of the kernels and their gradients, in NumPy and float64, with scales of errors.

A scale is the size of what an error is relative to: the sum of absolute terms, and for a sigmoid of
z also what a relative error of z becomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acon_core.kernels import FUNCTIONS

Array = np.ndarray[Any, np.dtype[Any]]

GATES = {"acon": 3, "slopes": 2, "attention_slopes": 2, "branches": 4, "two_lines": 4, "maximum": 1}
"""The number of gates of each function."""

assert tuple(GATES) == FUNCTIONS


X = (3, 5, 6, 7)
LAYOUTS: dict[str, Any] = {  # shape, channel axis, memory order, and the shapes of gates, in turn
    "channels": (X, 1, None, [(1, 5, 1, 1)]),
    "one value": (X, 1, None, [(1, 1, 1, 1)]),
    "samples and channels": (X, 1, None, [(3, 5, 1, 1)]),
    "mixed": (X, 1, None, [(3, 5, 1, 1), (1, 1, 1, 1), (1, 5, 1, 1)]),
    "channels last": (X, 1, (0, 2, 3, 1), [(1, 5, 1, 1)]),
    "samples, channels last": (X, 1, (0, 2, 3, 1), [(3, 5, 1, 1), (1, 5, 1, 1), (1, 1, 1, 1)]),
    "tokens": ((3, 7, 40), 2, None, [(1, 1, 40)]),
    "samples beside channels": ((11, 37), 1, None, [(1, 37), (11, 1)]),
    "long rows": ((2, 3, 1100), 1, None, [(1, 3, 1)]),
    "pixels": (X, 1, None, [(1, 5, 1, 1), (1, 1, 1, 1), X]),
    "pixels, channels last": (X, 1, (0, 2, 3, 1), [(1, 5, 1, 1), (1, 1, 1, 1), X]),
}


def gates_of(function: str, layout: str) -> list[tuple[int, ...]]:
    """Return the shapes of a function's gates; the last one alone may be as large as x."""
    shape, _, _, of_gates = LAYOUTS[layout]
    count = GATES[function]
    small = [each for each in of_gates if each != shape]
    chosen = [small[k % len(small)] for k in range(count)]
    return [*chosen[:-1], shape] if shape in of_gates else chosen


def sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1.0) / (1.0 + e)


@dataclass(frozen=True)
class Expected:
    """A value and the gradients, each with its scale."""

    y: tuple[Array, Array]
    dx: tuple[Array, Array]
    dgates: list[tuple[Array, Array]]


def _weight(first: Array, second: Array) -> Array:
    """Return 1 where the first is larger, 1 / 2 at a tie, else 0."""
    return np.where(first > second, 1.0, np.where(first == second, 0.5, 0.0))


def evaluate(function: str, x: Array, gates: Sequence[Array], g: Array) -> Expected:
    """Return value and gradients; gates have the rank of x, and so have their gradients."""
    zero = np.zeros(x.shape)
    if function == "acon":
        a, b, c = gates
        slope = a - b
        z = c * slope * x
        s, t = sigmoid(z), sigmoid(-z)
        st = s * t
        bend = np.clip(z, -3e38, 3e38) * st
        error = abs(bend) * (1 + np.minimum(abs(z), 1e3))  # of to a relative error of z
        value = x * (b + slope * s), abs(x * b) + abs(x * slope) * (s + abs(bend))
        to_x = [a * (s + bend), b * (t - bend)]
        size_of_dx = abs(a) * (s + error) + abs(b) * (t + error)
        to_gates = [[x * s, x * bend], [x * t, -x * bend], [x * (slope * (x * (slope * st)))]]
        sizes = [abs(x) * (s + error), abs(x) * (t + error), abs(to_gates[2][0]) * (1 + np.minimum(abs(z), 1e3))]
    else:
        if function == "slopes":
            a, b = gates
            slope = np.where(x > 0, a, b)
            value, to_x = (x * slope, abs(x * slope)), [slope]
            to_gates = [[np.where(x > 0, x, zero)], [np.where(x > 0, zero, x)]]
        elif function == "attention_slopes":
            a, b = gates
            slope = np.where(x > 0, 1 + sigmoid(b), np.clip(a, 0.01, 0.99))
            inside = (a >= 0.01) & (a <= 0.99)
            value, to_x = (x * slope, abs(x * slope)), [slope]
            to_gates = [[np.where(x > 0, zero, x) * inside], [np.where(x > 0, x, zero) * (sigmoid(b) * sigmoid(-b))]]
        elif function == "branches":
            a, b, c, d = gates
            hard = np.clip(x / 6 + 0.5, 0, 1)
            bases = [x, np.where(x <= 0, 0.0, x), x * hard, zero + 1]
            parts = [gate * base for gate, base in zip(gates, bases, strict=True)]
            value = sum(parts, zero), sum((abs(part) for part in parts), zero) + abs(c * x)
            curve = np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))
            to_x, to_gates = [a + zero, np.where(x > 0, b, 0.0), c * curve, 0.5 * c], [[base] for base in bases]
            to_gates[2].append(abs(x))
        elif function == "two_lines":
            a, b, c, d = gates
            weight = _weight(a * x + c, b * x + d)
            value = np.maximum(a * x + c, b * x + d), np.maximum(abs(a * x) + abs(c), abs(b * x) + abs(d))
            to_x = [weight * a, (1 - weight) * b]
            to_gates = [[weight * x], [(1 - weight) * x], [weight], [1 - weight]]
        else:
            weight = _weight(x, gates[0] + zero)
            value, to_x, to_gates = (np.maximum(x, gates[0]), abs(x) + abs(gates[0])), [weight], [[1 - weight]]
        size_of_dx, sizes = sum((abs(term) for term in to_x), zero), [sum((abs(t) for t in terms), zero) for terms in to_gates]
        if function == "branches":
            to_x, to_gates[2] = to_x[:3], to_gates[2][:1]

    def summed(array: Array, gate: Array) -> Array:
        axes = tuple(axis for axis, size in enumerate(gate.shape) if size != x.shape[axis])
        total: Array = (array + zero).sum(axes, keepdims=True)
        return total

    pairs = [
        (summed(g * sum(terms, zero), gate), summed(abs(g) * size, gate))
        for terms, size, gate in zip(to_gates, sizes, gates, strict=True)
    ]
    return Expected(value, (g * sum(to_x, zero), abs(g) * size_of_dx), pairs)
