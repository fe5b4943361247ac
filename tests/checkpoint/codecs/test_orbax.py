"""Folders that Orbax saved are read without it, in every layout that it has."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acon_jax.checkpoint import orbax
from checkpoint_samples import assert_same, bits, limited
from orbax_folders import GOOD, ZERO, crc32c, files, good, metadata, ocdbt, zarr2
from orbax_trees import HOSTS, STORED, arrays, shared_arrays, unpacked

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
    assert names["files_zarr2"].count(".zarray") == names["files_zarr3"].count("zarr.json") == 16  # 15 arrays and a number
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
    with pytest.raises(CheckpointError, match=rf"{path}: block.conv.kernel: .*is missing"):
        found["block.conv.kernel"]
    chunk.symlink_to(path / "cut/0.0")
    with pytest.raises(CheckpointError, match=rf"{path}/block.conv.kernel: 0.0.0.0: is a link"):
        found["block.conv.kernel"]
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(CheckpointError, match=rf"{path}/block.conv.kernel: 0.0.0.0: is a link or a device"):
        found["block.conv.kernel"]


def test_a_database_is_searched_for_links_when_an_array_is_asked_for(tmp_path: Path) -> None:
    path = unpacked("ocdbt_zarr2", tmp_path)
    found = orbax.read(path).tensors
    (path / "d").rename(tmp_path / "d")
    (path / "d").symlink_to(tmp_path / "d")
    with pytest.raises(CheckpointError, match=rf"{path}: d: is a link"):
        found["cut"]


@pytest.mark.parametrize("name", HOSTS)
def test_several_hosts_save_one_checkpoint(tmp_path: Path, name: str) -> None:
    path = unpacked(name, tmp_path)
    assert_same(orbax.read(path).tensors, shared_arrays(), order=False)
    if "ocdbt" in name:
        assert {"ocdbt.process_0", "ocdbt.process_1"} <= {each.name for each in path.iterdir()}
        (path / "manifest.ocdbt").unlink()
        assert "the hosts did not finish saving" in refused(path, "corrupt")
    else:
        assert {"0.0", "0.1", "0.2", "1.0", "1.1", "1.2"} <= {each.name for each in (path / "grid").iterdir()}


@pytest.mark.parametrize("name", ["files_zarr2", "ocdbt_zarr3"])
def test_without_tensorstore_a_folder_is_recognised_and_the_extra_is_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unpacked(name, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    assert orbax.sniff(path)
    assert "pip install 'acon-ports[orbax]'" in refused(path, "unsupported")
    with pytest.raises(CheckpointError, match=re.escape("pip install 'acon-ports[orbax]'")):
        read_file(path)


def test_tensorstore_is_imported_for_an_orbax_folder_alone(tmp_path: Path) -> None:
    path = unpacked("ocdbt_zarr2", tmp_path)
    script = """
