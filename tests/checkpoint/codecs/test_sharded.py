"""Sharded safetensors, as Hugging Face's tools read and write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, bits, limited, state

from acon_core.checkpoint.codecs import safetensors_file, sharded
from acon_core.checkpoint.convert import convert
from acon_core.checkpoint.formats import format_for
from acon_core.errors import AconError, CheckpointError
from acon_core.networks import create
from acon_core.spec import initial_state
from acon_core.tensors import LazyTensor, LazyTensors

INDEX = "model.safetensors.index.json"
TENSORS = {f"layer.{size}": bits("float32", (size, 3), size) for size in (7, 2, 5, 1)}


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != INDEX)


@pytest.mark.parametrize(("shard_bytes", "groups"), [(1 << 30, [4]), (108, [2, 2]), (84, [1, 2, 1]), (1, [1, 1, 1, 1])])
def test_shard_sizes(tmp_path: Path, shard_bytes: int, groups: list[int]) -> None:
    sharded.write(tmp_path / INDEX, TENSORS, {"network": "x"}, shard_bytes=shard_bytes)
    found = sharded.read(tmp_path / INDEX)
    assert_same(found.tensors, TENSORS)
    assert (found.metadata, found.notes) == ({"network": "x"}, [])
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in TENSORS.values())
    names = list(dict.fromkeys(index["weight_map"].values()))
    assert [list(index["weight_map"].values()).count(name) for name in names] == groups
    for number, name in enumerate(names, 1):
        assert re.fullmatch(rf"model-[0-9a-f]{{8}}-{number:05}-of-{len(groups):05}\.safetensors", name)
    assert parts(tmp_path) == sorted(names)


def test_library_reads_ours(tmp_path: Path) -> None:
    from safetensors import safe_open

    expected = {key: np.ascontiguousarray(array) for key, array in state("npz").items() if "complex128" not in key}
    expected = {key: array for key, array in expected.items() if array.dtype.isnative and array.ndim == state("npz")[key].ndim}
    sharded.write(tmp_path / INDEX, expected, {"network": "x"}, shard_bytes=200)
    index = json.loads((tmp_path / INDEX).read_text())
    found = {}
    for key, name in index["weight_map"].items():
        with safe_open(tmp_path / name, "np") as opened:
            assert opened.metadata() == {"format": "pt", "network": "x"}
            found[key] = opened.get_tensor(key)
    assert len(set(index["weight_map"].values())) > 3
    assert_same(found, expected)


def test_read_hugging_face(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    keys = list(TENSORS)
    save_file({key: TENSORS[key] for key in keys[:3]}, tmp_path / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file({keys[3]: TENSORS[keys[3]]}, tmp_path / "model-00002-of-00002.safetensors", {"format": "pt"})
    places = {key: f"model-0000{1 + (key == keys[3])}-of-00002.safetensors" for key in sorted(keys)}
    index = {"metadata": {"total_parameters": 45, "total_size": 180}, "weight_map": places}
    (tmp_path / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    assert sharded.sniff(tmp_path / INDEX)
    assert not safetensors_file.sniff(tmp_path / INDEX)
    found = sharded.read(tmp_path / INDEX)
    assert_same(found.tensors, {key: TENSORS[key] for key in sorted(keys)})
    assert (found.metadata, found.notes) == ({}, [])
    index["metadata"]["total_size"] = 181
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert "181 bytes in all, the tensors take 180" in sharded.read(tmp_path / INDEX).notes[0]


def test_suffix_selects_format() -> None:
    for name, expected in ((INDEX, "safetensors_sharded"), ("model.safetensors", "safetensors"), ("model.npz", "npz")):
        assert format_for(Path(name)).name == expected


def test_convert_round_trip(tmp_path: Path) -> None:
    network = create("acon/shufflenet_v2_x0_5")
    safetensors_file.write(tmp_path / "a.safetensors", initial_state(network.graph), {"network": network.name})
    convert(tmp_path / "a.safetensors", tmp_path / INDEX)
    convert(tmp_path / INDEX, tmp_path / "b.npz")
    convert(tmp_path / "b.npz", tmp_path / "b.safetensors")
    expected = safetensors_file.read(tmp_path / "a.safetensors").tensors
    assert_same(sharded.read(tmp_path / INDEX).tensors, expected)
    assert_same(safetensors_file.read(tmp_path / "b.safetensors").tensors, expected)


class DisturbedError(Exception):
    pass


def test_new_shards_keep_old_ones(tmp_path: Path) -> None:
    sharded.write(tmp_path / INDEX, TENSORS, shard_bytes=84)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def failing() -> np.ndarray:
        raise DisturbedError

    changed = {key: array + np.float32(1) for key, array in TENSORS.items()}
    lazies = {key: LazyTensor(array.shape, array.dtype, lambda array=array: array) for key, array in changed.items()}
    last = list(changed)[-1]
    with pytest.raises(DisturbedError):
        sharded.write(
            tmp_path / INDEX, LazyTensors(lazies | {last: LazyTensor((1, 3), np.dtype("f4"), failing)}), shard_bytes=84
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
    sharded.write(tmp_path / INDEX, LazyTensors(lazies), shard_bytes=84)
    assert_same(sharded.read(tmp_path / INDEX).tensors, changed)
    now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: now[name] for name in old if name != INDEX} == {name: data for name, data in old.items() if name != INDEX}
    assert len(parts(tmp_path)) == 6


def test_failure_keeps_old_shards(tmp_path: Path) -> None:
    sharded.write(tmp_path / INDEX, TENSORS, shard_bytes=84)
    old = parts(tmp_path)

    def failing() -> np.ndarray:
        raise DisturbedError

    lazies = {key: LazyTensor(array.shape, array.dtype, lambda array=array: array) for key, array in TENSORS.items()}
    lazies[list(TENSORS)[-1]] = LazyTensor((1, 3), np.dtype("f4"), failing)
    with pytest.raises(DisturbedError):
        sharded.write(tmp_path / INDEX, LazyTensors(lazies), shard_bytes=84)
    assert parts(tmp_path) == old
    assert_same(sharded.read(tmp_path / INDEX).tensors, TENSORS)


def test_one_tensor_in_memory(tmp_path: Path) -> None:
    alive: list[str] = []
    most = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            if type(self.base) is np.ndarray:
                alive.pop()

    def make() -> np.ndarray:
        alive.append("x")
        most.append(len(alive))
        return np.ones((2, 3), np.float32).view(Counted)

    lazies = {f"w{i}": LazyTensor((2, 3), np.dtype("f4"), make) for i in range(6)}
    sharded.write(tmp_path / INDEX, LazyTensors(lazies), shard_bytes=50)
    assert len(most) == 6
    assert max(most) == 1


def test_reserved_metadata(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="total_size"):
        sharded.write(tmp_path / INDEX, TENSORS, {"total_size": "3"})
    assert parts(tmp_path) == []


def changed_index(folder: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def refused(folder: Path, kind: str) -> str:
    with pytest.raises(CheckpointError, match=str(folder)) as caught:
        sharded.read(folder / INDEX)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../s", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "C:x", "a\0b", "a\nb", 3, None, ["x"], {"a": 1}],
)
def test_shard_names(tmp_path: Path, name: object) -> None:
    spelled = f"{name}.safetensors" if isinstance(name, str) and name not in ("..", ".", "") else name
    sharded.write(tmp_path / INDEX, TENSORS)
    changed_index(tmp_path, lambda index: index["weight_map"].update({"layer.5": spelled}))
    assert "layer.5: its shard is" in refused(tmp_path, "unsafe")


def test_hugging_face_cache(tmp_path: Path) -> None:
    """In Hugging Face's cache, a snapshot's files are links to blobs named by their hash."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1f0a"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    sharded.write(blobs / INDEX, TENSORS, shard_bytes=84)
    names = parts(blobs)
    for number, name in enumerate([INDEX, *names]):
        (blobs / name).rename(blobs / f"blob{number}")
        (snapshot / name).symlink_to(Path("..", "..", "blobs", f"blob{number}"))
    assert_same(sharded.read(snapshot / INDEX).tensors, TENSORS)
    (blobs / "blob2").rename(tmp_path / "elsewhere")
    (blobs / "blob2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{names[1]} is a link") as caught:
        sharded.read(snapshot / INDEX)
    assert caught.value.kind == "unsafe"


