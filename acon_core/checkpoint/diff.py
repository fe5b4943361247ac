"""`acon diff A B`: compare the tensors of two checkpoints, in the same or in different formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.text import whole_name
from acon_core.checkpoint.files import read_file
from acon_core.checkpoint.query import NetworkQuery
from acon_core.checkpoint.reading import read_checkpoint
from acon_core.errors import AconError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A tensor that differs between two checkpoints.

    `count`, `largest` and `ulp` are None where they are undefined: for different shapes, complex
    numbers against integers, values that are not finite, or if neither dtype contains the other.

    Parameters
    ----------
    name : str
        The tensor.
    a, b : str
        Its dtype and shape in each file, or ``"absent"``.
    count : int, optional
        The number of elements that differ: in their bits, or in their values for two dtypes.
    largest : int or float, optional
        The largest absolute difference, exact for integers.
    ulp : int, optional
        The largest difference in units in the last place of the dtype that the other one contains.
    """

    name: str
    a: str
    b: str
    count: int | None = None
    largest: int | float | None = None
    ulp: int | None = None

    def __str__(self) -> str:
        kinds = self.a if self.a == self.b else f"{self.a} vs {self.b}"
        if self.count is None:
            return f"{whole_name(self.name)}: {kinds}"
        largest = self.largest if isinstance(self.largest, int) else f"{self.largest or 0:.3g}"
        size = "some not finite" if self.largest is None else f"by up to {largest}"
        ulp = "" if self.ulp is None else f", {self.ulp} ulp"
        return f"{whole_name(self.name)}: {kinds}: {self.count} values differ, {size}{ulp}"


@dataclass(frozen=True)
class Comparison:
    """The result of `diff`. `tensors`: the number of tensors that both files have."""

    compared_as: str
    tensors: int
    differences: list[Difference]
    notes: list[str]


def diff(a: Path, b: Path, query: NetworkQuery = NetworkQuery(), b_dialect: str | None = None) -> Comparison:
    """Compare two files as canonical states, or by tensor names if one is unknown.

    Tensors that one of the formats does not store, such as counters, are skipped. `b_dialect`: the
    dialect of `b`, if it is not that of `a`. Raises AconError if a file cannot be read, or is not
    the network of the query.
    """
    query_b = replace(query, dialect=b_dialect or query.dialect)
    try:
        first, second = read_checkpoint(a, query), read_checkpoint(b, query_b)
    except AconError:
        if query_b.is_about_network:
            raise
        return _compare("names in the files", read_file(a, query)[1].tensors, read_file(b, query)[1].tensors, [])
    skipped = {*first.regenerated, *second.regenerated}
    states = [
        LazyTensors({path: tensor for path, tensor in lazy_items(each.state).items() if path not in skipped})
        for each in (first, second)
    ]
    notes = [f"skipped {len(skipped)} tensors that one of the formats does not store"] if skipped else []
    names = dict.fromkeys([first.network.name, second.network.name])
    return _compare(" and ".join(names), states[0], states[1], notes)


def _compare(compared_as: str, a: Mapping[str, NDArray], b: Mapping[str, NDArray], notes: list[str]) -> Comparison:
    return Comparison(compared_as, len(a.keys() & b.keys()), list(differences(a, b)), notes)


def differences(a: Mapping[str, NDArray], b: Mapping[str, NDArray]) -> Iterator[Difference]:
    """Yield the tensors that differ, in the order of `a`, then of `b`.

    At most one tensor of each is in memory.
    """
    lazy_a, lazy_b = lazy_items(a), lazy_items(b)
    kinds = [{name: f"{t.dtype.name} {t.shape}" for name, t in each.items()} for each in (lazy_a, lazy_b)]
    for name in dict.fromkeys([*lazy_a, *lazy_b]):
        kind_a, kind_b = (each.get(name, ABSENT) for each in kinds)
        if ABSENT in (kind_a, kind_b) or not _comparable(lazy_a[name], lazy_b[name]):
            yield Difference(name, kind_a, kind_b)
        else:
            count, largest, ulp = _compare_values(a[name], b[name])
            if count or kind_a != kind_b:
                yield Difference(name, kind_a, kind_b, count, largest, ulp)


def _comparable(a: LazyTensor, b: LazyTensor) -> bool:
    """Return whether shapes are equal and values can be subtracted, unlike complex and integer."""
    kinds = a.dtype.kind + b.dtype.kind
    return a.shape == b.shape and not ("c" in kinds and any(kind in "iu" for kind in kinds))


