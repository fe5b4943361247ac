"""Folders that Orbax saved are read without it, in every layout that it has."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acon_jax.checkpoint import orbax
from acon_jax.checkpoint.codecs import crc32c
from acon_jax.checkpoint.folder import Folder
from acon_jax.checkpoint.ocdbt import entries
from checkpoint_samples import assert_same, limited
from orbax_folders import END, GOOD, ZERO, files, good, ocdbt
from orbax_trees import STORED, arrays, unpacked

from acon_core.checkpoint import read_file
from acon_core.errors import AconError, CheckpointError


def refused(path: Path, kind: str) -> str:
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        dict(orbax.read(path).tensors)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON in a file by a function."""
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


@pytest.mark.parametrize("name", STORED)
def test_every_layout_gives_the_arrays_that_were_saved(tmp_path: Path, name: str) -> None:
    path = unpacked(name, tmp_path)
    format, found = read_file(path)
    assert (format.name, format.codec, format.backend) == ("orbax", orbax, "jax")
    assert_same(found.tensors, arrays(), order=False)
    assert found.notes == ["ignored what is not an array: 'block.none', 'epoch'"]
    for tensor in found.tensors.values():
        assert tensor.flags.c_contiguous
        assert tensor.flags.aligned
        assert not tensor.flags.writeable


def test_the_samples_are_what_their_names_say(tmp_path: Path) -> None:
    names = {name: sorted(p.name for p in unpacked(name, tmp_path).rglob("*") if p.is_file()) for name in STORED}
    for name in ("ocdbt_zarr2", "ocdbt_zarr3", "tall"):
        assert "manifest.ocdbt" in names[name]
    assert names["files_zarr2"].count(".zarray") == names["files_zarr3"].count("zarr.json") == len(arrays()) + 1
    assert {"0.0", "0.1", "1.0", "1.1"} <= set(names["files_zarr2"])  # of an array in several chunks
    assert "sharding_indexed" in (tmp_path / "files_zarr3/cut/zarr.json").read_text()


def test_nnx_states_and_managers_have_the_names_of_msgpack(tmp_path: Path) -> None:
    found = orbax.read(unpacked("nnx", tmp_path))
    shapes = {name: tensor.shape for name, tensor in found.tensors.lazies.items()}
    layers = {f"layers.{index}.{name}" for index in (0, 1) for name in ("bias", "kernel")}
    assert set(shapes) == {*layers, "norm.bias", "norm.mean", "norm.scale", "norm.var"}
    assert shapes["layers.1.kernel"] == (3, 4)
    assert found.notes == ["ignored random streams: 'drop.rngs'", "left out the last step of every path, value"]
    manager = unpacked("manager", tmp_path)
    for path, note in ((manager, [Path("12/default")]), (manager / "12", [Path("default")]), (manager / "12/default", [])):
        assert orbax.sniff(path)
        found = orbax.read(path)
        assert_same(found.tensors, {"w": arrays()["cut"], "w_mean": arrays()["block.list.1"]})
        assert found.notes == [
            *(f"read the checkpoint in {each}" for each in note),
            "merged params and batch_stats; ignored 'step'",
        ]


def test_several_steps_are_listed_and_none_is_chosen(tmp_path: Path) -> None:
    manager = unpacked("manager", tmp_path)
    shutil.copytree(manager / "12", manager / "9.orbax-checkpoint-tmp-4")
    (manager / "link").symlink_to(manager / "12")
    assert "w" in orbax.read(manager).tensors
    shutil.copytree(manager / "12", manager / "9")
    assert "'9/default', '12/default'; give the folder of one" in refused(manager, "unsupported")
    assert "w" in orbax.read(manager / "9").tensors


def test_other_folders_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    (tmp_path / "a/b/c/d/_METADATA").write_text("{}")
    assert not orbax.sniff(tmp_path)
    assert orbax.sniff(tmp_path / "a/b")
    refused(tmp_path, "unsupported")
    with pytest.raises(AconError, match="cannot be read"):
        orbax.sniff(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="--to jax") as caught:
        orbax.write(tmp_path / "x", {}, {})
    assert caught.value.kind == "unsupported"


