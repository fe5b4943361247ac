"""Conversion without frameworks: every pair of formats bit for bit, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import own_networks
import pytest
from own_networks import small as small_of_one_s_own
from repository import DATA
from small_checkpoints import (
    run_acon,
    same_bits,
    small,
    smallest,
    write,
)

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, read_file, read_network
from acon_core.checkpoint.convert import staging
from acon_core.checkpoint.formats import format_named
from acon_core.errors import AconError, CheckpointError, SpecError, StateError
from acon_core.verification.verify import verify

CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"


FORMATS = ["torch", "megengine", "paddle", "jax", "safetensors"]


COUNTERS = "num_batches_tracked"


def test_chain_of_formats(tmp_path: Path) -> None:
    """torch, MegEngine, Paddle, Flax, safetensors, torch: only counters are lost, with a note."""
    path, told = CHECKPOINT, []
    for hop, format in enumerate(["megengine", "paddle", "jax", "safetensors", "torch"]):
        target = tmp_path / f"{hop}"
        told.append(convert(path, target, format).notes)
        path = target
    (first, start), (last, end) = read_file(CHECKPOINT), read_file(path)
    assert (first.name, last.name) == ("torch", "torch")
    assert list(end.tensors) == list(start.tensors)
    for name, array in start.tensors.items():
        if name.endswith(COUNTERS):
            assert end.tensors[name].dtype == np.int64
            assert end.tensors[name] == 0
        else:
            assert same_bits(array, end.tensors[name]), name
    assert any("format megengine does not store counters: " in note for note in told[0])


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_counters(tmp_path: Path, format: str) -> None:
    convert(CHECKPOINT, tmp_path / "out", format)
    _, before = read_file(CHECKPOINT)
    _, after = read_file(tmp_path / "out")
    assert before.tensors["first_conv.1." + COUNTERS] > 0
    for name, array in before.tensors.items():
        assert same_bits(array, after.tensors[name]), name


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_pair_of_formats(tmp_path: Path, source: str, target: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "meta_acon")
    state["first_conv.0.weight"] = state["first_conv.0.weight"].copy()
    odd = np.array([0x7FC00001, 0xFF812345, 0x80000000, 0x00000001, 0x7F800000], np.uint32).view(np.float32)
    state["first_conv.0.weight"].reshape(-1)[:5] = odd
    write(tmp_path / "a", source, network, state)
    convert(tmp_path / "a", tmp_path / "b", target)
    again = read_network(tmp_path / "b")
    assert again.format.name == target
    for path, array in state.items():
        assert same_bits(again.state[path], array), path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("format", FORMATS)
def test_float_dtypes(tmp_path: Path, format: str, dtype: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c", dtype=dtype)
    write(tmp_path / "a", "safetensors", network, state)
    if format == "megengine" and dtype in ("float64", "bfloat16"):
        with pytest.raises(CheckpointError, match=rf"b: .*megengine|MegEngine cannot store {dtype}"):
            convert(tmp_path / "a", tmp_path / "b", format)
        assert not (tmp_path / "b").exists()
        return
    convert(tmp_path / "a", tmp_path / "b", format)
    again = read_network(tmp_path / "b")
    assert again.dtype == dtype
    assert all(same_bits(again.state[path], array) for path, array in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.2.branch_main.7.p1"), "'features.2.branch_main.7.p1' is missing"),
        (lambda s: s.update({"features.2.more": np.ones(2, np.float32)}), "'features.2.more' is unexpected"),
        (lambda s: s.update({"first_conv.0.weight": s["first_conv.0.weight"].swapaxes(0, 1)}), "first_conv.0.weight"),
        (
            lambda s: s.update({"conv_last.2.beta": s["conv_last.2.beta"].astype(np.int32)}),
            "expected a float dtype, found int32",
        ),
    ],
)
def test_state_mismatch(tmp_path: Path, change: object, message: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c")
    change(state)  # type: ignore[operator]
    format_named("torch").codec.write(tmp_path / "a.pth", state, {})
    target = tmp_path / "b.safetensors"
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.")) as caught:
        convert(tmp_path / "a.pth", target, query=NetworkQuery(network.name, "acon_c"))
    assert str(caught.value).startswith(str(tmp_path / "a.pth"))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pth"]


def test_other_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no network has exactly .* nearest is acon/shufflenet_v2_x1_0 with acon_c"):
        convert(CHECKPOINT, tmp_path / "b.pkl", query=NetworkQuery("acon/shufflenet_v2_x1_0"))


def test_source_and_target_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    convert(CHECKPOINT, path)
    before = path.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(path)
    for same in (path, tmp_path / "link.safetensors", tmp_path / "." / "a.safetensors"):
        with pytest.raises(AconError, match="is the source file"):
            convert(path, same)
    assert path.read_bytes() == before


def test_deterministic_and_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        for format in FORMATS:
            convert(CHECKPOINT, tmp_path / f"{format}1", format)
            convert(CHECKPOINT, tmp_path / f"{format}2", format)
            assert (tmp_path / f"{format}1").read_bytes() == (tmp_path / f"{format}2").read_bytes()
            assert (tmp_path / f"{format}1").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_lossy_writer_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses precision fails the comparison and leaves no file."""
    files = format_named("megengine").codec
    honest = files.write

    def lossy(path: Path, tensors: dict[str, np.ndarray], more: dict[str, str]) -> None:
        honest(path, {name: array.astype(np.float16).astype(np.float32) for name, array in tensors.items()}, more)

    monkeypatch.setattr(files, "write", lossy)
    with pytest.raises(StateError, match=r"first_conv\.0\.weight: the values read back differ from the values written"):
        convert(CHECKPOINT, tmp_path / "a.pkl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 300_000, -1])
def test_one_changed_value_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    files = format_named("safetensors").codec
    honest = files.write

    def lossy(path: Path, tensors: Mapping[str, np.ndarray], more: dict[str, str]) -> None:
        changed = {name: array.copy() for name, array in tensors.items()}
        changed["classifier.0.weight"].reshape(-1)[place] *= -1
        honest(path, changed, more)

    monkeypatch.setattr(files, "write", lossy)
    with pytest.raises(StateError, match=r"classifier\.0\.weight: the values read back differ from the values written"):
        convert(CHECKPOINT, tmp_path / "a.safetensors")


def test_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(own_networks.__file__).parent)  # the worker imports it from the current folder
    state = spec.initial_state(small_of_one_s_own(), 1)
    format_named("torch").codec.write(tmp_path / "a.pth", state, {})
    own = NetworkQuery("own_networks:small")
    for target in ("b.msgpack", "b.pdparams"):
        convert(tmp_path / "a.pth", tmp_path / target, query=own)
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl", query=own, verify=verify)
    assert any(note.startswith("verified: on the reference, both files give the same bits") for note in done.notes)
    back = read_network(tmp_path / "b.msgpack", "own_networks:small")
    assert all(same_bits(back.state[path], array) for path, array in state.items())
    for name, message in (
        ("nowhere:f", "No module named"),
        ("own_networks:g", "no attribute"),
        ("own_networks:not_a_network", "found int"),
    ):
        with pytest.raises(SpecError, match=message):
            read_network(tmp_path / "a.pth", name)


