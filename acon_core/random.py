"""Random numbers that are the same on every machine, in every NumPy, for ever: a counter-based generator keyed by names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Stream:
    """A stream of variates that its key alone decides, such as `Stream("case", "x")` or `Stream(seed, "stem.0.weight")`.

    The raw bits are Philox 4x64-10 under a SHA-256 of the key. The variates are made from them here, since NumPy keeps its
    bit generators stable between versions, but not what its `normal` makes of them.
    """

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def unit(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Uniform variates in [0, 1), 53 bits each."""
        raw: NDArray[np.uint64] = self._bits.random_raw(math.prod(shape)).reshape(tuple(shape))
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def uniform(self, shape: Sequence[int], low: float, high: float) -> NDArray[np.float64]:
        """Uniform variates in [low, high)."""
        return low + (high - low) * self.unit(shape)

    def normal(self, shape: Sequence[int], std: float) -> NDArray[np.float64]:
        """Normal variates of mean 0 and standard deviation `std` (Box and Muller)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.unit(shape)))
        return std * radius * np.cos(2.0 * np.pi * self.unit(shape))
