"""From every format to every other: the same names, shapes, dtypes and bits."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from checkpoint_samples import DTYPES, FORMATS, assert_same, module, state

NAMES = sorted(FORMATS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.mark.parametrize(("source", "target"), list(permutations(NAMES, 2)))
def test_every_pair_of_formats(folder: Path, source: str, target: str) -> None:
    """Pass the lazy tensors of one file to the other codec: views, copies, joined, inflated."""
    common = set(DTYPES[source]) & set(DTYPES[target])
    awkward = {name: array for name, array in state(source).items() if array.dtype.name in common}
    assert {array.dtype.name for array in awkward.values()} == common
    first, second = folder / f"{source}-{target}", folder / f"{source}-{target}-2"
    module(source).write(first, awkward)
    module(target).write(second, module(source).read(first).tensors)
    assert_same(module(target).read(second).tensors, awkward, order=False)