def test_arrays_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = unpacked("files_zarr2", tmp_path)
    found = orbax.read(path).tensors
    chunk = path / "block.conv.kernel/0.0.0.0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    assert found.lazies["block.conv.kernel"].shape == (3, 2, 4, 5)
    for change in (content[:-1], b"\0" + content[1:], b""):
        chunk.write_bytes(change)
        with pytest.raises(CheckpointError, match=rf"{path}: block.conv.kernel: ") as caught:
            found["block.conv.kernel"]
        assert caught.value.kind == "corrupt"
    chunk.unlink()
    with pytest.raises(CheckpointError, match=rf"{path}: block.conv.kernel: .*cannot be read"):
        found["block.conv.kernel"]
    chunk.symlink_to(path / "cut/0.0")
    with pytest.raises(CheckpointError, match=rf"{path}: block.conv.kernel: .*cannot be read"):
        found["block.conv.kernel"]
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(CheckpointError, match=rf"{path}: block.conv.kernel: .*has changed"):
        found["block.conv.kernel"]


@pytest.mark.parametrize("name", ["files_zarr2", "files_zarr3", "ocdbt_zarr2"])
def test_without_zstandard_the_way_out_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = unpacked(name, tmp_path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install 'acon-ports[orbax]'" in refused(path, "unsupported")


def test_bytes_that_are_not_packed_need_no_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = unpacked("files_zarr2", tmp_path)
    expected = arrays()
    kept = {"('cut',)": "cut"}
    edit(path / "_METADATA", lambda found: found.update(tree_metadata={k: found["tree_metadata"][k] for k in kept}))
    edit(path / "cut/.zarray", lambda found: found.update(compressor=None))
    for chunk in (path / "cut").glob("?.?"):
        row, column = (int(step) for step in chunk.name.split("."))
        rows, columns = json.loads((path / "cut/.zarray").read_text())["chunks"]
        part = expected["cut"][row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        chunk.write_bytes(part.tobytes())
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert_same(orbax.read(path).tensors, {"cut": expected["cut"]})
    chunk.write_bytes(part.tobytes()[:-1])
    assert "expected" in refused(path, "corrupt")


def test_older_files_leave_out_chunks_of_zeros(tmp_path: Path) -> None:
    path = unpacked("files_zarr2", tmp_path)
    (path / "cut/0.1").unlink()
    assert "cut/0.1: is missing" in refused(path, "corrupt")
    edit(path / "_METADATA", lambda found: found.pop("store_array_data_equal_to_fill_value"))
    rows, columns = json.loads((path / "cut/.zarray").read_text())["chunks"]
    expected = arrays()["cut"].copy()
    expected[:rows, columns:] = 0
    assert_same({"cut": orbax.read(path).tensors["cut"]}, {"cut": expected})
    for fill in (1.5, -0.0):
        edit(path / "cut/.zarray", lambda found, fill=fill: found.update(fill_value=fill))
        assert f"chunks are left out, and stand for {fill}" in refused(path, "unsupported")


def test_the_checksum_is_that_of_the_castagnoli_polynomial() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_long_bytes_have_the_checksum_that_short_ones_add_up_to() -> None:
    data = np.random.default_rng(0).integers(0, 256, 9001, dtype=np.uint8).tobytes()
    state = 0xFFFFFFFF  # bit by bit, as the definition has it
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    assert crc32c(data) == state ^ 0xFFFFFFFF
    assert crc32c(memoryview(data)) == crc32c(data) != crc32c(data[:-1])


@pytest.mark.parametrize(
    ("limit", "value", "kind", "said"),
    [
        ("members", 3, "corrupt", "more than 3 files"),
        ("depth", 1, "corrupt", "nested too deep"),
        ("header_bytes", 100, "unsupported", "more than 100"),
        ("ndim", 3, "corrupt", "up to 3 whole numbers"),
        ("line", 10, "corrupt", "a name of"),
        ("expansion", 0, "corrupt", "entries"),
        ("file_bytes", 5000, "unsupported", "more than 5000"),
    ],
)
def test_limits_hold(tmp_path: Path, limit: str, value: int, kind: str, said: str) -> None:
    with limited(**{limit: value}):
        assert said in refused(unpacked("ocdbt_zarr2", tmp_path), kind)


def test_a_store_may_have_nothing_in_it(tmp_path: Path) -> None:
    ocdbt(good(), offset=END, length=END)(tmp_path)
    assert entries(Folder(tmp_path)) == {}


def test_a_nodes_files_are_named_after_its_own(tmp_path: Path) -> None:
    value = GOOD[b"w/.zarray"]
    node = good({b"w/.zarray": (0, 0, len(value)), b"w/0.0": ZERO}, files(b"values"))
    ocdbt(node, name=b"process/d", base=len("process/"))(tmp_path)
    (tmp_path / "process").mkdir()
    (tmp_path / "d").rename(tmp_path / "process/d")
    (tmp_path / "process/values").write_bytes(value)
    assert_same(orbax.read(tmp_path).tensors, {"w": np.zeros((2, 3), np.float32)})
