"""`acon diff A B`: which tensors of two checkpoints differ, and by how much, whatever formats they are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.reading import read_file, read_network
from acon_core.errors import AconError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One tensor that is not the same in both: how each has it (dtype and shape, or absent), and how the values differ.

    `count`: elements whose bits differ (whose values do where the dtypes are two), `largest`: the largest |a - b|, exact where
    both are integers, `ulp`: the largest distance in units of the last place of the dtype, or of the one whose values are all
    in the other. None where there is no such number: shapes differ, complex numbers stand against integers, a value is no
    number or too large for the dtype that counts, or neither dtype is in the other.
    """

    name: str
    a: str
    b: str
    count: int | None = None
    largest: int | float | None = None
    ulp: int | None = None

    def __str__(self) -> str:
        if self.count is None:
            return f"{printable(self.name)}: {self.a} against {self.b}"
        kinds = self.a if self.a == self.b else f"{self.a} against {self.b}"
        far = self.largest if isinstance(self.largest, int) else f"{self.largest or 0:.3g}"
        size = "among them values that are no numbers" if self.largest is None else f"by up to {far}"
        ulp = "" if self.ulp is None else f", {self.ulp} ulp"
        return f"{printable(self.name)}: {kinds}: {self.count} values differ, {size}{ulp}"


@dataclass(frozen=True)
class Comparison:
    """What two files are compared as, how many tensors both have, the differences, and what was not compared."""

    compared_as: str
    tensors: int
    differences: list[Difference]
    notes: list[str]


def diff(
    a: Path, b: Path, network: str | None, act: str | None, dialects: tuple[str | None, str | None], options: Mapping[str, Any]
) -> Comparison:
    """Two files as canonical states where both are recognised as networks, else by the names that stand in them.

    `dialects`: those of `a` and of `b`. What one of the formats does not keep, such as counters, is not compared. Raises
    AconError for a file that cannot be read, or that is not the network that was named.
    """
    try:
        found = [read_network(file, network, act, dialect, **options) for file, dialect in zip((a, b), dialects, strict=True)]
    except AconError:
        if network or act or any(dialects) or options:
            raise
        return _compared("names as they stand in the files", read_file(a)[1].tensors, read_file(b)[1].tensors, [])
    made = {*found[0].made, *found[1].made}
    kept = [LazyTensors({path: t for path, t in lazy_items(each.state).items() if path not in made}) for each in found]
    notes = [f"{len(made)} tensors that one of the formats does not keep were not compared"] if made else []
    names = dict.fromkeys(each.network.name for each in found)
    return _compared(" and ".join(names), kept[0], kept[1], notes)


def _compared(compared_as: str, a: Mapping[str, NDArray], b: Mapping[str, NDArray], notes: list[str]) -> Comparison:
    return Comparison(compared_as, len(a.keys() & b.keys()), list(differences(a, b)), notes)


def differences(a: Mapping[str, NDArray], b: Mapping[str, NDArray]) -> Iterator[Difference]:
    """Every tensor that is not the same in both, in the order of `a` and then of `b`; a tensor of each in memory at a time."""
    described_a, described_b = lazy_items(a), lazy_items(b)
    kinds = [{name: f"{t.dtype.name} {t.shape}" for name, t in each.items()} for each in (described_a, described_b)]
    for name in dict.fromkeys([*described_a, *described_b]):
        kind_a, kind_b = (each.get(name, ABSENT) for each in kinds)
        if ABSENT in (kind_a, kind_b) or not _comparable(described_a[name], described_b[name]):
            yield Difference(name, kind_a, kind_b)
        else:
            count, largest, ulp = _values(a[name], b[name])
            if count or kind_a != kind_b:
                yield Difference(name, kind_a, kind_b, count, largest, ulp)


def _comparable(a: LazyTensor, b: LazyTensor) -> bool:
    """Whether the values of both can be set against each other, which complex numbers and integers are not."""
    kinds = a.dtype.kind + b.dtype.kind
    return a.shape == b.shape and not ("c" in kinds and any(kind in "iu" for kind in kinds))


