"""`acon diff A B`: which tensors of two checkpoints differ, and by how much, whatever formats they are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.file import raw
from acon_core.checkpoint.reading import read_file, read_network
from acon_core.errors import AconError
from acon_core.tensors import Tensors, described

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One tensor that is not the same in both: how each has it (dtype and shape, or absent), and how the values differ.

    `count`: elements whose bits differ, `largest`: the largest |a - b|, `ulp`: the largest distance in units of the last place
    of the dtype (of the narrower one where they have two); None where shapes differ or a value is no number.
    """

    name: str
    a: str
    b: str
    count: int | None = None
    largest: float | None = None
    ulp: int | None = None

    def __str__(self) -> str:
        if self.count is None:
            return f"{self.name}: {self.a} against {self.b}"
        kinds = self.a if self.a == self.b else f"{self.a} against {self.b}"
        size = "among them values that are no numbers" if self.largest is None else f"by up to {self.largest:.3g}"
        ulp = "" if self.ulp is None else f", {self.ulp} ulp"
        return f"{self.name}: {kinds}: {self.count} values differ, {size}{ulp}"


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
    kept = [Tensors({path: t for path, t in described(each.state).items() if path not in made}) for each in found]
    notes = [f"{len(made)} tensors that one of the formats does not keep were not compared"] if made else []
    names = dict.fromkeys(each.network.name for each in found)
    return _compared(" and ".join(names), kept[0], kept[1], notes)


def _compared(compared_as: str, a: Mapping[str, NDArray], b: Mapping[str, NDArray], notes: list[str]) -> Comparison:
    return Comparison(compared_as, len(a.keys() & b.keys()), list(differences(a, b)), notes)


def differences(a: Mapping[str, NDArray], b: Mapping[str, NDArray]) -> Iterator[Difference]:
    """Every tensor that is not the same in both, in the order of `a` and then of `b`; a tensor of each in memory at a time."""
    described_a, described_b = described(a), described(b)
    kinds = [{name: f"{t.dtype.name} {t.shape}" for name, t in each.items()} for each in (described_a, described_b)]
    for name in dict.fromkeys([*described_a, *described_b]):
        kind_a, kind_b = (each.get(name, ABSENT) for each in kinds)
        if ABSENT in (kind_a, kind_b) or described_a[name].shape != described_b[name].shape:
            yield Difference(name, kind_a, kind_b)
        else:
            count, largest, ulp = _values(a[name], b[name])
            if count or kind_a != kind_b:
                yield Difference(name, kind_a, kind_b, count, largest, ulp)


def _values(a: NDArray, b: NDArray) -> tuple[int, float | None, int | None]:
    if a.dtype == b.dtype and np.array_equal(np.frombuffer(raw(a), np.uint8), np.frombuffer(raw(b), np.uint8)):
        return 0, 0.0, 0
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    wide_a, wide_b = (array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) for array in (a, b))
    odd = ~(np.isfinite(wide_a) & np.isfinite(wide_b))
    other = _bits(a) != _bits(b) if a.dtype == b.dtype else (wide_a != wide_b) & ~(np.isnan(wide_a) & np.isnan(wide_b))
    count = int(other.sum())
    if (odd & other).any():
        return count, None, None
    with np.errstate(over="ignore", invalid="ignore"):
        largest = float(np.abs(np.where(other, wide_a - wide_b, 0)).max(initial=0.0))
    if narrow.kind in "biuc":
        return count, largest, None
    rank_a, rank_b = (_rank(array.astype(narrow))[other] for array in (a, b))
    # Without a sign, since two float64 may be further apart than int64 reaches.
    apart = np.maximum(rank_a, rank_b).astype(np.uint64) - np.minimum(rank_a, rank_b).astype(np.uint64)
    return count, largest, int(apart.max(initial=0))


def _bits(array: NDArray) -> NDArray:
    return np.frombuffer(raw(array), np.dtype(f"V{array.dtype.itemsize}")).reshape(array.shape)


def _rank(array: NDArray) -> NDArray[np.int64]:
    """The place of each value among all of its dtype in order, both zeros at 0: neighbours are 1 apart."""
    bits = array.dtype.itemsize * 8
    pattern = np.frombuffer(raw(array), f"<i{array.dtype.itemsize}").astype(np.int64).reshape(array.shape)
    return np.where(pattern < 0, -(pattern + (1 << (bits - 1)) if bits < 64 else pattern - np.iinfo(np.int64).min), pattern)