def test_shard_is_link(tmp_path: Path) -> None:
    sharded.write(tmp_path / INDEX, TENSORS)
    shard = tmp_path / parts(tmp_path)[0]
    (tmp_path / "inner").mkdir()
    shard.rename(tmp_path / "inner" / "x.safetensors")
    shard.symlink_to(tmp_path / "inner" / "x.safetensors")
    assert "is a link" in refused(tmp_path, "unsafe")


@pytest.mark.parametrize("case", ["missing", "more in the index", "more in the shard", "in another", "folder", "cut", "html"])
def test_index_contradicts_shards(tmp_path: Path, case: str) -> None:
    sharded.write(tmp_path / INDEX, TENSORS, shard_bytes=108)
    first, second = parts(tmp_path)
    if "00002-of" in first:
        first, second = second, first
    shard = tmp_path / second
    changes = {
        "more in the index": lambda index: index["weight_map"].update({"new": first}),
        "more in the shard": lambda index: index["weight_map"].pop("layer.2"),
        "in another": lambda index: index["weight_map"].update({"layer.2": second}),
    }
    if case in changes:
        changed_index(tmp_path, changes[case])
        message = refused(tmp_path, "corrupt")
        assert {"more in the index": "new: only the index", "more in the shard": "layer.2: only the shard"}.get(
            case, ""
        ) in message
    elif case == "missing":
        shard.unlink()
        assert f"{second} is missing" in refused(tmp_path, "corrupt")
    elif case == "folder":
        shard.unlink()
        shard.mkdir()
        with pytest.raises(AconError, match=f"{second}.*found a folder"):
            sharded.read(tmp_path / INDEX)
    else:
        shard.write_bytes(shard.read_bytes()[:-4] if case == "cut" else b"<!DOCTYPE html>")
        assert second in refused(tmp_path, "corrupt")


def test_pytorch_shards(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text('{"metadata": {}, "weight_map": {"w": "pytorch_model-00001-of-00002.bin"}}')
    assert "safe_serialization=True" in refused(tmp_path, "unsupported")


@pytest.mark.parametrize(
    "content",
    [
        b'{"weight_map": []}',
        b'{"weight_map": {}, "metadata": 3}',
        b'{"metadata": {}}',
        b"[]",
        b'{"weight_map": {"w": "x.safetensors", "w": "x.safetensors"}}',
        b'{"weight_map": {"w": "x.safetensors"',
        b'{"weight_map": ' + b'{"a":' * 100_000,
        b'{"weight_map": {"\\ud800": "x.safetensors"}}',
        b'{"weight_map": {"w": NaN}}',
    ],
)
def test_hostile_index(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INDEX).write_bytes(content)
    refused(tmp_path, "corrupt")


def test_limits(tmp_path: Path) -> None:
    sharded.write(tmp_path / INDEX, TENSORS)
    for limit, value in {"header_bytes": 100, "file_bytes": 150, "ndim": 1}.items():
        with limited(**{limit: value}), pytest.raises(CheckpointError):
            sharded.read(tmp_path / INDEX)