def _compare_values(a: NDArray, b: NDArray) -> tuple[int, int | float | None, int | None]:
    """Return `count`, `largest` and `ulp` of a Difference."""
    if a.dtype == b.dtype and np.array_equal(
        np.frombuffer(little_endian_bytes(a), np.uint8), np.frombuffer(little_endian_bytes(b), np.uint8)
    ):
        return 0, 0.0, 0
    # invalid: widening a signalling NaN; over: casting a value to a dtype that is too narrow for it
    with np.errstate(over="ignore", invalid="ignore"):
        wide_a, wide_b = (array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) for array in (a, b))
        not_finite = ~(np.isfinite(wide_a) & np.isfinite(wide_b))
        if a.dtype == b.dtype:
            differs = _bits(a) != _bits(b)
        else:
            differs = (wide_a != wide_b) & ~(np.isnan(wide_a) & np.isnan(wide_b))
            differs |= _differs_beyond_float64(a, b, wide_a, differs)
        count = int(differs.sum())
        if (not_finite & differs).any():
            return count, None, None
        if any(_is_64_bit_integer(array.dtype) for array in (a, b)):
            return count, _largest_exact(a[differs], b[differs]), None
        largest = float(np.abs(np.where(differs, wide_a - wide_b, 0)).max(initial=0.0))
        return count, int(largest) if _are_integers(a, b) else largest, _largest_ulp(a[differs], b[differs])


def _are_integers(*arrays: NDArray) -> bool:
    return all(array.dtype.kind in "biu" for array in arrays)


def _is_64_bit_integer(dtype: np.dtype) -> bool:
    """Return whether float64 cannot represent all values of the dtype."""
    return dtype.kind in "iu" and dtype.itemsize == 8


def _differs_beyond_float64(a: NDArray, b: NDArray, wide: NDArray, differs: NDArray) -> NDArray[np.bool_]:
    """Return which elements differ but are equal as float64, as only 64-bit integers can."""
    result = np.zeros(a.shape, bool)
    if any(_is_64_bit_integer(array.dtype) for array in (a, b)):
        unsure = ~differs & (np.abs(wide) >= 2.0**53)
        result[unsure] = [x != y for x, y in _python_numbers(a[unsure], b[unsure])]
    return result


def _python_numbers(a: NDArray, b: NDArray) -> Iterator[tuple[int | float, int | float]]:
    """Return pairs of elements as Python numbers, which compare exactly across types."""
    numbers = (array.tolist() if _is_64_bit_integer(array.dtype) else array.astype(np.float64).tolist() for array in (a, b))
    return zip(*numbers, strict=True)


def _largest_exact(a: NDArray, b: NDArray) -> int | float:
    """Return the largest |a - b| if one is a 64-bit integer: exact, or the nearest float."""
    if a.dtype == b.dtype:
        # Unsigned, because the difference of two int64 can exceed int64.
        return int((np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)).max(initial=0))
    largest = max((abs(Fraction(x) - Fraction(y)) for x, y in _python_numbers(a, b)), default=Fraction(0))
    return int(largest) if _are_integers(a, b) else float(largest)


def _largest_ulp(a: NDArray, b: NDArray) -> int | None:
    """Return the largest difference in ulp of the narrower dtype, None if neither is narrower."""
    dtype = next((one.dtype for one, two in ((a, b), (b, a)) if _contains(two.dtype, one.dtype)), None)
    if dtype is None:
        return None
    narrow_a, narrow_b = a.astype(dtype), b.astype(dtype)
    if not (np.isfinite(narrow_a) & np.isfinite(narrow_b)).all():
        return None
    rank_a, rank_b = _rank(narrow_a), _rank(narrow_b)
    distance = np.maximum(rank_a, rank_b).astype(np.uint64) - np.minimum(rank_a, rank_b).astype(np.uint64)
    return int(distance.max(initial=0))


def _contains(wide: np.dtype, narrow: np.dtype) -> bool:
    """Return whether both are float dtypes, and `wide` represents every value of `narrow`."""
    if not all(dtype.name.startswith(("float", "bfloat")) for dtype in (wide, narrow)):
        return False
    w, n = ml_dtypes.finfo(wide), ml_dtypes.finfo(narrow)  # type: ignore[no-untyped-call]
    pairs = ((w.min, n.min), (n.max, w.max), (w.smallest_subnormal, n.smallest_subnormal))
    return n.nmant <= w.nmant and all(float(low) <= float(high) for low, high in pairs)


def _bits(array: NDArray) -> NDArray:
    return np.frombuffer(little_endian_bytes(array), np.dtype(f"V{array.dtype.itemsize}")).reshape(array.shape)


def _rank(array: NDArray) -> NDArray[np.int64]:
    """Return the rank of each value in its dtype. Zeros have rank 0; neighbours differ by 1."""
    info = ml_dtypes.finfo(array.dtype)  # type: ignore[no-untyped-call]
    pattern = np.frombuffer(little_endian_bytes(array), f"<u{array.dtype.itemsize}").astype(np.uint64)
    if float(info.min) > 0:  # float8_e8m0fnu has no sign bit
        return pattern.astype(np.int64)
    sign = np.uint64(1 << (info.bits - 1))
    magnitude = (pattern & (sign - np.uint64(1))).astype(np.int64)
    return np.where(pattern & sign, -magnitude, magnitude)
