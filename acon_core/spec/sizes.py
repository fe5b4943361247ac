"""Decisions on sizes, some of which a tracer or compiler leaves open.

A backend passes `OPEN` for such a size. A decision on it is that of a size that fits, so that what
is traced for one batch serves any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from acon_core.spec.param import Shape

OPEN = -1
"""The size of an axis whose extent is not known yet."""


def extent_fits(found: int, *expected: int) -> bool:
    """Return whether a size may be one of those that are expected."""
    # Not `in` alone: for torch.compile (2.13), a size that it has fixed is in no tuple.
    return found in expected or found == OPEN or any(found == size or size == OPEN for size in expected)


def fits(found: Shape, expected: Shape) -> bool:
    """Return whether two shapes may be equal."""
    if len(found) != len(expected):
        return False
    return found == expected or all(extent_fits(*pair) for pair in zip(found, expected, strict=True))


def divides(divisor: int, size: int) -> bool:
    """Return whether a size may be a multiple of the divisor."""
    return size == OPEN or size % divisor == 0


def volume(sizes: Iterable[int]) -> int:
    """Return the product of sizes, open where one of them is."""
    known = tuple(sizes)
    return OPEN if OPEN in known else math.prod(known)


def total(sizes: Iterable[int]) -> int:
    """Return the sum of sizes, open where one of them is."""
    known = tuple(sizes)
    return OPEN if OPEN in known else sum(known)


def quotient(size: int, divisor: int) -> int:
    """Return how many parts of `divisor` cover a size, open where it is."""
    return OPEN if size == OPEN else -(-size // divisor)