import sys
from pathlib import Path
import numpy
from acon_core.checkpoint.formats import sniff
from acon_jax.checkpoint import codec, orbax
folder, file = map(Path, sys.argv[1:])
codec.write(file, {"w": numpy.ones(3)})
codec.read(file)
print(*(each.name for each in sniff(folder)), "tensorstore" in sys.modules)
orbax.read(folder)
print("tensorstore" in sys.modules, "jax" in sys.modules)
"""
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "a.msgpack")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.stdout.split() == ["orbax", "False", "True", "False"], done.stderr


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a b%20#?@:|é"
    unpacked("ocdbt_zarr2", tmp_path).rename(path)
    assert_same(orbax.read(path).tensors, arrays(), order=False)


def test_the_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked("files_zarr3", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = orbax.read(Path("files_zarr3")).tensors
    monkeypatch.chdir("/")
    assert_same(found, arrays(), order=False)


def test_older_files_leave_out_chunks_of_zeros(tmp_path: Path) -> None:
    path = unpacked("files_zarr2", tmp_path)
    (path / "cut/0.1").unlink()
    assert '"cut/0.1" is missing' in refused(path, "corrupt")
    edit(path / "_METADATA", lambda found: found.pop("store_array_data_equal_to_fill_value"))
    rows, columns = json.loads((path / "cut/.zarray").read_text())["chunks"]
    expected = arrays()["cut"].copy()
    expected[:rows, columns:] = 0
    assert_same({"cut": orbax.read(path).tensors["cut"]}, {"cut": expected})
    for fill in (1.5, -0.0):
        edit(path / "cut/.zarray", lambda found, fill=fill: found.update(fill_value=fill))
        expected[:rows, columns:] = fill
        assert_same({"cut": orbax.read(path).tensors["cut"]}, {"cut": expected})


def test_the_checksum_of_the_samples_is_that_of_the_castagnoli_polynomial() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.parametrize(
    ("limit", "value", "kind", "said"),
    [
        ("members", 3, "corrupt", "more than 3 files"),
        ("depth", 1, "corrupt", "or 1 levels of folders"),
        ("header_bytes", 100, "unsupported", "more than 100"),
        ("ndim", 3, "corrupt", "up to 3 whole numbers"),
        ("line", 10, "unsupported", "expected at most 10"),
        ("file_bytes", 5000, "unsupported", "more than 5000"),
    ],
)
def test_limits_hold(tmp_path: Path, limit: str, value: int, kind: str, said: str) -> None:
    with limited(**{limit: value}):
        assert said in refused(unpacked("ocdbt_zarr2", tmp_path), kind)


def test_the_memory_of_all_arrays_and_chunks_is_bounded(tmp_path: Path) -> None:
    path = unpacked("files_zarr2", tmp_path)
    needed = 0
    for name, array in arrays().items():
        cells = math.prod(json.loads((path / name / ".zarray").read_text())["chunks"])
        needed += len(list((path / name).glob("[0-9]*"))) * (cells * array.itemsize + 1024)
    with limited(expansion=0, expansion_floor=needed):
        orbax.read(path)
    with limited(expansion=0, expansion_floor=needed - 1):
        assert "fill the memory" in refused(path, "corrupt")


def test_the_files_of_a_node_are_named_after_its_own(tmp_path: Path) -> None:
    value = GOOD[b"w/.zarray"]
    node = good({b"w/.zarray": (0, 0, len(value)), b"w/0.0": ZERO}, files(b"values"))
    ocdbt(node, name=b"process/d", base=len("process/"))(tmp_path)
    (tmp_path / "process").mkdir()
    (tmp_path / "d").rename(tmp_path / "process/d")
    (tmp_path / "process/values").write_bytes(value)
    assert_same(orbax.read(tmp_path).tensors, {"w": np.zeros((2, 3), np.float32)})


def zarr(**metadata: Any) -> dict[str, Any]:
    """Return a Zarr 2 specification of a 10x7 array in chunks."""
    return {
        "driver": "zarr",
        "metadata": {"chunks": [3, 4], "compressor": {"id": "zstd", "level": 1}, "dtype": "<f4"} | metadata,
    }


def zarr3(chunk: list[int], *codecs: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
    described = {"chunk_grid": grid, "data_type": "float32"} | ({"codecs": list(codecs)} if codecs else {})
    return {"driver": "zarr3", "metadata": described | metadata}


def sharded(chunk: list[int], *codecs: dict[str, Any], **configuration: str) -> dict[str, Any]:
    return {"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": list(codecs)} | configuration}


ZSTD = {"name": "zstd", "configuration": {"level": 1}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
ARRAYS = {
    "zarr 2, edges": zarr(),
    "zarr 2, plain": zarr(compressor=None, dimension_separator="/"),
    "zarr 2, one large chunk": zarr(chunks=[30, 40]),
    "zarr 2, columns first": zarr(order="F"),
    "zarr 2, big-endian": zarr(dtype=">f4"),
    "zarr 3, plain": zarr3([3, 4]),
    "zarr 3, zstd": zarr3([3, 4], {"name": "bytes"}, ZSTD),
    "zarr 3, big-endian": zarr3([3, 4], BIG),
    "zarr 3, names of zarr 2": zarr3([3, 4], chunk_key_encoding={"name": "v2"}),
    "zarr 3, names with dots": zarr3([3, 4], chunk_key_encoding={"name": "default", "configuration": {"separator": "."}}),
    "zarr 3, shards": zarr3([4, 6], sharded([2, 3], {"name": "bytes"}, ZSTD)),
    "zarr 3, shards, index first": zarr3([4, 6], sharded([2, 3], {"name": "bytes"}, ZSTD, index_location="start")),
    "zarr 3, shards in shards": zarr3([8, 6], sharded([4, 6], sharded([2, 3], {"name": "bytes"}))),
}


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("name", ARRAYS)
def test_every_way_to_cut_an_array(tmp_path: Path, name: str, complete: bool) -> None:
    import tensorstore

    expected = np.arange(1, 71, dtype=np.float32).reshape(10, 7)
    if not complete:
        expected[:6] = 0  # these chunks are not stored, as older versions of Orbax do
    spec = ARRAYS[name] | {"kvstore": f"file://{tmp_path}/w/", "store_data_equal_to_fill_value": complete}
    spec["metadata"] = spec["metadata"] | {"shape": [10, 7]}
    tensorstore.open(spec, create=True).result().write(expected).result()
    tree = '{"tree_metadata": {"w": {"key_metadata": [{"key": "w"}], "value_metadata": {"value_type": "jax.Array"}}}'
    (tmp_path / "_METADATA").write_text(tree + (', "store_array_data_equal_to_fill_value": true}' if complete else "}"))
    assert_same(orbax.read(tmp_path).tensors, {"w": expected})
    assert complete or len(list((tmp_path / "w").rglob("*"))) < 14


def test_float8_e8m0fnu_takes_python_3_11(tmp_path: Path) -> None:
    zarr2(bytes([1, 2, 3, 4, 5, 250]), compressor=None, dtype="float8_e8m0fnu")(tmp_path)
    if sys.version_info >= (3, 11):
        assert orbax.read(tmp_path).tensors["w"].view(np.uint8).tolist() == [[1, 2, 3], [4, 5, 250]]
    else:
        assert 'Unsupported zarr dtype: "float8_e8m0fnu"' in refused(tmp_path, "unsupported")


@pytest.mark.parametrize("kind", ["single", "numbered"])
@pytest.mark.parametrize("packed", [None, {"id": "zstd", "level": 3}])
def test_every_kind_of_database(tmp_path: Path, kind: str, packed: dict[str, Any] | None) -> None:
    import tensorstore

    expected = {f"w{index}": bits("uint16", (index, 3), index) for index in range(30)}
    config = {"max_decoded_node_bytes": 200, "max_inline_value_bytes": 40, "compression": packed, "manifest_kind": kind}
    base = {"driver": "ocdbt", "base": f"file://{tmp_path}/", "config": config}
    for name, array in expected.items():
        spec = zarr(chunks=[2, 3], dtype="<u2", shape=list(array.shape)) | {"kvstore": base | {"path": f"{name}/"}}
        store = tensorstore.open(spec | {"store_data_equal_to_fill_value": True}, create=True).result()
        store.write(array[::-1]).result()
        store.write(array).result()  # a version more
    (tmp_path / "_METADATA").write_bytes(metadata(*((name,) for name in expected)))
    assert_same(orbax.read(tmp_path).tensors, expected)
