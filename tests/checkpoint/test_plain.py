"""State dicts of networks that are not known, tensor for tensor; targets; dry runs."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_checkpoints import NAME, run_acon, same_bits, smallest, write, write_smallest, write_state

from acon_core.checkpoint import NetworkQuery, convert, formats, read_file
from acon_core.checkpoint.recognise import OWN_NETWORK
from acon_core.errors import AconError, CheckpointError, UnknownNetworkError
from acon_core.spec import fold

SAME_LAYOUT = ["torch", "torch_legacy", "safetensors", "safetensors_sharded", "npz"]
STATE = {"encoder.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(7, np.int32)}


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[str]) -> dict[str, np.ndarray]:
    """Draw tensors of any bits: NaN payloads, 0-d, empty and transposed ones too."""
    letters = st.text("abx_.0/-é", min_size=1, max_size=12)
    names = letters.filter(lambda name: all(part not in ("", ".", "..") for part in name.split("/")) and name[-1] != ".")
    made = {}
    for name in draw(st.lists(names, min_size=1, max_size=4, unique_by=str.lower)):
        dtype = np.dtype(getattr(ml_dtypes, (kind := draw(st.sampled_from(dtypes))), None) or kind)
        shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        size = int(np.prod(shape)) * dtype.itemsize
        bits = draw(st.binary(min_size=size, max_size=size)) if dtype.kind != "b" else bytes(size)
        made[name] = np.frombuffer(bits, dtype).reshape(shape).T
    return made


def storable(*names: str) -> list[str]:
    return sorted(set.intersection(*(set(formats()[name].codec.DTYPES) for name in names)))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(SAME_LAYOUT), st.sampled_from(SAME_LAYOUT))
def test_any_state_dict(data: st.DataObject, source: str, target: str) -> None:
    """There and back: every name in its order, every dtype that both formats have, every bit."""
    state = data.draw(tensors(storable(source, target)))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("a", "b.safetensors.index.json", "c")]
        formats()[source].codec.write(paths[0], state, {})
        done = convert(paths[0], paths[1], target)
        convert(paths[1], paths[2], source)
        assert any("copied tensor for tensor" in note for note in done.notes)
        for path, name in zip(paths, (source, target, source), strict=True):
            format, file = read_file(path)
            assert format.name == name
            assert list(file.tensors) == list(state)
            assert all(same_bits(file.tensors[key], array) for key, array in state.items())


def test_what_numpy_reads(tmp_path: Path) -> None:
    write_state(tmp_path / "a.pth", STATE)
    convert(tmp_path / "a.pth", tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as archive:
        assert archive.files == list(STATE)
        assert all(same_bits(archive[name], array) for name, array in STATE.items())


def test_names_and_metadata_stay(tmp_path: Path) -> None:
    """A prefix such as `module.` may belong to a network that is not known."""
    named = {f"module.{name}": array for name, array in STATE.items()}
    formats()["safetensors"].codec.write(tmp_path / "a", named, {"format": "pt"})
    convert(tmp_path / "a", tmp_path / "b.npz")
    file = formats()["npz"].codec.read(tmp_path / "b.npz")
    assert (list(file.tensors), file.metadata) == (list(named), {"format": "pt"})


def test_cast_without_a_network(tmp_path: Path) -> None:
    state = {"a": np.array([1.5, -2], ml_dtypes.bfloat16), "b": np.array([3], np.int64)}
    write_state(tmp_path / "a.pth", state)
    with pytest.raises(CheckpointError, match=r"cannot store bfloat16.*--cast"):
        convert(tmp_path / "a.pth", tmp_path / "b.npz")
    done = convert(tmp_path / "a.pth", tmp_path / "b.npz", cast=True)
    assert "cast 1 tensors from bfloat16 to float32" in done.notes
    assert read_file(tmp_path / "b.npz")[1].tensors["a"].tolist() == [1.5, -2]


@pytest.mark.parametrize("name", ["jax", "paddle", "megengine"])
def test_between_formats_of_one_framework(tmp_path: Path, name: str) -> None:
    codec = formats()[name].codec
    state = {"a.kernel": np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1), "a.steps": np.arange(2, dtype=np.int32)}
    codec.write(tmp_path / "a", state, {})
    convert(tmp_path / "a", tmp_path / "b", name)
    again = codec.read(tmp_path / "b").tensors
    assert {key: array.tobytes() for key, array in again.items()} == {key: array.tobytes() for key, array in state.items()}


@pytest.mark.parametrize("target", ["b.msgpack", "b.pdparams", "b.pkl"])
def test_other_layouts_need_the_layers(tmp_path: Path, target: str) -> None:
    write_state(tmp_path / "a.pth", {"a.weight": STATE["encoder.0.weight"]})
    with pytest.raises(UnknownNetworkError, match="no network has exactly these 1 tensors") as caught:
        convert(tmp_path / "a.pth", tmp_path / target)
    assert OWN_NETWORK in str(caught.value)
    assert "lay out some layers differently" in str(caught.value)
    assert "nearest" not in str(caught.value)
    assert Path(__file__).parents[2].joinpath("docs/usage.md").read_text().count("## A network of your own\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize(
    "needed", [{"query": NetworkQuery(NAME)}, {"to_dialect": "timm"}, {"transform": fold}, {"verify": lambda *_: []}]
)
def test_what_needs_a_network(tmp_path: Path, needed: dict[str, Any]) -> None:
    write_state(tmp_path / "a.pth", STATE)
    with pytest.raises(AconError, match="no network has exactly these 2 tensors"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", **needed)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_file_that_names_its_network(tmp_path: Path) -> None:
    network, state = smallest()
    write(tmp_path / "a.safetensors", "safetensors", network, {**state, "first_conv.2.p1": state["first_conv.2.p1"][:, :5]})
    with pytest.raises(AconError, match="no network has exactly these"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.pth")


def test_nearest_where_most_names_agree(tmp_path: Path) -> None:
    _, state = smallest()
    write_state(tmp_path / "a.pth", {**state, "more": np.ones(2, np.float32)})
    with pytest.raises(UnknownNetworkError, match=rf"the nearest is {NAME} with acon_c, 3 classes.*'more' is unexpected"):
        convert(tmp_path / "a.pth", tmp_path / "b.msgpack", query=NetworkQuery(NAME, options={"repeats": (1, 1, 1)}))
    (*_, note) = convert(tmp_path / "a.pth", tmp_path / "b.npz").notes
    assert note.startswith("copied tensor for tensor, names and layouts unchanged: no network has exactly")


def special(folder: Path, kind: str) -> Path:
    """Make a target that is no regular file."""
    path = folder / "target"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/full", "stream": "/proc/self/fd/0", "link to a folder": folder}[kind])
    return path


SPECIAL = ["pipe", "socket", "folder", "device", "stream", "link to a folder"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the devices of Linux")
@pytest.mark.parametrize("kind", SPECIAL)
def test_targets_that_are_no_files(tmp_path: Path, kind: str) -> None:
    target, source = special(tmp_path, kind), write_smallest(tmp_path / "a.safetensors")
    before = target.lstat()
    expected = {"link to a folder": "is a folder", "stream": "is a (device|pipe|stream)"}.get(kind, f"is a {kind}")
    for format in formats().values():
        if format.codec.DTYPES:
            with pytest.raises(AconError, match=rf"target: {expected}"):
                format.codec.write(target, STATE, {})
            with pytest.raises(AconError, match=rf"target: {expected}"):
                convert(source, target, format.name, dry_run=True)
    assert run_acon("convert", source, target, "--to", "npz").returncode == 2
    assert target.lstat().st_ino == before.st_ino
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "target"]


@pytest.mark.parametrize("name", SAME_LAYOUT)
def test_dry_run(tmp_path: Path, name: str) -> None:
    source, target = write_smallest(tmp_path / "a.safetensors"), tmp_path / "b"
    target.write_bytes(b"old")
    dry = convert(source, target, name, dry_run=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b"]
    assert target.read_bytes() == b"old"
    done = convert(source, target, name)
    assert (dry.tensors, dry.notes) == (done.tensors, done.notes)


def test_dry_run_of_what_would_fail(tmp_path: Path) -> None:
    source = write_smallest(tmp_path / "a.safetensors", "safetensors", "float64")
    dry = run_acon("convert", source, tmp_path / "b.pkl", "--dry-run")
    assert (dry.returncode, "cannot store float64" in dry.stderr) == (2, True)
    dry = run_acon("convert", source, tmp_path / "b.pkl", "--dry-run", "--cast")
    assert (dry.returncode, "dry run, nothing was kept" in dry.stdout) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
