"""Arrays by name that are made when they are asked for: a checkpoint of any size takes the memory of its largest tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor that is described and not there yet; `load` makes it, each time anew."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], NDArray]

    @property
    def nbytes(self) -> int:
        """How many bytes it will take."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class LazyTensors(Mapping[str, NDArray]):
    """Arrays by name, in order. Asking for one makes it, and nothing keeps it; `lazies` tells shapes and dtypes for free."""

    def __init__(self, lazies: Mapping[str, LazyTensor]) -> None:
        self.lazies = dict(lazies)

    def __getitem__(self, name: str) -> NDArray:
        return self.lazies[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazies)

    def __len__(self) -> int:
        return len(self.lazies)


def lazy_items(tensors: Mapping[str, NDArray]) -> Mapping[str, LazyTensor]:
    """Shapes and dtypes of arrays by name, without making those that are not there yet."""
    if isinstance(tensors, LazyTensors):
        return tensors.lazies
    return {name: eager(array) for name, array in tensors.items()}


def eager(array: NDArray) -> LazyTensor:
    """An array that is there already."""
    return LazyTensor(array.shape, array.dtype, lambda: array)