def _values(a: NDArray, b: NDArray) -> tuple[int, int | float | None, int | None]:
    """How many elements differ, by how much, and by how many units of the last place: see Difference."""
    if a.dtype == b.dtype and np.array_equal(
        np.frombuffer(little_endian_bytes(a), np.uint8), np.frombuffer(little_endian_bytes(b), np.uint8)
    ):
        return 0, 0.0, 0
    # Invalid: what a signalling NaN is when it is widened. Over: what a number is that a narrower dtype has no place for.
    with np.errstate(over="ignore", invalid="ignore"):
        wide_a, wide_b = (array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) for array in (a, b))
        odd = ~(np.isfinite(wide_a) & np.isfinite(wide_b))
        if a.dtype == b.dtype:
            other = _bits(a) != _bits(b)
        else:
            other = (wide_a != wide_b) & ~(np.isnan(wide_a) & np.isnan(wide_b))
            other |= _same_when_rounded(a, b, wide_a, other)
        count = int(other.sum())
        if (odd & other).any():
            return count, None, None
        if any(_long(array.dtype) for array in (a, b)):
            return count, _farthest(a[other], b[other]), None
        largest = float(np.abs(np.where(other, wide_a - wide_b, 0)).max(initial=0.0))
        return count, int(largest) if _whole(a, b) else largest, _ulp(a[other], b[other])


def _whole(*arrays: NDArray) -> bool:
    return all(array.dtype.kind in "biu" for array in arrays)


def _long(dtype: np.dtype) -> bool:
    """Whether float64 does not have all of its values."""
    return dtype.kind in "iu" and dtype.itemsize == 8


def _same_when_rounded(a: NDArray, b: NDArray, wide: NDArray, other: NDArray) -> NDArray[np.bool_]:
    """Which elements differ although they are the same as float64, as only long integers can: as Python's numbers."""
    found = np.zeros(a.shape, bool)
    if any(_long(array.dtype) for array in (a, b)):
        unsure = ~other & (np.abs(wide) >= 2.0**53)
        found[unsure] = [x != y for x, y in _numbers(a[unsure], b[unsure])]
    return found


def _numbers(a: NDArray, b: NDArray) -> Iterator[tuple[int | float, int | float]]:
    """The elements in pairs, as Python's numbers, which compare exactly whatever their types."""
    numbers = (array.tolist() if _long(array.dtype) else array.astype(np.float64).tolist() for array in (a, b))
    return zip(*numbers, strict=True)


def _farthest(a: NDArray, b: NDArray) -> int | float:
    """The largest |a - b| where one is a long integer: exact between integers, else the float nearest to what is exact."""
    if a.dtype == b.dtype:
        # Without a sign, since two int64 may be further apart than int64 reaches.
        return int((np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)).max(initial=0))
    apart = max((abs(Fraction(x) - Fraction(y)) for x, y in _numbers(a, b)), default=Fraction(0))
    return int(apart) if _whole(a, b) else float(apart)


def _ulp(a: NDArray, b: NDArray) -> int | None:
    """The largest distance in units of the last place of the dtype whose values are all in the other, or None."""
    dtype = next((one.dtype for one, two in ((a, b), (b, a)) if _within(one.dtype, two.dtype)), None)
    if dtype is None:
        return None
    narrow_a, narrow_b = a.astype(dtype), b.astype(dtype)
    if not (np.isfinite(narrow_a) & np.isfinite(narrow_b)).all():
        return None
    rank_a, rank_b = _rank(narrow_a), _rank(narrow_b)
    apart = np.maximum(rank_a, rank_b).astype(np.uint64) - np.minimum(rank_a, rank_b).astype(np.uint64)
    return int(apart.max(initial=0))


def _within(one: np.dtype, two: np.dtype) -> bool:
    """Whether both are kinds of float and every number of the first is one of the second."""
    if not all(dtype.name.startswith(("float", "bfloat")) for dtype in (one, two)):
        return False
    a, b = ml_dtypes.finfo(one), ml_dtypes.finfo(two)  # type: ignore[no-untyped-call]
    pairs = ((b.min, a.min), (a.max, b.max), (b.smallest_subnormal, a.smallest_subnormal))
    return a.nmant <= b.nmant and all(float(low) <= float(high) for low, high in pairs)


def _bits(array: NDArray) -> NDArray:
    return np.frombuffer(little_endian_bytes(array), np.dtype(f"V{array.dtype.itemsize}")).reshape(array.shape)


def _rank(array: NDArray) -> NDArray[np.int64]:
    """The place of each number among all of its dtype in order, both zeros at 0: neighbours are 1 apart."""
    about = ml_dtypes.finfo(array.dtype)  # type: ignore[no-untyped-call]
    pattern = np.frombuffer(little_endian_bytes(array), f"<u{array.dtype.itemsize}").astype(np.uint64)
    if float(about.min) > 0:  # float8_e8m0fnu: all of it is the exponent, none of it a sign
        return pattern.astype(np.int64)
    sign = np.uint64(1 << (about.bits - 1))
    size = (pattern & (sign - np.uint64(1))).astype(np.int64)
    return np.where(pattern & sign, -size, size)
