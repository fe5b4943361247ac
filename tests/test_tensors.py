"""Lazy tensors load on demand, and names are compared strictly."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core.errors import StateError
from acon_core.tensors import LazyTensor, LazyTensors, check_names, lazy_items


def test_lazy_tensors_load_at_each_access() -> None:
    loaded = []

    def load() -> np.ndarray:
        loaded.append("w")
        return np.arange(6, dtype=np.float16).reshape(2, 3)

    tensors = LazyTensors({"w": LazyTensor((2, 3), np.dtype(np.float16), load)})
    described = lazy_items(tensors)["w"]
    assert (described.shape, described.dtype, described.nbytes) == ((2, 3), np.float16, 12)
    assert (list(tensors), len(tensors), loaded) == (["w"], 1, [])
    assert tensors["w"].tolist() == tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded == ["w", "w"]


def test_lazy_items_of_arrays() -> None:
    array = np.ones((3, 2))
    assert lazy_items({"w": array})["w"].load() is array


def test_check_names() -> None:
    check_names(["b", "a"], {"a": 1, "b": 2})
    with pytest.raises(StateError, match=r"^state: 'b' is missing \(1 missing, 2 unexpected, 2 expected\)$"):
        check_names(["a", "b"], ["c", "a", "d"])
    with pytest.raises(StateError, match=r"^gradients: 'c' is unexpected \(0 missing, 1 unexpected, 1 expected\)$"):
        check_names(["a"], ["a", "c"], "gradients")
