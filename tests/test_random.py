"""Streams of random numbers: NumPy's Philox, however draws are divided, interleaved or threaded."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from acon_core.random import Stream


def philox(*key: str | int, count: int) -> NDArray[np.float64]:
    """Return the first uniform values of a stream, from a generator of its own."""
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "little")
    return (np.random.Philox(key=number).random_raw(count) >> np.uint64(11)) / 2.0**53


@pytest.mark.parametrize("sizes", [(23,), (1, 2, 3, 4, 5, 8), (7, 0, 16), (4, 3, 16)])
def test_draws_continue_where_the_last_one_ended(sizes: tuple[int, ...]) -> None:
    stream = Stream("a", 3)
    drawn = np.concatenate([stream.unit((size,)) for size in sizes])
    np.testing.assert_array_equal(drawn, philox("a", 3, count=23))


def test_interleaved_streams_do_not_disturb_each_other() -> None:
    first, second = Stream("a"), Stream("b")
    drawn = [[stream.unit((size,)) for stream in (first, second)] for size in (3, 6)]
    for stream, parts in zip("ab", zip(*drawn, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), philox(stream, count=9))


def test_threads_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda key: Stream("thread", key).unit((5, 101)), range(200)))
    for key, values in enumerate(drawn):
        np.testing.assert_array_equal(values.ravel(), philox("thread", key, count=505))
