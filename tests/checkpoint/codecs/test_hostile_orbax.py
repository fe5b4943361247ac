"""Folders of Orbax that none is are refused, at once and within little memory."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from acon_jax.checkpoint import orbax
from attacks import Attack
from checkpoint_samples import assert_same
from hostile_orbax import CASES, SAID
from hostile_pickles import Kind
from orbax_folders import NODE, PLAIN, ROW, Case, fan, framed, good, inner, interior, ocdbt, shard, zarr2, zarr3, zstd
from orbax_folders import files as table

from acon_core.errors import CheckpointError

ZEROS = {"w": np.zeros((2, 3), np.float32)}
HIGH = [good(), framed(NODE, interior(1, table(b"d"), [(b"w/", 0, len(good()))]))]


def folders_of_chunks(path: Path) -> None:
    zarr2(dimension_separator="/")(path)
    (path / "w/0").mkdir()
    (path / "w/0.0").rename(path / "w/0/0")


GOOD: dict[str, Case] = {
    "zarr 2": zarr2(),
    "zarr 2, plain": zarr2(bytes(24), compressor=None),
    "zarr 2, a chunk larger than the array": zarr2(zstd(bytes(80)), chunks=[4, 5]),
    "zarr 2, folders of chunks": folders_of_chunks,
    "zarr 2, all left out": zarr2(key="other", whole=False),
    "zarr 3, shards": zarr3(),
    "zarr 3, index first": inner(shard([(36, len(ROW))] * 2) + ROW, index_location="start"),
    "zarr 3, no shards": zarr3(zstd(bytes(24)), codecs=PLAIN),
    "zarr 2, rows last": zarr2(order="F"),
    "zarr 2, big-endian": zarr2(dtype=">f4"),
    "zarr 2, one field": zarr2(dtype=[["a", "<f4"]]),
    "OCDBT": ocdbt(good()),
    "OCDBT, the same node under two keys": fan(1, 2),
    "OCDBT, packed": ocdbt(good(packed=True), framing={"packed": True}),
    "OCDBT, two levels": ocdbt(*HIGH, height=1),
}


CHOSEN = [(attack, kind, name, case) for (attack, kind), cases in CASES.items() for name, case in cases.items()]


@pytest.mark.parametrize("name", GOOD)
def test_the_good_ones_are_read(tmp_path: Path, name: str) -> None:
    GOOD[name](tmp_path)
    assert_same(orbax.read(tmp_path).tensors, ZEROS)


@pytest.mark.parametrize(
    ("attack", "kind", "name", "case"), CHOSEN, ids=[f"{attack.name.lower()}-{name}" for attack, _, name, _ in CHOSEN]
)
def test_a_hostile_folder_is_refused(tmp_path: Path, attack: Attack, kind: Kind, name: str, case: Case) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    case(folder)
    assert orbax.sniff(folder)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(CheckpointError) as caught:
            dict(orbax.read(folder).tensors)
        assert time.process_time() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    assert caught.value.kind == kind, caught.value
    assert SAID.get(name, "") in str(caught.value)
