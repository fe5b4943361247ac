"""Reproducible random numbers: the same on every machine and in every version of NumPy."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = np.dtype("<u8")
_UNUSED_BITS = np.uint64(64 - 53)


class _Thread(threading.local):
    """One generator per thread, which each stream sets to its state: making one takes longer."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(0)


_THREAD = _Thread()


class Stream:
    """A counter-based random generator, seeded by a key.

    Parameters
    ----------
    *key : str or int
        Names what the numbers are for. Equal keys give equal numbers; different keys give
        independent streams.

    Notes
    -----
    The raw bits are Philox 4x64-10, keyed by the SHA-256 digest of the key. NumPy keeps its bit
    generators stable between versions, but not the distributions that it makes from them. So the
    distributions are made here.

    References
    ----------
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958.

    Examples
    --------
    >>> from acon_core.random import Stream
    >>> Stream("case", "x").uniform((2,), -1.0, 1.0).round(4).tolist()
    [0.5617, 0.2125]
    """

    def __init__(self, *key: str | int) -> None:
        self._key = key
        self._drawn = 0

    def _raw(self, count: int) -> NDArray[np.uint64]:
        key = np.frombuffer(hashlib.sha256(repr(self._key).encode()).digest(), _WORD, 2)
        blocks, skipped = divmod(self._drawn, 4)  # one value of the counter gives a block of four
        counter = np.array([blocks, 0, 0, 0], np.uint64)
        _THREAD.philox.state = {
            "bit_generator": "Philox", "state": {"counter": counter, "key": key}, "buffer": counter, "buffer_pos": 4,
            "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip
        self._drawn += count
        values: NDArray[np.uint64] = _THREAD.philox.random_raw(skipped + count)
        return values[skipped:]

    def unit(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Draw uniform values in [0, 1) with 53 random bits each."""
        return (self._raw(math.prod(shape)) >> _UNUSED_BITS).reshape(shape).astype(np.float64) * 2.0**-53

    def uniform(self, shape: Sequence[int], low: float, high: float) -> NDArray[np.float64]:
        """Draw uniform values in [low, high)."""
        return low + (high - low) * self.unit(shape)

    def normal(self, shape: Sequence[int], std: float) -> NDArray[np.float64]:
        """Draw normal values with mean 0 and standard deviation ``std`` (Box and Muller)."""
        first, second = self.unit((2, *shape))
        values: NDArray[np.float64] = std * np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
        return values