def test_shard_size(tmp_path: Path) -> None:
    network, state = smallest()
    write(tmp_path / "a.safetensors", "safetensors", network, state)
    refused = run_acon("convert", tmp_path / "a.safetensors", tmp_path / "b.pth", "--shard-size", "1MB")
    assert "format torch has no shards; expected a target that ends in .safetensors.index.json" in refused.stderr
    assert "expected a size such as 500MB" in run_acon("convert", tmp_path / "a.safetensors", "b", "--shard-size", "0x3").stderr
    done = run_acon("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors.index.json", "--shard-size", "300KB")
    assert done.returncode == 0, done.stderr
    shards = [path for path in tmp_path.iterdir() if path.name.endswith(".safetensors") and path.name.startswith("b-")]
    sizes = [[array.nbytes for array in formats()["safetensors"].codec.read(shard).tensors.values()] for shard in shards]
    assert len(shards) > 1
    assert all(sum(shard) <= 300_000 or len(shard) == 1 for shard in sizes)
    again = read_network(tmp_path / "b.safetensors.index.json").state
    assert all(again[path].tobytes() == array.tobytes() for path, array in state.items())
    compared = run_acon("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors.index.json", "--json")
    assert (compared.returncode, json.loads(compared.stdout)["differences"]) == (0, [])


def test_target_becomes_a_folder(tmp_path: Path) -> None:
    def write() -> None:
        with staging(tmp_path / "b") as draft:
            draft.write_bytes(b"new")
            (tmp_path / "b").mkdir()

    with pytest.raises(AconError, match="b: is a folder; give the name of a file"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
