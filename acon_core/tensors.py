"""Arrays by name, loaded on demand: converting a checkpoint needs the memory of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import StateError


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """An array that is described but not loaded.

    Parameters
    ----------
    shape : tuple of int
        The shape of the array.
    dtype : numpy.dtype
        Its dtype.
    load : callable
        Return the array. Every call loads it again.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], NDArray]

    @property
    def nbytes(self) -> int:
        """The size of the loaded array in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class LazyTensors(Mapping[str, NDArray]):
    """An ordered, read-only mapping of names to arrays that loads an array at each access.

    Parameters
    ----------
    lazies : mapping of str to LazyTensor
        The tensors by name. The attribute of the same name gives shapes and dtypes without loading.

    Notes
    -----
    Nothing is cached: ``tensors["weight"]`` twice loads the array twice.
    """

    def __init__(self, lazies: Mapping[str, LazyTensor]) -> None:
        self.lazies = dict(lazies)

    def __getitem__(self, name: str) -> NDArray:
        return self.lazies[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazies)

    def __len__(self) -> int:
        return len(self.lazies)


def lazy_items(tensors: Mapping[str, NDArray]) -> Mapping[str, LazyTensor]:
    """Describe arrays by name without loading those that are lazy."""
    if isinstance(tensors, LazyTensors):
        return tensors.lazies
    return {name: eager(array) for name, array in tensors.items()}


def eager(array: NDArray) -> LazyTensor:
    """Wrap an array that is in memory."""
    return LazyTensor(array.shape, array.dtype, lambda: array)


def check_names(expected: Collection[str], found: Collection[str], what: str = "state") -> None:
    """Check that a state has exactly the names of a network.

    Parameters
    ----------
    expected, found : collection of str
        The names of the network, and those of the state.
    what : str
        What ``found`` are names of. The message begins with it.

    Raises
    ------
    StateError
        If a name is missing or unexpected. The message gives the first such name and both counts.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        first = f"{missing[0]!r} is missing" if missing else f"{unexpected[0]!r} is unexpected"
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(expected)} expected"
        raise StateError(f"{what}: {first} ({counts})")
